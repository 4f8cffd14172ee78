"""What was recorded of a trial → its row and its measurements, in tables as their schema wants them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
from numpy.typing import NDArray

from ablate.knobs import KnobError, show
from ablate.track.journal import Event, status
from ablate.track.schema import CURVES, FACTS, TRIALS
from ablate.track.units import perplexity

__all__ = ["CURVES", "TRIALS", "Measurements", "row", "trials_table", "validated"]

_OUTCOME = (
    "windows", "tokens", "seconds", "train_seconds", "best_window", "first_nll", "clipped", "best_valid_nll",
    "valid_nll", "test_nll",
)  # fmt: skip


def row(cell: Mapping[str, Any], trial: Mapping[str, Any], events: list[Event]) -> dict[str, Any]:
    """The row of a trial: what its launch says of it, and its last attempt ([]: not started)."""
    started: Event = events[0] if events else {}
    final: Event = events[-1] if events else {}
    outcome = final if final.get("event") == "finished" else {}
    data, knobs = started.get("data", {}), started.get("knobs", {})
    found = {
        "cell": cell["label"],
        "seed": trial["seed"],
        "status": status(events),
        "reason": _reason(final),
        "log": final.get("log", ""),
        "fingerprint": trial["fingerprint"],
        "parameters": started.get("parameters"),
        "vocabulary_size": data.get("vocabulary"),
        "floor_nll": data.get("floor_nll"),
        **{name: outcome.get(name) for name in _OUTCOME},
    }
    for split in ("valid", "test"):
        nll = found[f"{split}_nll"]
        found[f"{split}_perplexity"] = None if nll is None else perplexity(nll)
    found.update(_facts(started))
    found.update({f"factor.{name}": value for name, value in cell["levels"].items()})
    found.update({f"component.{name}": is_on for name, is_on in cell.get("components", {}).items()})
    found.update({f"knob.{name}": value for name, value in knobs.items()})
    return found


def _facts(started: Event) -> dict[str, str]:
    facts = started.get("facts", {})
    return {name if name in FACTS else f"fact.{name}": str(value) for name, value in facts.items()}


def _reason(final: Event) -> str:
    if final.get("status") == "DIVERGED":
        return f"the loss was no finite number at window {final['diverged_at']}"
    return str(final.get("reason", ""))


class Measurements:
    """Measurements as columns of numbers: a study may hold a million, too many to keep as events."""

    def __init__(self) -> None:
        self._labels: list[str] = []
        self._seeds: list[int] = []
        self._lengths: list[int] = []
        self._splits: list[str] = []
        self._parts: dict[str, list[NDArray[Any]]] = {
            name: [] for name in ("step", "tokens", "seconds", "nll", "perplexity")
        }

    def add(self, label: str, seed: int, events: list[Event]) -> None:
        """The measurements of one trial."""
        points = [event for event in events if event["event"] in ("train", "valid")]
        splits = [event["event"] for event in points]
        nlls = [event[f"{split}_nll"] for split, event in zip(splits, points, strict=True)]
        self._labels.append(label)
        self._seeds.append(seed)
        self._lengths.append(len(points))
        self._splits += splits
        for name in ("step", "tokens"):
            self._parts[name].append(np.array([event[name] for event in points], np.int64))
        self._parts["seconds"].append(np.array([event["seconds"] for event in points], np.float64))
        self._parts["nll"].append(np.array(nlls, np.float64))
        self._parts["perplexity"].append(np.array([perplexity(nll) for nll in nlls], np.float64))

    def table(self) -> pd.DataFrame:
        """One row a measurement."""
        labels = pd.Series(self._labels, dtype="str")
        return pd.DataFrame(
            {
                "cell": labels.repeat(self._lengths).reset_index(drop=True),
                "seed": np.repeat(np.array(self._seeds, np.int64), self._lengths),
                "split": pd.Series(self._splits, dtype="str"),
                **{
                    name: np.concatenate([np.array([], CURVES.columns[name].dtype.type), *parts])
                    for name, parts in self._parts.items()
                },
            }
        )


def trials_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as `TRIALS` wants them: its columns in its order, with its types, whatever the rows hold or lack."""
    found = dict.fromkeys(name for record in rows for name in record)
    names = [
        name
        for declared, column in TRIALS.columns.items()
        for name in ([n for n in found if re.match(declared, n)] if column.regex else [declared])
    ]
    return pd.DataFrame(
        {name: _column(name, [_value(record, name) for record in rows]) for name in names}, columns=names
    )


def _value(record: Mapping[str, Any], name: str) -> Any:
    value = record.get(name)
    knob = name.replace("factor.", "knob.", 1)
    if value is None and knob != name and knob in record and record["parameters"] is not None:
        return show(record[knob])  # a factor of other cells alone: this one's level is what it resolved to
    return value


def _column(name: str, values: list[Any]) -> pd.Series[Any]:
    if name.startswith("component."):
        return pd.Series(values, dtype="boolean" if None in values else "bool")
    if name.startswith("knob."):
        return pd.Series(values, dtype=object)
    declared = TRIALS.columns.get(name)
    return pd.Series(values, dtype="str" if declared is None else declared.dtype.type)


def validated(table: pd.DataFrame, schema: pa.DataFrameSchema, where: str) -> pd.DataFrame:
    """The table, checked.

    Raises:
        KnobError: when it breaks a rule of its schema: what was recorded is damaged, or was made by something else.
    """
    try:
        return schema.validate(table)
    except pa.errors.SchemaError as error:
        raise KnobError(f"{where}: what is recorded cannot be right: {str(error).splitlines()[0]}") from error
