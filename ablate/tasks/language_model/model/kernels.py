"""Recurrent layers as autograd functions of our own: `lstm` and `tanh`; the output layer is in `output`.

They compute one model, or K replicates at once as batched products: then every argument has a leading dimension K.
Gradients are computed by hand; tests hold them against torch's. benchmarks/RESULTS.md says what each is worth.

Shape suffixes: K replicates, N tokens (T·B), T time steps, B streams, D input size, H hidden size, G gates × H. Shapes
are those of one model; K stands before them where there are replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def products_dtype(x: Tensor) -> torch.dtype:
    """The type in which x is multiplied by a matrix: autocast's, or its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def apply_of(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """Its `apply`, which torch leaves untyped."""
    apply: Callable[..., Any] = function.apply
    return apply


def lstm(
    x_TBD: Tensor, h_1BH: Tensor, c_1BH: Tensor, weight_GD: Tensor, recurrent_GH: Tensor, bias_G: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One LSTM layer; gates i, f, g, o as in `nn.LSTM`, one bias; cells in fp32 at least.

    No gradient reaches the initial state: truncated back-propagation stops there.

    Returns:
        h_TBH and the last h_1BH in the type of the products, the last c_1BH.
    """
    products = products_dtype(x_TBD)
    h_TBH, c_1BH = apply_of(_LSTM)(x_TBD, h_1BH, c_1BH, weight_GD, recurrent_GH, bias_G, products)
    return h_TBH, h_TBH[..., -1:, :, :], c_1BH


class _LSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TBD: Tensor,
        h_1BH: Tensor,
        c_1BH: Tensor,
        weight_GD: Tensor,
        recurrent_GH: Tensor,
        bias_G: Tensor,
        products: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        cells = torch.promote_types(products, torch.float32)
        with torch.autocast(x_TBD.device.type, enabled=False):
            x_ND = x_TBD.flatten(-3, -2).to(products)
            weight, recurrent, bias = (w.to(products, copy=True) for w in (weight_GD, recurrent_GH, bias_G))
            # g = tanh a = 2 σ(2a) − 1: with the rows of g doubled, which is exact, one sigmoid serves all four gates.
            _scale_g(2.0, weight, recurrent, bias.unsqueeze(-1))
            a_TBG = _affine(x_ND, weight, bias).view(*x_TBD.shape[:-1], -1)
            step = _StepMatrix(recurrent, x_TBD.shape[-2])
            gates = torch.empty_like(a_TBG, dtype=cells)
            h = _with_first(h_1BH, x_TBD, products)
            c = _with_first(c_1BH, x_TBD, cells)
            tanh_c = torch.empty_like(_steps(c, 1))
            # Slices are taken once: in the loop they would cost more than the arithmetic.
            each = a_TBG, gates, *gates.chunk(4, -1), _steps(c, 0), _steps(c, 1), tanh_c, _steps(h, 0), _steps(h, 1)
            for a_t, gates_t, i_t, f_t, s_t, o_t, c_before, c_t, tanh_t, h_before, h_t in _by_step(each):
                gates_t.copy_(step.product(h_before, a_t)).sigmoid_()
                torch.mul(f_t, c_before, out=c_t).addcmul_(i_t, s_t, value=2).sub_(i_t)
                torch.tanh(c_t, out=tanh_t)
                torch.mul(o_t, tanh_t, out=h_t)
            _scale_g(0.5, weight, recurrent)
        ctx.save_for_backward(x_ND, weight, recurrent, gates, c, tanh_c, h)
        ctx.types = x_TBD.dtype, weight_GD.dtype
        last = c[..., -1:, :, :].clone()
        ctx.mark_non_differentiable(last)
        return _steps(h, 1), last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_h: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, weight, recurrent, gates, c, tanh_c, h = ctx.saved_tensors
        hidden = tanh_c.shape[-1]
        i, f, s, o = gates.chunk(4, -1)
        g = s * 2 - 1
        # ∂c/∂a of the gates i, f, g, and ∂h/∂a of o, for all steps at once.
        by_ifg = c.new_empty(*tanh_c.shape[:-1], 3, hidden)
        _sigmoid_backward(g, i, grad_input=by_ifg[..., 0, :])
        _sigmoid_backward(_steps(c, 0), f, grad_input=by_ifg[..., 1, :])
        _tanh_backward(i, g, grad_input=by_ifg[..., 2, :])
        by_o = torch.empty_like(tanh_c)
        _sigmoid_backward(tanh_c, o, grad_input=by_o)
        by_c = torch.empty_like(tanh_c)  # ∂h/∂c
        _tanh_backward(o, tanh_c, grad_input=by_c)
        d_a = torch.empty_like(gates, dtype=x_ND.dtype)
        d_ifg, d_o = d_a[..., : 3 * hidden].view_as(by_ifg), d_a[..., 3 * hidden :]
        step = _StepMatrix(recurrent.mT, tanh_c.shape[-2])
        d_c = torch.zeros_like(tanh_c.select(-3, 0))
        d_next = None
        time = [-3, -4, -3, -3, -3, -4, -3, -3]
        each = by_c, by_ifg, by_o, f, d_a, d_ifg, d_o, d_h.to(c.dtype, copy=True)
        for by_ct, by_ifgt, by_ot, f_t, d_at, d_ifgt, d_ot, d_ht in reversed(_by_step(each, time)):
            d = d_ht if d_next is None else d_ht.add_(step.product(d_next))
            d_c.addcmul_(d, by_ct)
            torch.mul(d, by_ot, out=d_ot)
            torch.mul(by_ifgt, d_c.unsqueeze(-2), out=d_ifgt)
            d_c.mul_(f_t)
            d_next = d_at
        d_x, d_weight, d_recurrent, d_bias = _affine_gradients(d_a, x_ND, h, weight, ctx.types)
        return d_x, None, None, d_weight, d_recurrent, d_bias, None


def tanh(x_TBD: Tensor, h_1BH: Tensor, weight_HD: Tensor, recurrent_HH: Tensor, bias_H: Tensor) -> Tensor:
    """One layer h ← tanh(W x + U h + b), in the type of the products; its h_TBH.

    No gradient reaches the initial state.
    """
    h_TBH: Tensor = apply_of(_Tanh)(x_TBD, h_1BH, weight_HD, recurrent_HH, bias_H, products_dtype(x_TBD))
    return h_TBH


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TBD: Tensor,
        h_1BH: Tensor,
        weight_HD: Tensor,
        recurrent_HH: Tensor,
        bias_H: Tensor,
        products: torch.dtype,
    ) -> Tensor:
        with torch.autocast(x_TBD.device.type, enabled=False):
            x_ND = x_TBD.flatten(-3, -2).to(products)
            weight, recurrent, bias = (w.to(products) for w in (weight_HD, recurrent_HH, bias_H))
            a_TBH = _affine(x_ND, weight, bias).view(*x_TBD.shape[:-1], -1)
            step = _StepMatrix(recurrent, x_TBD.shape[-2])
            h = _with_first(h_1BH, x_TBD, products)
            for a_t, h_before, h_t in _by_step((a_TBH, _steps(h, 0), _steps(h, 1))):
                torch.tanh(step.product(h_before, a_t), out=h_t)
        ctx.save_for_backward(x_ND, weight, recurrent, h)
        ctx.types = x_TBD.dtype, weight_HD.dtype
        return _steps(h, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_h: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, weight, recurrent, h = ctx.saved_tensors
        step = _StepMatrix(recurrent.mT, h.shape[-2])
        d_a = torch.empty_like(_steps(h, 1))
        d_next = None
        for d_ht, h_t, d_at in reversed(_by_step((d_h.to(h.dtype), _steps(h, 1), d_a))):
            d = d_ht if d_next is None else step.product(d_next, d_ht)
            _tanh_backward(d, h_t, grad_input=d_at)
            d_next = d_at
        d_x, d_weight, d_recurrent, d_bias = _affine_gradients(d_a, x_ND, h, weight, ctx.types)
        return d_x, None, d_weight, d_recurrent, d_bias, None


def _affine(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor) -> Tensor:
    """W x + b, shape [N, O]."""
    if x_NI.dim() == 2:
        return torch.addmm(bias_O, x_NI, weight_OI.mT)
    return torch.baddbmm(bias_O.unsqueeze(-2), x_NI, weight_OI.mT)


def _affine_gradients(
    d_TBG: Tensor, x_ND: Tensor, h: Tensor, weight_GD: Tensor, types: tuple[torch.dtype, torch.dtype]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of x_TBD, W, U and b, from that of a = W x + U h + b at all steps; h is that of before the first step and on."""
    x_type, weight_type = types
    d_NG = d_TBG.flatten(-3, -2)
    d_x = torch.matmul(d_NG, weight_GD).view(*d_TBG.shape[:-1], -1).to(x_type)
    before_NH = _steps(h, 0).flatten(-3, -2)
    d_weight, d_recurrent = (torch.matmul(d_NG.mT, y).to(weight_type) for y in (x_ND, before_NH))
    # A sum over rows as a product: many times faster than `sum` for bf16.
    d_bias = torch.matmul(d_NG.new_ones(*d_NG.shape[:-2], 1, d_NG.shape[-2]), d_NG).squeeze(-2).to(weight_type)
    return d_x, d_weight, d_recurrent, d_bias


def _with_first(first_1BH: Tensor, x_TBD: Tensor, dtype: torch.dtype) -> Tensor:
    """An array for what is before the first step, which is given, and after each of T steps: [T + 1, B, H]."""
    *replicates, steps, streams, _ = x_TBD.shape
    array = x_TBD.new_empty(*replicates, steps + 1, streams, first_1BH.shape[-1], dtype=dtype)
    array.select(-3, 0).copy_(first_1BH.squeeze(-3))
    return array


def _steps(array: Tensor, first: int) -> Tensor:
    """T steps of T + 1, from the first or the second on."""
    return array.narrow(-3, first, array.shape[-3] - 1)


def _by_step(arrays: Sequence[Tensor], dims: Sequence[int] | None = None) -> list[tuple[Tensor, ...]]:
    """The arrays' slices of each time step; `dims` says where time is, -3 if not said."""
    dims = dims or [-3] * len(arrays)
    return list(zip(*(array.unbind(dim) for array, dim in zip(arrays, dims, strict=True)), strict=True))


_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input  # (∂/∂σ, σ) → ∂/∂a
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


def _scale_g(factor: float, *weights: Tensor) -> None:
    """Scale the rows that belong to gate g, in place."""
    for weight_GI in weights:
        weight_GI.chunk(4, -2)[2].mul_(factor)


class _StepMatrix:
    """A matrix that multiplies at every step, laid out once for the processor (oneDNN) where torch can."""

    def __init__(self, weight_OI: Tensor, streams: int) -> None:
        self._weight = weight_OI
        self._laid_out = (
            torch.ops.mkldnn._reorder_linear_weight(weight_OI, streams) if _can_lay_out(weight_OI) else None
        )

    def product(self, x_BI: Tensor, more_BO: Tensor | None = None) -> Tensor:
        """x Wᵀ + more, shape [B, O]."""
        product: Tensor
        if self._laid_out is None:
            product = torch.matmul(x_BI, self._weight.mT)
            return product if more_BO is None else product.add_(more_BO)
        if more_BO is None:
            product = _linear(x_BI, self._laid_out, None, "none", [], "")
        else:
            product = _linear.binary(x_BI, more_BO, self._laid_out, None, "add")
        return product


def _lays_out() -> bool:
    """Whether torch has these products, and the processor bf16: without it oneDNN refuses them."""
    ops = torch.ops.mkldnn
    needed = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    return all(hasattr(ops, name) for name in needed) and bool(ops._is_mkldnn_bf16_supported())


_LAYS_OUT = _lays_out()
_linear: Any = torch.ops.mkldnn._linear_pointwise if _LAYS_OUT else None


def _can_lay_out(weight_OI: Tensor) -> bool:
    on_cpu = weight_OI.device.type == "cpu"
    return _LAYS_OUT and on_cpu and weight_OI.dim() == 2 and weight_OI.dtype == torch.bfloat16
