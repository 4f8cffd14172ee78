"""From one row a trial to the two tables that everything is computed on: results by seed and cell, levels by cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ablate.analyze.paired import Array
from ablate.metric import Metric


def started(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials whose settings are on record."""
    return trials[trials["data"].notna()]


def finished(metric: Metric, trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that have a result: FINISHED, with a test score that is a finite number."""
    return trials[(trials["status"] == "FINISHED") & np.isfinite(_test_scores(metric, trials))]


def without_finite_score(metric: Metric, trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that finished with a test score that is no finite number: nothing is computed on them."""
    return trials[(trials["status"] == "FINISHED") & ~np.isfinite(_test_scores(metric, trials))]


def cells_of(trials: pd.DataFrame) -> list[str]:
    """The cells in the order of the study."""
    return [str(cell) for cell in dict.fromkeys(trials["cell"])]


def score_table(metric: Metric, trials: pd.DataFrame) -> pd.DataFrame:
    """Test scores, shape [seeds, cells]: one row a seed that any cell finished, every cell a column, NaN: no result."""
    done = finished(metric, trials)
    table = done.assign(score=_test_scores(metric, done)).pivot(index="seed", columns="cell", values="score")
    return table.reindex(columns=cells_of(trials)).astype(float).sort_index()


def scores(metric: Metric, recorded: pd.Series[Any]) -> Array:
    """The scores of a column of what was recorded."""
    return np.array([metric.score(number) for number in numbers(recorded).tolist()], np.float64)


def numbers(column: pd.Series[Any]) -> Array:
    """A column as floats, with NaN where a value is missing."""
    return pd.to_numeric(column).to_numpy(float, na_value=np.nan)


def factors_of(trials: pd.DataFrame) -> pd.DataFrame:
    """Levels as text, shape [cells, factors that have two levels or more], in the order of the study.

    A factor that only one of several studies varies has its level from the knob in the cells of the others.
    """
    factors = [str(c) for c in trials.columns if str(c).startswith("factor.")]
    knobs = [knob for name in factors if (knob := name.replace("factor.", "knob.", 1)) in trials]
    by_cell = trials[["cell", *factors, *knobs]].drop_duplicates("cell").set_index("cell")
    levels = {}
    for column in factors:
        name = column.removeprefix("factor.")
        values = by_cell[column].astype(object)
        if f"knob.{name}" in by_cell:
            values = values.where(values.notna(), by_cell[f"knob.{name}"])
        shown = values.map(show)
        if shown.nunique() > 1:
            levels[name] = shown
    return pd.DataFrame(levels, index=by_cell.index)


def show(value: object) -> str:
    """A value as a user types it."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "null"
    if isinstance(value, (bool, np.bool_)):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:g}"
    return str(value)


def _test_scores(metric: Metric, trials: pd.DataFrame) -> Array:
    result = f"test_{metric.recorded}"
    return scores(metric, trials[result]) if result in trials else np.full(len(trials), np.nan)
