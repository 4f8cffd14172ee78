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
from ablate.metric import Metric
from ablate.track.journal import Event, status
from ablate.track.schema import FACTS, blocks_schema, curves_schema, results_of, trials_schema

__all__ = [
    "Measurements",
    "blocks_schema",
    "blocks_table",
    "curves_schema",
    "row",
    "trials_schema",
    "trials_table",
    "validated",
]

_OUTCOME = ("steps", "seen", "seconds", "train_seconds", "best_step")
_OF_BLOCKS = {"cell": "str", "seed": "int64", "block": "int64", "examples": "int64", "total": "float64"}


def row(
    cell: Mapping[str, Any], trial: Mapping[str, Any], events: list[Event], metrics: Sequence[Metric], step: str
) -> dict[str, Any]:
    """The row of a trial: what its launch says of it, and its last attempt ([]: not started).

    Args:
        step: the task's word for one update.
    """
    started: Event = events[0] if events else {}
    final: Event = events[-1] if events else {}
    outcome = final if final.get("event") == "finished" else {}
    found = {
        "cell": cell["label"],
        "seed": trial["seed"],
        "status": status(events),
        "reason": _reason(final, step),
        "log": final.get("log", ""),
        "fingerprint": trial["fingerprint"],
        "parameters": started.get("parameters") or outcome.get("parameters"),
        **{name: outcome.get(name) for name in _OUTCOME},
    }
    found.update(_measured(outcome.get("values", {}), metrics))
    found.update(_data(started.get("data", {}), metrics[0]))
    found.update(_facts(started))
    found.update({f"factor.{name}": value for name, value in cell["levels"].items()})
    found.update({f"component.{name}": is_on for name, is_on in cell.get("components", {}).items()})
    found.update({f"knob.{name}": value for name, value in started.get("knobs", {}).items()})
    return found


def _measured(values: Mapping[str, Any], metrics: Sequence[Metric]) -> dict[str, Any]:
    """The results of the metrics, and as `value.<name>` what else a task returned."""
    own = {"clipped", *(name for metric in metrics for name in results_of(metric))}
    found = {name if name in own else f"value.{name}": value for name, value in values.items()}
    for metric in metrics:
        for split in ("valid", "test"):
            logged = values.get(f"{split}_{metric.recorded}")
            found[f"{split}_{metric.name}"] = None if logged is None else metric.value(logged)
    return found


def _data(data: Mapping[str, Any], metric: Metric) -> dict[str, Any]:
    return {
        "data": data.get("name"),
        "data_digest": data.get("digest"),
        "evaluated": data.get("evaluated"),
        "alike": data.get("alike"),
        f"chance_{metric.recorded}": data.get("chance"),
        f"floor_{metric.recorded}": data.get("floor"),
        **{f"detail.{name}": str(value) for name, value in data.get("details", {}).items()},
    }


def _facts(started: Event) -> dict[str, str]:
    facts = started.get("facts", {})
    return {name if name in FACTS else f"fact.{name}": str(value) for name, value in facts.items()}


def _reason(final: Event, step: str) -> str:
    if final.get("status") == "DIVERGED":
        return f"{final.get('reason') or 'the loss was no finite number'} at {step} {final['diverged_at']}"
    return str(final.get("reason", ""))


class Measurements:
    """Measurements as columns of numbers: a study may hold a million, too many to keep as events."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics
        self._labels: list[str] = []
        self._seeds: list[int] = []
        self._lengths: list[int] = []
        self._splits: list[str] = []
        # `seen` is below 0 where it is not known.
        self._parts: dict[str, list[NDArray[Any]]] = {
            name: [] for name in ("step", "seen", "seconds", *(metric.recorded for metric in metrics))
        }

    def add(self, label: str, seed: int, events: list[Event]) -> None:
        """The measurements of one trial."""
        names = {split: [f"{split}_{metric.recorded}" for metric in self._metrics] for split in ("train", "valid")}
        points = [
            (event, split, [event["values"].get(name) for name in own])
            for event in events
            if event["event"] == "log"
            for split, own in names.items()
            if any(name in event["values"] for name in own)
        ]
        self._labels.append(label)
        self._seeds.append(seed)
        self._lengths.append(len(points))
        self._splits += [split for _, split, _ in points]
        self._parts["step"].append(np.array([event["step"] for event, _, _ in points], np.int64))
        self._parts["seen"].append(np.array([event.get("seen", -1) for event, _, _ in points], np.int64))
        self._parts["seconds"].append(np.array([event["seconds"] for event, _, _ in points], np.float64))
        for place, metric in enumerate(self._metrics):
            numbers = np.array([values[place] for _, _, values in points], np.float64)  # None: NaN
            self._parts[metric.recorded].append(numbers)

    def table(self) -> pd.DataFrame:
        """One row a measurement."""
        labels = pd.Series(self._labels, dtype="str")
        step, seen, seconds = (self._joined(name) for name in ("step", "seen", "seconds"))
        columns = {
            "cell": labels.repeat(self._lengths).reset_index(drop=True),
            "seed": np.repeat(np.array(self._seeds, np.int64), self._lengths),
            "split": pd.Series(self._splits, dtype="str"),
            "step": step.astype(np.int64),
            "seen": pd.arrays.IntegerArray(seen.astype(np.int64), seen < 0),
            "seconds": seconds.astype(np.float64),
        }
        for metric in self._metrics:
            recorded = self._joined(metric.recorded).astype(np.float64)
            columns[metric.recorded] = recorded
            if metric.logged is not None:
                columns[metric.name] = np.array([metric.value(number) for number in recorded.tolist()], np.float64)
        return pd.DataFrame(columns)

    def _joined(self, name: str) -> NDArray[Any]:
        return np.concatenate(self._parts[name]) if self._parts[name] else np.array([])


def blocks_table(recorded: Sequence[tuple[str, int, Mapping[str, Any]]]) -> pd.DataFrame:
    """One row a block of test examples, of each trial's label, seed and blocks as its journal has them."""
    rows = [
        (label, seed, block, size, total)
        for label, seed, blocks in recorded
        for block, (size, total) in enumerate(zip(blocks["sizes"], blocks["totals"], strict=True))
    ]
    table = pd.DataFrame(rows, columns=list(_OF_BLOCKS))
    return table.astype(_OF_BLOCKS)


def trials_table(rows: Sequence[Mapping[str, Any]], metrics: Sequence[Metric]) -> pd.DataFrame:
    """Rows as `trials_schema` wants them: its columns in its order, with its types, whatever the rows hold or lack."""
    schema = trials_schema(metrics)
    found = dict.fromkeys(name for record in rows for name in record)
    names = [
        name
        for declared, column in schema.columns.items()
        for name in ([n for n in found if re.match(declared, n)] if column.regex else [declared])
    ]
    return pd.DataFrame(
        {name: _column(schema, name, [_value(record, name) for record in rows]) for name in names}, columns=names
    )


def _value(record: Mapping[str, Any], name: str) -> Any:
    value = record.get(name)
    knob = name.replace("factor.", "knob.", 1)
    if value is None and knob != name and knob in record and record.get("data") is not None:
        return show(record[knob])  # a factor of other cells alone: this one's level is what it resolved to
    return value


def _column(schema: pa.DataFrameSchema, name: str, values: list[Any]) -> pd.Series[Any]:
    if name.startswith("component."):
        return pd.Series(values, dtype="boolean" if None in values else "bool")
    if name.startswith("knob."):
        return pd.Series(values, dtype=object)
    if name.startswith("value."):
        return pd.Series(values, dtype="float64")
    declared = schema.columns.get(name)
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
