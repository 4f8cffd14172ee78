"""What each part does at every budget, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import pandas as pd

from ablate.analyze.by_budget import Change
from ablate.analyze.differs import Task
from ablate.analyze.families import DIVERGES, EQUIVALENT, NO_RESULT, SETTLED, is_flattered
from ablate.analyze.study import Analysis
from ablate.metric import Metric
from ablate.report import told
from ablate.report.factors import averaged, of_interactions
from ablate.report.names import named_by_budget, part_of
from ablate.report.phrases import NAMED, Row, capital, diverged, listed, margin, other_text, why_undecided
from ablate.track.units import rounded


def by_budget(analysis: Analysis) -> list[str]:
    """What depends on another factor; what each part does at every budget, and where its mean effect changes sign."""
    said, task = [], analysis.task
    knob, together = task["budget"][0], analysis.interactions
    others = of_interactions(analysis.metric, together[~together[["factor", "other"]].eq(knob).any(axis=1)])
    for name, part in named_by_budget(analysis).groupby("name", sort=False):
        rows: Sequence[Row] = part.to_dict("records")
        alike = [list(group) for _, group in groupby(rows, key=_alike)]
        parts = [_at_budgets(analysis, group, first=i == 0) for i, group in enumerate(alike)]
        where = _crossings(task, [change for change in analysis.changes if part_of(change.before) == name])
        said.append(f"{capital(str(name))} {listed(parts)}{where}.")
    if len(said) > NAMED:
        said = [*said[:NAMED], f"{len(said) - NAMED} more parts are in the table by budget."]
    return [*others, *said]


def _alike(row: Row) -> tuple[object, ...]:
    """What neighbouring budgets share that are told in one."""
    return row["verdict"], is_flattered(row), row["lost"].any, row["where"], row["text_low"] * row["text_high"] <= 0


def _crossings(task: Task, changes: Sequence[Change]) -> str:
    if not changes:
        return ""
    if pd.isna([change.seen for change in changes]).any():
        where = f"{task['budget'][0]}={listed([f'{change.budget:.2g}' for change in changes])}"
    else:
        where = f"{listed([rounded(change.seen) for change in changes])} {told.unit(task)} of training"
    return f"; its mean effect changes sign near {where}"


def _at_budgets(analysis: Analysis, rows: Sequence[Row], first: bool) -> str:
    """Neighbouring budgets of one verdict, with the effect at the one next to the others."""
    row = rows[-1] if first else rows[0]
    metric, budgets = analysis.metric, [f"{each['budget']:g}" for each in rows]
    if row["verdict"] in (DIVERGES, NO_RESULT):
        return f"{_does(analysis, row)} at {analysis.task['budget'][0]}={listed(budgets)}{diverged(row)}"
    at = f"at {row['budget']:g}: " if len(rows) > 1 else ""
    effect = f"{at}{told.change(metric, row['effect'])}{averaged(row)}{_signed_interval(metric, row)}{diverged(row)}"
    effect += other_text(metric, row, analysis.margin)
    return f"{_does(analysis, row)} at {analysis.task['budget'][0]}={listed(budgets)} ({effect})"


def _does(analysis: Analysis, row: Row) -> str:
    if row["verdict"] in SETTLED:
        return str(row["verdict"])
    if row["verdict"] == EQUIVALENT and analysis.margin is not None:
        return f"makes less difference than {margin(analysis.metric, analysis.margin)}"
    if row["verdict"] == DIVERGES:
        return "has no effect that could be told, for every trial of one side diverged,"
    return "has no result" if row["verdict"] == NO_RESULT else why_undecided(row)


def _signed_interval(metric: Metric, row: Row) -> str:
    if not np.isfinite(row["low"]):
        return ", one seed" if row["n"] == 1 else f", {row['n']} seeds"
    return f", 95 % interval {told.span(metric, row['low'], row['high'])}, {row['n']} seeds"
