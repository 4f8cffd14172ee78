"""What stands in one field of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ablate.analyze.families import EXPLORATORY, is_claim
from ablate.metric import Metric
from ablate.report import told
from ablate.report.told import NOT_AVAILABLE


def whole(value: float | None) -> str:
    """A count, with separators."""
    return f"{round(value):,}" if known(value) else NOT_AVAILABLE  # type: ignore[arg-type]


def p_value(p: float) -> str:
    """A p-value in three digits, never 0."""
    if not known(p):
        return NOT_AVAILABLE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def over_text(metric: Metric, row: Mapping[Any, Any], digits: int | None) -> str:
    """The interval for other test data too."""
    return told.span(metric, row["text_low"], row["text_high"], digits) if known(row["text_low"]) else "–"


def wins(row: Mapping[Any, Any]) -> str:
    """How many pairs went for the better."""
    ties = len(row["deltas"]) - row["wins"] - row["losses"]
    if not row["deltas"]:
        return "–"
    tied = f", {ties} tied" if ties else ""
    chance = f" [{row['wins_low']:.2f}, {row['wins_high']:.2f}]" if known(row["wins_low"]) else ""
    return f"{row['wins']} of {len(row['deltas'])}{tied}{chance}"


def pairing(row: Mapping[Any, Any]) -> str:
    """Correlation of the cells over seeds, and the width of the paired interval to that of an unpaired one."""
    if not known(row["width_ratio"]):
        return "–"
    correlation = f"r {row['correlation']:.2f}, " if known(row["correlation"]) else ""
    return f"{correlation}×{row['width_ratio']:.2f}".replace("-", "−")


def verdict(row: Mapping[Any, Any]) -> str:
    """With what it is worth: what belongs to no question that was asked beforehand is marked, and so is divergence."""
    diverged = row["lost"]
    lost = [
        f"{k}/{n} diverged {where}"
        for k, n, where in (
            (diverged.with_, diverged.of_with, "with"), (diverged.without, diverged.of_without, "without"),
        )
        if k
    ]  # fmt: skip
    marks = [*(["exploratory"] if row["family"] == EXPLORATORY and is_claim(row["verdict"]) else []), *lost]
    return f"{row['verdict']} ({', '.join(marks)})" if marks else str(row["verdict"])


def known(value: float | None) -> bool:
    """Whether it is a finite number."""
    return value is not None and not pd.isna(value) and math.isfinite(value)


def value(metric: Metric, mean: float, sd: float, digits: int | None) -> str:
    """A mean of the metric, with its standard deviation where one is known."""
    return NOT_AVAILABLE if math.isnan(mean) else told.value(metric, mean, sd, digits)


def of_other(metric: Metric, row: Mapping[Any, Any], digits: int | None) -> str:
    """The same of another metric than the one that cells are compared by."""
    return value(metric, row[f"test_{metric.name}_mean"], row[f"test_{metric.name}_sd"], digits)


def without_interval(row: Mapping[Any, Any]) -> str:
    """Why an effect of two seeds or more has no interval: nothing varied, or none holds at every look (seeds=auto)."""
    return "no spread" if row["sd"] == 0 else "no interval"


def difference(metric: Metric, row: Mapping[Any, Any], digits: int | None) -> str:
    """A row's difference to the baseline, with its interval."""
    if not known(row["effect"]):
        return NOT_AVAILABLE
    change = told.change(metric, row["effect"], digits)
    if row["pairs"] == 1 or (row["difference_kind"] == "unpaired" and row["n"] == 1):
        return f"{change} (n = 1)"
    if not known(row["low"]):
        return f"{change} ({without_interval(row)})"
    low, high = (told.change(metric, end, digits) for end in told.ends(metric, row["low"], row["high"]))
    return f"{change} [{low}, {high}]"
