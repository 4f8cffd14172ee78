"""Means of losses and gradient norms, kept on the device between two readings."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mean:
    """Means over the windows since the last reading.

    Attributes:
        first_nll: of the first of these windows; clipped: how many had a gradient above the limit.
        first_bad: the first of these windows, counted from 1, whose loss is not a finite number; None: all are.
    """

    windows: int
    nll: float
    grad_norm: float
    seconds: float
    first_nll: float
    clipped: int
    first_bad: int | None


class Meter:
    """Losses and norms that stay on the device: a reading every 20 windows costs one synchronisation, not 20."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what was added, and start the clock."""
        self._added: list[Tensor] = []
        self._started = time.perf_counter()

    def add(self, loss_K: Tensor, grad_norm_K: Tensor) -> None:
        """Add a window's mean losses and gradient norms."""
        self._added.append(torch.stack((loss_K, grad_norm_K)))

    def read(self, max_norms: Sequence[float]) -> list[Mean]:
        """Each trial's means since the last reading; starts over. `max_norms`: each one's limit of the gradient."""
        windows = len(self._added)
        of_each = torch.stack(self._added).permute(2, 1, 0).tolist()  # trials × (loss, norm) × windows
        seconds = time.perf_counter() - self._started
        self.restart()
        return [
            _mean(losses, norms, limit, windows, seconds)
            for (losses, norms), limit in zip(of_each, max_norms, strict=True)
        ]


def _mean(losses: list[float], norms: list[float], limit: float, windows: int, seconds: float) -> Mean:
    first_bad = next((i for i, loss in enumerate(losses, 1) if not math.isfinite(loss)), None)
    clipped = sum(norm > limit for norm in norms)
    return Mean(windows, sum(losses) / windows, sum(norms) / windows, seconds, losses[0], clipped, first_bad)
