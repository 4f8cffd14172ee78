"""Words that sentences are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ablate.analyze.families import EQUIVALENT, EXPLORATORY, is_claim, is_flattered
from ablate.metric import Metric
from ablate.report import told

Row = Mapping[Any, Any]

NAMED = 6  # more names than that are no sentence


def listed(names: Sequence[str]) -> str:
    """a, b and c; the rest of a long list is counted."""
    if len(names) > NAMED:
        names = [*names[: NAMED - 1], f"{len(names) - NAMED + 1} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def verb(rows: Sequence[object], one: str, many: str) -> str:
    """One does, many do."""
    return one if len(rows) == 1 else many


def capital(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]


def seeds(row: Row) -> str:
    """How many seeds a row is of."""
    if row["difference_kind"] == "unpaired":
        return f"{row['n']} seeds, none in common"
    return f"{row['n']} seed" + ("s" if row["n"] != 1 else "")


def interval(metric: Metric, low: float, high: float, of: str) -> str:
    """In brackets, its ends with their signs; `of`: how many seeds."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return f" ({of})"
    return f" (95 % interval {told.span(metric, low, high)}, {of})"


def other_text(metric: Metric, row: Row, size: float | None, sign: int = 1) -> str:
    """That another sample of test data may not show what a verdict says, where the wider interval says so.

    Args:
        size: the margin of what matters; None: nobody said so.
        sign: −1 where the effect is told the other way round.
    """
    low, high = sorted((sign * row["text_low"], sign * row["text_high"]))
    over = f"({told.span(metric, low, high)})"
    if row["verdict"] == EQUIVALENT:
        ends = [max(abs(row[low]), abs(row[high])) for low, high in (("low", "high"), ("text_low", "text_high"))]
        larger = size is not None and ends[0] <= size < ends[1]
        return f"; with other test data the difference may be larger {over}" if larger else ""
    none = is_claim(row["verdict"]) and low * high <= 0  # not where it is not known
    return f"; with other test data it may be none {over}" if none else ""


def margin(metric: Metric, size: float) -> str:
    """What a difference has to be to matter."""
    return f"±{told.size(metric, metric.sign * abs(size))}"


def label(row: Row) -> str:
    """What a row outside the primary family carries in a sentence."""
    return ", exploratory" if row["family"] == EXPLORATORY else ""


def why_undecided(row: Row) -> str:
    """What keeps a row from a verdict."""
    if is_flattered(row):
        return "cannot be said, for the side that looks better lost more trials"
    return "cannot be told from chance"


def diverged(row: Row) -> str:
    """That trials of one side diverged, where they did: who is left may flatter it; "" where none did."""
    found = row["lost"]
    if not found.any:
        return ""
    sides = [
        f"{k} of {n} trials {where}"
        for k, n, where in (
            (found.with_, found.of_with, "with it"),
            (found.without, found.of_without, "without it"),
        )
        if k
    ]
    return f"; {' and '.join(sides)} diverged"
