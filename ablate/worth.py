"""The smallest difference that matters: what a user types, as a margin of scores."""

from __future__ import annotations

import math

from ablate.knobs import KnobError, show
from ablate.metric import Metric

_OF_RATIOS = 0.01  # on a logarithmic scale, where nothing is typed


def margin(worth: str | float | None, metric: Metric) -> float | None:
    """The absolute difference of scores below which two results are as good as equal.

    Args:
        worth: as it is typed. On a logarithmic scale a percentage, "1%": ln 1.01. On a linear one a number in the
            metric's unit, 0.5; where that unit is %, also "0.5%". None: 1 % on a logarithmic scale.

    Returns:
        Above 0; None on a linear scale where nothing is typed: no difference is too small to matter.

    Raises:
        KnobError: for what is no such difference.
    """
    if worth is None:
        return math.log1p(_OF_RATIOS) if metric.scale == "log" else None
    number, is_percentage = _parsed(show(worth))
    if not 0 < number < math.inf:
        raise KnobError(f"worth={show(worth)}: must be a percentage, or a number, above 0; for example {_good(metric)}")
    if metric.scale == "log":
        if not is_percentage:
            raise KnobError(f"worth={show(worth)}: {metric.name} is compared by ratios; use a percentage, worth=1%")
        return math.log1p(number / 100)
    if is_percentage and metric.unit != "%":
        unit = f" of {metric.unit}" if metric.unit else ""
        raise KnobError(
            f"worth={show(worth)}: {metric.name} is compared by differences; use a number{unit}, {_good(metric)}"
        )
    return number


def _parsed(text: str) -> tuple[float, bool]:
    """The number, NaN where there is none, and whether it is a percentage."""
    try:
        return float(text.strip().removesuffix("%")), text.strip().endswith("%")
    except ValueError:
        return math.nan, False


def _good(metric: Metric) -> str:
    return "worth=1%" if metric.scale == "log" else "worth=0.5"
