"""What the factors of a grid do, in sentences: first where one depends on another, then each by itself."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ablate.analyze.families import (
    BETTER_TOGETHER,
    EQUIVALENT,
    SETTLED,
    WORSE_TOGETHER,
)  # fmt: skip
from ablate.metric import Metric
from ablate.report import told
from ablate.report.entries import p_value
from ablate.report.phrases import Row, capital, diverged, interval, label, listed, margin, other_text, seeds

_MOST = 3  # of a kind, in a headline
_CONTEXTS_NAMED = 3


def of_factors(metric: Metric, factors: pd.DataFrame, together: pd.DataFrame, size: float | None) -> str:
    """Interactions first, with what they mean at each level; then what factors do that depend on no other.

    Args:
        factors, together: as `factor_effects` and `interactions` give them.
        size: the margin of what matters; None: nobody said so.
    """
    marginal = factors[(factors["at"] == "") & factors["effect"].notna()] if len(factors) else factors
    if marginal.empty or marginal["factor"].nunique() < 2:
        return ""
    settled, said = _settled(together), of_interactions(metric, together)
    entangled = {*settled["factor"], *settled["other"]}
    rows: Sequence[Row] = marginal[~marginal["factor"].isin(entangled)].to_dict("records")
    trains = not any(lost.any for lost in factors.loc[factors["at"] == "", "lost"])
    said += _alone(metric, rows, size, not said, trains)
    return " ".join(said)


def of_interactions(metric: Metric, together: pd.DataFrame) -> list[str]:
    """Those that are settled, the largest first, each with what it means at both levels of the other factor."""
    settled = _settled(together)
    more = [f"{len(settled) - _MOST} more interactions are in the table."] if len(settled) > _MOST else []
    return [*(_interaction(metric, row) for row in _largest(settled)), *more]


def _settled(together: pd.DataFrame) -> pd.DataFrame:
    return together[together["verdict"].isin([BETTER_TOGETHER, WORSE_TOGETHER])]


def _largest(rows: pd.DataFrame) -> list[Row]:
    ordered = sorted(rows.to_dict("records"), key=lambda row: -abs(float(row["effect"])))
    return list(ordered[:_MOST])


def _interaction(metric: Metric, row: Row) -> str:
    at = [
        f"{_simple(metric, row, which)} at {row['other']}={row[level]}"
        for which, level in (("reference", "other_reference"), ("level", "other_level"))
    ]
    return (
        f"What {row['factor']} does depends on {row['other']}: {row['factor']}={row['level']} instead of "
        f"{row['reference']} changes test {metric.name} by {at[0]} and by {at[1]}{averaged(row)} (interaction: p "
        f"{_p(row['p_holm'])} after correction, {seeds(row)}{label(row)}{_lost(row)})."
    )


def _lost(row: Row) -> str:
    found = row["lost"]
    lost, of = found.with_ + found.without, found.of_with + found.of_without
    return f"; {lost} of {of} trials diverged" if lost else ""


def _simple(metric: Metric, row: Row, which: str) -> str:
    low, high = row[f"low_at_{which}"], row[f"high_at_{which}"]
    return told.change(metric, row[f"effect_at_{which}"]) + interval(metric, low, high, seeds(row))


def _alone(metric: Metric, rows: Sequence[Row], size: float | None, first: bool, trains: bool) -> list[str]:
    """Factors that depend on no other. `first`: nothing was said of the others; `trains`: no trial diverged.

    Where some setting does not train, no percentage matters most.
    """
    settled = sorted((row for row in rows if row["verdict"] in SETTLED), key=_size, reverse=True)
    alike = [row for row in rows if row["verdict"] == EQUIVALENT]
    unsure = [row for row in rows if row["verdict"] not in (*SETTLED, EQUIVALENT)]
    said = [f"{capital(_does(metric, row))}." for row in settled[:_MOST]]
    if said and first and trains and len(rows) > 1 and settled[0] is max(rows, key=_size):
        said[0] = f"{capital(settled[0]['factor'])} matters most, by the mean: {_does(metric, settled[0])}."
    if len(settled) > _MOST:
        said.append(f"{len(settled) - _MOST} more levels have an effect that is in the table.")
    if alike and size is not None:
        named = listed([f"{_which(row)}{_where(row)}{_besides(metric, row, size)}" for row in alike])
        said.append(f"Less difference than {margin(metric, size)} either way: {named}.")
    if unsure:
        said.append(_unsure(metric, unsure, nothing=first and trains and not said))
    return said


def _besides(metric: Metric, row: Row, size: float | None) -> str:
    said = diverged(row) + other_text(metric, row, size)
    return f" ({said.removeprefix('; ')})" if said else ""


def _unsure(metric: Metric, rows: Sequence[Row], nothing: bool) -> str:
    """`nothing`: there is nothing else to tell of the study."""
    if not nothing:
        shown = [f"{_which(row)} ({told.change(metric, row['effect'])}{_where(row)}{diverged(row)})" for row in rows]
        return f"Not decided: {listed(shown)}."
    if any(row["n"] > 1 for row in rows):
        names = listed(list(dict.fromkeys(str(row["factor"]) for row in rows)))
        return f"On average none of {names} makes a difference that these seeds can show."
    row = max(rows, key=_size)
    return f"{capital(row['factor'])} matters most, by the mean: {_does(metric, row)}."


def _size(row: Row) -> float:
    return abs(float(row["effect"]))


def _does(metric: Metric, row: Row) -> str:
    sure = interval(metric, row["low"], row["high"], seeds(row)) if row["n"] > 1 else ", one seed: this may be chance"
    change = told.change(metric, row["effect"])
    besides = diverged(row) + other_text(metric, row, None)
    return f"{_which(row)} changes test {metric.name} by {change}{averaged(row)}{sure}{besides}"


def _which(row: Row) -> str:
    return f"{row['factor']}={row['level']} instead of {row['reference']}"


def averaged(row: Row) -> str:
    """Over which settings of the other factors an effect is averaged."""
    if where := _where(row):
        return where
    return f" on average over {row['contexts']} settings of the rest" if row["contexts"] > 1 else ""


def _where(row: Row) -> str:
    """The settings of the other factors that an effect is from, where these are not all."""
    if row["contexts"] in (0, row["of_contexts"]):
        return ""
    named = listed([*row["where"][:_CONTEXTS_NAMED], *(["…"] if len(row["where"]) > _CONTEXTS_NAMED else [])])
    return f" at {named} alone"


def _p(p: float) -> str:
    shown = p_value(p)
    return shown if shown.startswith("<") else f"= {shown}"
