"""What each component buys, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from ablate.analyze.components import widest_kind
from ablate.analyze.families import (
    DIVERGES,
    EQUIVALENT,
    HELPS,
    HURTS,
    ONE_SEED,
    PRIMARY,
    SETTLED,
    UNDECIDED,
    is_flattered,
)
from ablate.metric import Metric
from ablate.report import told
from ablate.report.phrases import Row, capital, diverged, interval, listed, margin, other_text, seeds, verb

_HOW = {
    "removal": "without it test {} is",
    "shapley": "averaged over all orders, having it makes test {}",
    "addition": "added to the plainest model it makes test {}",
    "cumulative": "added in its turn it makes test {}",
}


def of_parts(metric: Metric, effects: pd.DataFrame, size: float | None) -> str:
    """What each component buys, by the measure that tells of the most of them.

    Args:
        effects: the rows of the primary family, or all where none is in it.
        size: the margin of what matters; None: nobody said so.
    """
    primary = effects[effects["family"] == PRIMARY] if len(effects) else effects
    asked = primary if len(primary) else effects
    if asked.empty:
        return ""
    rows: Sequence[Row] = asked[asked["kind"] == widest_kind(asked)].to_dict("records")
    by = {verdict: [row for row in rows if row["verdict"] == verdict] for verdict in _TOLD}
    helping = sorted(by[HELPS], key=lambda row: float(row["effect"]))
    hurting = sorted(by[HURTS], key=lambda row: -float(row["effect"]))
    said = []
    if helping:
        most = "has the largest mean benefit" if _is_largest(helping, rows) else "earns its keep"
        said.append(f"{capital(_name(helping[0]))} {most}: {_phrase(metric, helping[0])}.")
    if helping[1:]:
        said.append(f"{capital(_list(metric, helping[1:]))} {verb(helping[1:], 'helps', 'help')} too.")
    if hurting:
        said.append(f"{capital(_name(hurting[0]))} hurts here: {_phrase(metric, hurting[0])}.")
    if hurting[1:]:
        said.append(f"So {verb(hurting[1:], 'does', 'do')} {_list(metric, hurting[1:])}.")
    if by[EQUIVALENT] and size is not None:
        are = verb(by[EQUIVALENT], "makes", "each make")
        said.append(
            f"{capital(_list(metric, by[EQUIVALENT], size))} {are} less difference than {margin(metric, size)}: as "
            "good as none."
        )
    unsure = [row for row in by[UNDECIDED] + by[ONE_SEED] if not is_flattered(row)]
    said += [_unsure(metric, unsure, n) for n in sorted({int(row["n"]) for row in unsure}, reverse=True)]
    if flattered := [row for row in by[UNDECIDED] + by[ONE_SEED] if is_flattered(row)]:
        said.append(f"Of {_list(metric, flattered)} nothing can be said: the side that looks better lost more trials.")
    way = "measured another way, " if said else ""
    said += [capital(f"{way}{_verdict(metric, row)}.") for row in _contrary(asked, rows)]
    return " ".join(said)


def _is_largest(helping: Sequence[Row], rows: Sequence[Row]) -> bool:
    """Whether the first of those that help has the largest mean effect of all, undecided ones included.

    Where a model without some part diverges more often than with it, no percentage is the largest.
    """
    largest = min(float(row["effect"]) for row in rows if not math.isnan(row["effect"]))
    return len(helping) > 1 and not any(row["lost"].more < 0 for row in rows) and float(helping[0]["effect"]) <= largest


_TOLD = (HELPS, HURTS, EQUIVALENT, UNDECIDED, ONE_SEED, DIVERGES)


def _unsure(metric: Metric, rows: Sequence[Row], n: int) -> str:
    unsure = [row for row in rows if row["n"] == n]
    why = f"{n} seeds cannot tell" if n > 1 else "one seed cannot tell, it may be chance"
    return f"Whether {_list(metric, unsure)} {verb(unsure, 'helps', 'help')}: {why}."


def _contrary(asked: pd.DataFrame, rows: Sequence[Row]) -> list[Row]:
    """Verdicts of another way of measuring, as much asked for, on parts of which `rows` say the contrary or nothing."""
    said = {(row["component"], row["at"]): row["verdict"] for row in rows}
    kinds = {row["kind"] for row in rows}
    return [
        row
        for row in asked[~asked["kind"].isin(kinds)].to_dict("records")
        if row["verdict"] in SETTLED and said.get((row["component"], row["at"])) != row["verdict"]
    ]


def _verdict(metric: Metric, row: Row) -> str:
    return f"{_name(row)} {row['verdict']}: {_phrase(metric, row)}"


def _phrase(metric: Metric, row: Row) -> str:
    """An effect in words, with its interval."""
    effect, low, high = _as_told(row)
    how = _HOW[row["kind"]].format(metric.name)
    what = f"{how} {told.size(metric, effect)} {told.direction(metric, effect)}"
    return what + interval(metric, low, high, seeds(row)) + diverged(row) + other_text(metric, row, None, _sign(row))


def _sign(row: Row) -> int:
    """A removal is told as what taking a part away does, all else as what having it does."""
    return -1 if row["kind"] == "removal" else 1


def _as_told(row: Row) -> tuple[float, float, float]:
    """Effect, low and high as they are told."""
    sign = _sign(row)
    low, high = sorted((sign * float(row["low"]), sign * float(row["high"])))
    return sign * float(row["effect"]), low, high


def _name(row: Row) -> str:
    return f"{row['component']} at {row['at']}" if row["at"] else str(row["component"])


def _list(metric: Metric, rows: Sequence[Row], size: float | None = None) -> str:
    """Names with their effects."""
    shown = [
        f"{_name(row)} ({'without it ' if row['kind'] == 'removal' else ''}{told.change(metric, _as_told(row)[0])}"
        f"{diverged(row)}{other_text(metric, row, size, _sign(row))})"
        for row in rows
    ]
    return listed(shown)


def disagreement(metric: Metric, row: Row) -> str:
    """That what a component does depends on the parts around it."""
    effects = [f"{told.change(metric, row[f'{which}_effect'])} {_WHERE[row[which]]}" for which in ("first", "second")]
    where = f" at {row['at']}" if row["at"] else ""
    apart = interval(metric, row["low"], row["high"], seeds(row))
    return (
        f"What {row['component']}{where} does depends on the parts around it: it changes {metric.name} by {effects[0]} "
        f"and by {effects[1]}, which differ by {told.change(metric, row['effect'])}{apart}, exploratory."
    )


_WHERE = {
    "removal": "in the full model",
    "addition": "in the plainest model",
    "cumulative": "on its step of the ladder",
}
