"""The command that trains a cell again, spelled out: it depends on no preset, and finds what is finished."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ablate.knobs import show

Task = Mapping[str, Any]


def command_of(task: Task, trials: pd.DataFrame, cell: str) -> str | None:
    """The command for one cell with all its seeds; None where its settings are not on record.

    Args:
        task: as a launch records it.
    """
    rows = trials[trials["cell"] == cell]
    known = rows[rows["data"].notna()]
    if known.empty:
        return None
    knobs = {
        str(column).removeprefix("knob."): value
        for column, value in known.iloc[0].items()
        if str(column).startswith("knob.")
    }
    kinds = task["kinds"]
    chosen = [f"{group}={knobs.pop(f'{group}.name')}" for group in kinds if f"{group}.name" in knobs]
    left_out = {*task["presets"], *task["idle"]}
    words = [
        f"{name}={_level(value)}"
        for name, value in knobs.items()
        if name not in left_out and not (_is_none(value) and name.partition(".")[0] in kinds)
    ]
    # A table has a column for every knob of any kind: what a cell has not is null there.
    return shlex.join([*shlex.split(task["program"]), *chosen, *words, *_seeds(sorted(map(int, rows["seed"])))])


def _is_none(value: Any) -> bool:
    return value is None or (isinstance(value, float) and bool(pd.isna(value)))


def _seeds(seeds: list[int]) -> list[str]:
    if seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return [f"seed={seeds[0]}", f"seeds={len(seeds)}"]
    return [f"seed={','.join(map(str, seeds))}"]


def _level(value: Any) -> str:
    """A value as Hydra reads it back."""
    if _is_none(value):
        return "null"
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers and nulls is one of floats
    text = show(value.item() if hasattr(value, "item") else value)
    if not isinstance(value, str) or re.fullmatch(r"[\w./:-]+", text) or text.startswith("${oc.env:"):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
