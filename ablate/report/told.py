"""Numbers of a metric as people read them: its values, and what a difference of scores is in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ablate.analyze.comparison import Missing
from ablate.metric import Metric
from ablate.names import some
from ablate.track.units import percent, without_rounding

NOT_AVAILABLE = "n/a"
ABSURD = 1e6  # values beyond it differ from each other in nothing that matters


def change(metric: Metric, effect: float, digits: int | None = None) -> str:
    """A difference of scores as a signed change of the metric: +3.1 %, or −0.42 points.

    Args:
        digits: decimals; None: as many as are worth printing.
    """
    if metric.scale == "log":
        return percent(metric.change(effect), digits)
    difference = without_rounding(metric.change(effect))
    digits = metric.decimals(difference) if digits is None else digits
    return f"{difference:+.{digits}f}".replace("-", "−") + _unit_of_differences(metric)


def size(metric: Metric, effect: float) -> str:
    """A change without its sign."""
    return change(metric, effect).lstrip("+−")


def span(metric: Metric, low: float, high: float, digits: int | None = None) -> str:
    """An interval of differences of scores, the lower end of the metric's change first."""
    return " to ".join(change(metric, end, digits) for end in ends(metric, low, high))


def ends(metric: Metric, low: Any, high: Any) -> tuple[Any, Any]:
    """The ends of an interval of differences of scores, in the order of the metric's changes."""
    return (low, high) if metric.sign > 0 else (high, low)


def spread(metric: Metric, sd: float, digits: int | None = None) -> str:
    """A standard deviation of scores."""
    if metric.scale == "log":
        return f"{100 * math.expm1(sd):.{2 if digits is None else digits}f} %"
    return f"{sd:.{metric.decimals(sd) if digits is None else digits}f}{_unit_of_differences(metric)}"


def direction(metric: Metric, effect: float) -> str:
    """Whether the metric becomes higher or lower."""
    return "higher" if metric.sign * effect > 0 else "lower"


def value(metric: Metric, mean: float, sd: float = math.nan, digits: int | None = None) -> str:
    """A value, with its standard deviation where one is known."""
    if abs(mean) > ABSURD:
        return f"over {ABSURD:,.0f}{_unit(metric)}"
    digits = metric.decimals(mean) if digits is None else digits
    spread = "" if math.isnan(sd) else f" ± {sd:,.{digits}f}"
    return f"{mean:,.{digits}f}{spread}".replace("-", "−") + _unit(metric)


def best(metric: Metric) -> str:
    """What the best is: the lowest, or the highest."""
    return "lowest" if metric.better == "lower" else "highest"


def _unit(metric: Metric) -> str:
    return f" {metric.unit}" if metric.unit else ""


def _unit_of_differences(metric: Metric) -> str:
    """Per cent of a whole differ by points: 12 % of error are no 20 % more than 10 %."""
    return " points" if metric.unit == "%" else _unit(metric)


def steps(task: Mapping[str, Any]) -> str:
    """The task's word for steps."""
    return f"{task['step']}s"


def unit(task: Mapping[str, Any]) -> str:
    """What training reads."""
    return str(task["unit"]) or "examples"


def seen(task: Mapping[str, Any]) -> str:
    """What a table calls how much was trained on."""
    return f"{task['unit']} seen" if task["unit"] else "seen"


def by_value(values: Mapping[str, str]) -> str:
    """`x: a, b; y: c` of a ↦ x, b ↦ x, c ↦ y."""
    cells: dict[str, list[str]] = {}
    for cell, value in values.items():
        cells.setdefault(value, []).append(cell)
    return "; ".join(f"{value}: {some(where)}" for value, where in cells.items())


def missing(trials: Sequence[Missing]) -> str:
    """Which trials have no result, and why."""
    return "; ".join(map(_missing, trials))


def _missing(trial: Missing) -> str:
    if trial.status == "FINISHED":
        return f"seed {trial.seed} finished with a test result that is no finite number"
    return f"seed {trial.seed} {trial.status.lower()}" + (f" ({trial.reason})" if trial.reason else "")
