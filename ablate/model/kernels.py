"""The two places where training on a CPU spends its time, as autograd functions of our own.

`cross_entropy` is the output layer with its loss; `lstm` one recurrent layer, for bf16, where torch's own backward pass
is slow. Both compute their gradients by hand; tests hold them against torch's. benchmarks/RESULTS.md
says what each is worth.

Shape suffixes: N tokens (T·B), T time steps, B streams, D input size, H hidden size, G gates × H, V words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def products_dtype(x: Tensor) -> torch.dtype:
    """The type in which x is multiplied by a matrix: autocast's, or its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def cross_entropy(x_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
    """Mean of −log softmax(W x + b) at the targets, in nats, shape []; in fp32 at least.

    What `F.cross_entropy(F.linear(x, W, b), targets)` gives, with one array of N × V numbers instead of five: the
    logits become the probabilities, and these the gradient, in place.
    """
    mean: Tensor = _apply(_CrossEntropy)(x_NH, weight_VH, bias_V, targets_N, products_dtype(x_NH))
    return mean


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor, products: torch.dtype
    ) -> Tensor:
        # The bias is one more column of the matrix, where x is 1: it needs no pass of its own over N × V.
        x_NA, weight_VA = _widened(x_NH, 1.0, products), _widened(weight_VH, bias_V, products)
        with torch.autocast(x_NH.device.type, enabled=False):
            p_NV = torch.mm(x_NA, weight_VA.t())
            torch.softmax(p_NV, 1, out=p_NV)
        place = torch.arange(targets_N.numel(), device=p_NV.device), targets_N
        p_N = p_NV[place].to(torch.promote_types(products, torch.float32))
        nll_N = -p_N.log()
        if not p_N.all():  # below the smallest number: the logarithm needs the logits
            rows = p_N == 0
            logits = F.linear(x_NH[rows].to(nll_N.dtype), weight_VH.to(nll_N.dtype), bias_V.to(nll_N.dtype))
            nll_N[rows] = F.cross_entropy(logits, targets_N[rows], reduction="none")
        if any(ctx.needs_input_grad):
            p_NV[place] = (p_N - 1).to(products)
            ctx.save_for_backward(x_NA, weight_VA, p_NV)
            ctx.hidden, ctx.types = x_NH.shape[1], (x_NH.dtype, weight_VH.dtype, bias_V.dtype)
        return nll_N.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x_NA, weight_VA, d_NV = ctx.saved_tensors
        x_type, weight_type, bias_type = ctx.types
        scale = gradient / d_NV.shape[0]
        d_x = torch.mm(d_NV, weight_VA)[:, : ctx.hidden].to(x_type) * scale.to(x_type)
        d_VA = torch.mm(d_NV.t(), x_NA * scale.to(x_NA.dtype))
        d_weight, d_bias = d_VA[:, : ctx.hidden].to(weight_type).contiguous(), d_VA[:, ctx.hidden].to(bias_type)
        return d_x, d_weight, d_bias.contiguous(), None, None


_ALIGNED = 16  # numbers: a matrix product is faster where its rows start at multiples of a vector register


def _widened(matrix_NH: Tensor, last: Tensor | float, dtype: torch.dtype) -> Tensor:
    """[matrix, last, 0 …] in another type, as wide as the next multiple of `_ALIGNED`."""
    rows, hidden = matrix_NH.shape
    wide = matrix_NH.new_zeros(rows, (hidden // _ALIGNED + 1) * _ALIGNED, dtype=dtype)
    wide[:, :hidden] = matrix_NH
    wide[:, hidden] = last
    return wide


def lstm(
    x_TBD: Tensor, h_1BH: Tensor, c_1BH: Tensor, weight_GD: Tensor, recurrent_GH: Tensor, bias_G: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One LSTM layer on a CPU; gates i, f, g, o as in `nn.LSTM`, one bias; cells in fp32 at least.

    No gradient reaches the initial state: truncated back-propagation stops there.

    Returns:
        h_TBH and the last h_1BH in the type of the products, the last c_1BH.
    """
    products = products_dtype(x_TBD)
    h_TBH, c_1BH = _apply(_LSTM)(x_TBD, h_1BH, c_1BH, weight_GD, recurrent_GH, bias_G, products)
    return h_TBH, h_TBH[-1:], c_1BH


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
        steps, streams, inputs = x_TBD.shape
        hidden = h_1BH.shape[-1]
        cells = torch.promote_types(products, torch.float32)
        with torch.autocast("cpu", enabled=False):
            x_ND = x_TBD.reshape(-1, inputs).to(products)
            weight, recurrent, bias = (w.to(products, copy=True) for w in (weight_GD, recurrent_GH, bias_G))
            # g = tanh a = 2 σ(2a) − 1: with the rows of g doubled, which is exact, one sigmoid serves all four gates.
            _scale_g(2.0, weight, recurrent, bias)
            a_TBG = torch.addmm(bias, x_ND, weight.t()).view(steps, streams, -1)
            packed = _Packed(recurrent, streams)
            gates = x_TBD.new_empty(steps, streams, 4 * hidden, dtype=cells)
            c = x_TBD.new_empty(steps + 1, streams, hidden, dtype=cells)
            tanh_c = x_TBD.new_empty(steps, streams, hidden, dtype=cells)
            h = x_TBD.new_empty(steps + 1, streams, hidden, dtype=products)
            h[0], c[0] = h_1BH[0], c_1BH[0]
            i, f, s, o = gates.chunk(4, 2)
            # Slices are taken once: in the loop they would cost more than the arithmetic.
            each = (tensor.unbind(0) for tensor in (a_TBG, gates, i, f, s, o, c[:-1], c[1:], tanh_c, h[:-1], h[1:]))
            for a_t, gates_t, i_t, f_t, s_t, o_t, c_before, c_t, tanh_t, h_before, h_t in zip(*each, strict=True):
                gates_t.copy_(packed.product(h_before, a_t)).sigmoid_()
                torch.mul(f_t, c_before, out=c_t).addcmul_(i_t, s_t, value=2).sub_(i_t)
                torch.tanh(c_t, out=tanh_t)
                torch.mul(o_t, tanh_t, out=h_t)
            _scale_g(0.5, weight, recurrent)
        ctx.save_for_backward(x_ND, weight, recurrent, gates, c, tanh_c, h)
        ctx.types = x_TBD.dtype, weight_GD.dtype
        last = c[-1:].clone()
        ctx.mark_non_differentiable(last)
        return h[1:], last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_h: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, weight, recurrent, gates, c, tanh_c, h = ctx.saved_tensors
        steps, streams, hidden = tanh_c.shape
        i, f, s, o = gates.chunk(4, 2)
        g = s * 2 - 1
        # ∂c/∂a of the gates i, f, g, and ∂h/∂a of o, for all steps at once.
        by_ifg = c.new_empty(steps, streams, 3, hidden)
        _sigmoid_backward(g, i, grad_input=by_ifg[:, :, 0])
        _sigmoid_backward(c[:-1], f, grad_input=by_ifg[:, :, 1])
        _tanh_backward(i, g, grad_input=by_ifg[:, :, 2])
        by_o = torch.empty_like(tanh_c)
        _sigmoid_backward(tanh_c, o, grad_input=by_o)
        by_c = torch.empty_like(tanh_c)  # ∂h/∂c
        _tanh_backward(o, tanh_c, grad_input=by_c)
        d_a = x_ND.new_empty(steps, streams, 4 * hidden)
        d_ifg, d_o = d_a[:, :, : 3 * hidden].unflatten(2, (3, hidden)), d_a[:, :, 3 * hidden :]
        packed = _Packed(recurrent.t(), streams)
        d_c = c.new_zeros(streams, hidden)
        d_next = None
        each = (tensor.unbind(0) for tensor in (by_c, by_ifg, by_o, f, d_a, d_ifg, d_o, d_h.to(c.dtype, copy=True)))
        for by_ct, by_ifgt, by_ot, f_t, d_at, d_ifgt, d_ot, d_ht in reversed(list(zip(*each, strict=True))):
            d = d_ht if d_next is None else d_ht.add_(packed.product(d_next))
            d_c.addcmul_(d, by_ct)
            torch.mul(d, by_ot, out=d_ot)
            torch.mul(by_ifgt, d_c[:, None], out=d_ifgt)
            d_c.mul_(f_t)
            d_next = d_at
        d_NG = d_a.flatten(0, 1)
        x_type, weight_type = ctx.types
        d_x = torch.mm(d_NG, weight).view(steps, streams, -1).to(x_type)
        d_weight, d_recurrent = (torch.mm(d_NG.t(), y).to(weight_type) for y in (x_ND, h[:-1].flatten(0, 1)))
        d_bias = torch.mm(d_NG.new_ones(1, steps * streams), d_NG).view(-1).to(weight_type)
        return d_x, None, None, d_weight, d_recurrent, d_bias, None


_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input  # (∂/∂σ, σ) → ∂/∂a
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


def _scale_g(factor: float, *weights: Tensor) -> None:
    """Scale the rows that belong to gate g, in place."""
    for weight_G in weights:
        weight_G.chunk(4)[2].mul_(factor)


class _Packed:
    """A matrix that is multiplied at every step, laid out once for the processor (oneDNN) where torch can."""

    def __init__(self, weight_OI: Tensor, streams: int) -> None:
        self._weight = weight_OI
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI, streams) if _can_pack(weight_OI) else None

    def product(self, x_BI: Tensor, more_BO: Tensor | None = None) -> Tensor:
        """x Wᵀ + more, shape [B, O]."""
        product: Tensor
        if self._packed is None:
            product = F.linear(x_BI, self._weight)
            return product if more_BO is None else product + more_BO
        if more_BO is None:
            product = _linear(x_BI, self._packed, None, "none", [], "")
        else:
            product = _linear.binary(x_BI, more_BO, self._packed, None, "add")
        return product


def _packs() -> bool:
    """Whether torch has these products, and the processor bf16: without it oneDNN refuses them."""
    ops = torch.ops.mkldnn
    needed = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    return all(hasattr(ops, name) for name in needed) and bool(ops._is_mkldnn_bf16_supported())


_PACKING = _packs()
_linear: Any = torch.ops.mkldnn._linear_pointwise if _PACKING else None


def _can_pack(weight: Tensor) -> bool:
    return _PACKING and weight.dtype == torch.bfloat16


def _apply(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """Its `apply`, which torch leaves untyped."""
    apply: Callable[..., Any] = function.apply
    return apply
