"""What is measured and compared: a metric, its direction and its scale. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_ABSURD = 1e6  # values beyond it differ from each other in nothing that matters
_SMALL, _NOISE = 0.01, 1e-12  # below these: two decimals say next to nothing; what is left is rounding


@dataclass(frozen=True)
class Metric:
    """A number that is measured on valid and test data.

    Cells are compared by their scores: the metric on its scale, turned so that lower is better. Means, intervals and
    tests are of differences of scores, and `change` says what such a difference is in the metric.

    Attributes:
        name: as it is printed: "perplexity", "error".
        better: "lower" or "higher".
        scale: "log": differences are ratios (perplexity); "linear": differences are differences (error, accuracy).
        unit: printed behind values and differences on a linear scale, for example "%".
        logged: name of what is recorded in its place where the metric is exp of it ("nll"); None: the metric itself.

    Raises:
        ValueError: for a direction or a scale that there is not, or exp of something on a linear scale.
    """

    name: str
    better: Literal["lower", "higher"] = "lower"
    scale: Literal["linear", "log"] = "linear"
    unit: str = ""
    logged: str | None = None

    def __post_init__(self) -> None:
        if self.better not in ("lower", "higher"):
            raise ValueError(f"metric {self.name}: better={self.better!r} must be 'lower' or 'higher'")
        if self.scale not in ("linear", "log"):
            raise ValueError(f"metric {self.name}: scale={self.scale!r} must be 'linear' or 'log'")
        if self.logged is not None and self.scale != "log":
            raise ValueError(f"metric {self.name}: logged={self.logged!r} is its logarithm, and needs scale='log'")

    @property
    def recorded(self) -> str:
        """The name under which its numbers are recorded."""
        return self.logged or self.name

    @property
    def sign(self) -> int:
        """What turns the metric so that lower is better."""
        return 1 if self.better == "lower" else -1

    def value(self, logged: float) -> float:
        """The metric of what was recorded; infinite where a float ends."""
        if self.logged is None:
            return logged
        return math.inf if logged >= 700 else math.exp(logged)

    def score(self, logged: float) -> float:
        """The score of what was recorded; NaN where a logarithm has none."""
        return self.sign * logged if self.logged is not None else self.score_of(logged)

    def score_of(self, value: float) -> float:
        """The score of a value of the metric."""
        if self.scale == "linear":
            return self.sign * value
        return self.sign * math.log(value) if value > 0 else math.nan

    def of_score(self, score: float) -> float:
        """The metric that has this score."""
        turned = self.sign * score
        if self.scale == "linear":
            return turned
        return math.inf if turned >= 700 else math.exp(turned)

    def change(self, effect: float) -> float:
        """A difference of scores as a change of the metric: a ratio minus 1 on a log scale, else a difference."""
        turned = self.sign * effect
        if self.scale == "linear":
            return turned
        return math.inf if turned >= 709 else math.expm1(turned)

    def text(self, value: float) -> str:
        """A value with its unit, as people read it."""
        unit = f" {self.unit}" if self.unit else ""
        if abs(value) > _ABSURD:
            return f"over {_ABSURD:,.0f}{unit}"
        return f"{value:,.{self.decimals(value)}f}".replace("-", "−") + unit

    def decimals(self, value: float) -> int:
        """How many are worth printing of a value, or of a difference on a linear scale; of a small one three digits."""
        size = abs(value)
        if _NOISE < size < _SMALL:
            return 2 - math.floor(math.log10(size))
        if self.scale == "log":
            return 1 if size < 10_000 else 0
        return 2 if self.unit or size >= 10 else 4  # a share, a loss: what has no unit is often small


# Columns of the table of curves that are not a metric's.
_TAKEN = ("cell", "seed", "split", "step", "seen", "seconds")


def check_metrics(metrics: Sequence[Metric]) -> None:
    """Refuse metrics that cannot be recorded beside each other.

    Raises:
        ValueError: when there is none, or a name is taken.
    """
    if not metrics:
        raise ValueError("metrics: a task has at least one")
    owners: dict[str, Metric] = {}
    for metric in metrics:
        for name in dict.fromkeys((metric.recorded, metric.name)):
            if name in _TAKEN:
                raise ValueError(f"metric {metric.name}: the name {name!r} is taken; others are {', '.join(_TAKEN)}")
            if name in owners:
                raise ValueError(f"metrics {owners[name].name} and {metric.name}: both use the name {name!r}")
            owners[name] = metric
