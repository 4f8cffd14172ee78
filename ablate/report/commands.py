"""The command that trains a cell again, spelled out: it depends on no preset, and finds what is finished."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pandas as pd

from ablate.config import Number, rules, show

# What a machine chooses, and what names a preset: neither decides a result.
_LEFT_OUT = {"device", "threads", "model", "recipe", "sample_words"}


def command_of(trials: pd.DataFrame, cell: str) -> str | None:
    """`python -m ablate …` for one cell with all its seeds; None where its settings are not on record."""
    rows = trials[trials["cell"] == cell]
    known = rows[rows["data"].notna()]
    if known.empty:
        return None
    knobs = {
        str(column).removeprefix("knob."): value
        for column, value in known.iloc[0].items()
        if str(column).startswith("knob.")
    }
    data = str(knobs.pop("data.name", ""))
    words = [f"data={data}"] if data else []
    words += [
        f"{name}={_level(name, value)}"
        for name, value in knobs.items()
        if name not in _LEFT_OUT and not _absent(name, data, value)
    ]
    return shlex.join(["python", "-m", "ablate", *words, *_seeds(sorted(map(int, rows["seed"])))])


def _absent(name: str, data: str, value: Any) -> bool:
    """Whether a knob belongs to the data of another cell: a table has a column for every knob of any."""
    return (
        name.startswith("data.")
        and bool(pd.isna(value))
        and not (data == "text" and name in ("data.valid", "data.test"))
    )


def _seeds(seeds: list[int]) -> list[str]:
    if seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return [f"seed={seeds[0]}", f"seeds={len(seeds)}"]
    return [f"seed={','.join(map(str, seeds))}"]


def _level(name: str, value: Any) -> str:
    """A value as Hydra reads it back."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "null"
    if isinstance(value, float) and any(
        isinstance(rule, Number) and rule.kind is int for rule in rules().get(name, ())
    ):
        value = int(value)  # a column of whole numbers and nulls is one of floats
    text = show(value.item() if hasattr(value, "item") else value)
    if not isinstance(value, str) or re.fullmatch(r"[\w./:-]+", text) or text.startswith("${oc.env:"):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
