"""Update rules and the clipping of the gradient."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def sgd(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """Plain stochastic gradient descent: no momentum, no weight decay."""
    return torch.optim.SGD(parameters, lr=lr, fused=True)


def adam(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """Adam (Kingma & Ba 2015) with β = (0.9, 0.999) and ε = 1e-8."""
    return torch.optim.Adam(parameters, lr=lr, fused=True)


def clip_gradients(parameters: list[nn.Parameter], max_norm: float | None) -> Tensor:
    """Scale all gradients together to an L2 norm of at most `max_norm` (None: no limit).

    The scale is max_norm / (norm + 1e-6) where that is below 1, as in Pascanu et al. 2013 and the book. A tied
    matrix' two gradients are already summed. Returns the norm before clipping, shape [].
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm
