"""Update rules and the clipping of the gradient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def sgd(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """Plain stochastic gradient descent: no momentum, no weight decay."""
    return torch.optim.SGD(parameters, lr=lr, fused=True)


def adam(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """Adam (Kingma & Ba 2015) with β = (0.9, 0.999) and ε = 1e-8."""
    return torch.optim.Adam(parameters, lr=lr, fused=True)


def clip_gradients(gradients: Sequence[Tensor], max_norm_K: Tensor) -> Tensor:
    """Scale each replicate's gradients together to an L2 norm of at most `max_norm_K`, which may be infinite.

    The scale is max_norm / (norm + 1e-6) where that is below 1, as in Pascanu et al. 2013 and the book. A tied
    matrix' two gradients are already summed.

    Args:
        gradients: of every parameter, each [K, …]; scaled in place.
        max_norm_K: on their device.

    Returns:
        The norms before clipping, [K].
    """
    norm_K: Tensor = torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]), dim=0
    )
    limit_K = max_norm_K.to(norm_K.dtype)
    # Not ∞ / norm, which is no number where the norm is infinite too.
    scale_K = torch.where(limit_K.isinf(), 1.0, limit_K / (norm_K + 1e-6)).clamp_(max=1)
    for g in gradients:
        g.mul_(scale_K.view(-1, *[1] * (g.dim() - 1)))
    return norm_K
