"""Contrasts: cells with weights that sum to zero.

A cell against another, an effect averaged over settings, a difference of differences, a Shapley value: for every seed a
contrast is one number. Below zero it is for the better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_ZERO = 1e-12  # weights that cancel leave so much


@dataclass(frozen=True)
class Contrast:
    """Cells with their weights, sorted, without zeros."""

    weights: tuple[tuple[str, float], ...]

    @property
    def cells(self) -> list[str]:
        """Those that it weighs."""
        return [cell for cell, _ in self.weights]

    @property
    def key(self) -> tuple[tuple[str, float], ...]:
        """The same for a contrast and for its reverse: they are one test."""
        sign = -1 if self.weights and self.weights[0][1] < 0 else 1
        return tuple((cell, round(sign * weight, 9)) for cell, weight in self.weights)

    def side(self, sign: int) -> list[str]:
        """The cells with positive (1) or negative (−1) weights."""
        return [cell for cell, weight in self.weights if sign * weight > 0]


def weigh(weights: Mapping[str, float]) -> Contrast:
    """The contrast with these weights."""
    return Contrast(tuple(sorted((cell, float(w)) for cell, w in weights.items() if abs(w) > _ZERO)))


def between(cell: str, other: str) -> Contrast:
    """A cell against another."""
    return weigh({cell: 1.0, other: -1.0} if cell != other else {})


def combined(parts: Sequence[tuple[Contrast, float]]) -> Contrast:
    """A weighted sum of contrasts."""
    total: dict[str, float] = {}
    for contrast, factor in parts:
        for cell, weight in contrast.weights:
            total[cell] = total.get(cell, 0.0) + factor * weight
    return weigh(total)


def average(contrasts: Sequence[Contrast]) -> Contrast:
    """The mean of contrasts."""
    return combined([(contrast, 1 / len(contrasts)) for contrast in contrasts])
