"""The table of trials with types to compute and plot with: numbers are numbers, levels and cells are in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def typed(trials: pd.DataFrame) -> pd.DataFrame:
    """A copy of the trials with types of pandas' own.

    Knobs are booleans, integers, floats or text where all that are known are; a knob that is a number in one cell and
    a word in another stays as it is. Cells, and the levels of factors, are ordered categoricals, in the study's order.
    """
    columns = {}
    for name, column in trials.items():
        if str(name).startswith("knob."):
            columns[name] = _knob(column)
        elif str(name).startswith("factor.") or name == "cell":
            columns[name] = pd.Series(
                pd.Categorical(column, categories=list(dict.fromkeys(column.dropna())), ordered=True), column.index
            )
        else:
            columns[name] = column
    return pd.DataFrame(columns, index=trials.index)


def _knob(column: pd.Series[Any]) -> pd.Series[Any]:
    known = column.dropna()
    kinds = {type(value) for value in known}
    dtypes: dict[type, Any] = {bool: "boolean", int: "Int64", str: "str"}
    if len(kinds) == 1 and (dtype := dtypes.get(*kinds)) is not None:
        return column.astype(dtype)
    if kinds and kinds <= {int, float}:
        return pd.Series([np.nan if value is None else float(value) for value in column], column.index)
    return column
