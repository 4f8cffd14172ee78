"""The output layer with its loss, where training spends its time, as an autograd function of our own.

It computes one model, or K replicates at once as batched products: then every argument but the targets has a leading
dimension K. The gradient is computed by hand; tests hold it against torch's. benchmarks/RESULTS.md says what it is
worth.

Shape suffixes: K replicates, N tokens, H hidden size, A numbers of an aligned row, V words. Shapes are those of one
model; K stands before them where there are replicates.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ablate.tasks.language_model.model.kernels import apply_of, products_dtype


def cross_entropy(x_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
    """Mean of −log softmax(W x + b) at the targets, in nats, shape [] or [K]; in fp32 at least.

    What `F.cross_entropy(F.linear(x, W, b), targets)` gives, with one array of N × V numbers instead of five: the
    logits become the probabilities, and these the gradient, in place.
    """
    return cross_entropy_by_token(x_NH, weight_VH, bias_V, targets_N)[0]


def cross_entropy_by_token(x_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """`cross_entropy`, and what it is the mean of: −log softmax(W x + b) at each target, through which no gradient
    flows, shape [N] or [K, N].
    """
    mean, nll_N = apply_of(_CrossEntropy)(x_NH, weight_VH, bias_V, targets_N, products_dtype(x_NH))
    return mean, nll_N


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor, products: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        # The bias is one more column of the matrix, where x is 1: it needs no pass of its own over N × V.
        x_NA, weight_VA = _widened(x_NH, 1.0, products), _widened(weight_VH, bias_V, products)
        with torch.autocast(x_NH.device.type, enabled=False):
            p_NV = torch.matmul(x_NA, weight_VA.mT)
            torch.softmax(p_NV, -1, out=p_NV)
        place_N1 = targets_N.expand(p_NV.shape[:-1]).unsqueeze(-1)
        p_N1 = p_NV.gather(-1, place_N1).to(torch.promote_types(products, torch.float32))
        nll_N1 = -p_N1.log()
        # On a CPU a look is cheaper than what it saves; another device would have to be waited for.
        if p_NV.device.type != "cpu" or not p_N1.all():
            nll_N1 = torch.where(p_N1 > 0, nll_N1, _nll_by_logits(x_NA, weight_VA, p_NV, place_N1, p_N1.dtype))
        if any(ctx.needs_input_grad):
            p_NV.scatter_(-1, place_N1, (p_N1 - 1).to(products))
            ctx.save_for_backward(x_NA, weight_VA, p_NV)
            ctx.hidden, ctx.types = x_NH.shape[-1], (x_NH.dtype, weight_VH.dtype, bias_V.dtype)
        nll_N = nll_N1.squeeze(-1)
        ctx.mark_non_differentiable(nll_N)
        return nll_N1.mean((-2, -1)), nll_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x_NA, weight_VA, d_NV = ctx.saved_tensors
        x_type, weight_type, bias_type = ctx.types
        scale = (gradient / d_NV.shape[-2])[..., None, None]
        d_x = torch.matmul(d_NV, weight_VA)[..., : ctx.hidden].to(x_type) * scale.to(x_type)
        d_VA = torch.matmul(d_NV.mT, x_NA * scale.to(x_NA.dtype))
        d_weight, d_bias = d_VA[..., : ctx.hidden].to(weight_type), d_VA[..., ctx.hidden].to(bias_type)
        return d_x, d_weight.contiguous(), d_bias.contiguous(), None, None


_ALIGNED = 16  # numbers: a matrix product is faster where its rows start at multiples of a vector register


def _widened(matrix_NH: Tensor, last: Tensor | float, dtype: torch.dtype) -> Tensor:
    """[matrix, last, 0 …] in another type, as wide as the next multiple of `_ALIGNED`."""
    hidden = matrix_NH.shape[-1]
    wide = matrix_NH.new_zeros(*matrix_NH.shape[:-1], (hidden // _ALIGNED + 1) * _ALIGNED, dtype=dtype)
    wide[..., :hidden] = matrix_NH
    wide[..., hidden] = last
    return wide


def _nll_by_logits(x_NA: Tensor, weight_VA: Tensor, p_NV: Tensor, place_N1: Tensor, exact: torch.dtype) -> Tensor:
    """−log p where p is below the smallest number: from the logits of the target and of the likeliest word."""
    likeliest_N1 = p_NV.argmax(-1, keepdim=True)

    def logit(place_N1: Tensor) -> Tensor:
        rows_NA = torch.take_along_dim(weight_VA, place_N1, -2)
        return (x_NA.to(exact) * rows_NA.to(exact)).sum(-1, keepdim=True)

    return logit(likeliest_N1) - p_NV.gather(-1, likeliest_N1).to(exact).log() - logit(place_N1)
