"""The one reader of results: what a study recorded → tidy tables, whether it lies in journals or in MLflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from ablate.knobs import KnobError
from ablate.metric import Metric
from ablate.names import folder_name, readable
from ablate.registry import suggest
from ablate.track.journal import DONE, Event
from ablate.track.labels import labels_among, renamed
from ablate.track.sources import Source
from ablate.worth import margin


@dataclass(frozen=True)
class Results:
    """What a study's last launch asked for, as far as it has come.

    Attributes:
        design: how its cells were chosen: `kind` (of `ablate.launch.KINDS`),
            `components` that it varies, and the cells that were `left_out`, each with `label` and `reason`.
        metrics: what was measured; cells are compared by the first.
        task: what the launch says of the task: its `name`, the word for a `step`, the `unit` of what training reads
            ("": not known), and the knobs that set a trial's `budget`.
        trials: one row a trial, in the order of the study, as `ablate.track.schema.trials_schema` has it: `cell`,
            `seed`, `status`, `reason`, `steps`, `seen`, `seconds`, …, for every metric its `valid_<name>` and
            `test_<name>`, what it ran on (`data`, `data_digest`, `code`, `torch`, `device`, …), every factor as
            `factor.<name>`, every component as `component.<name>` and every knob as `knob.<name>`.
        curves: one row a measurement, as `curves_schema` has it: `cell`, `seed`, `split` (train, valid), `step`,
            `seen`, `seconds` and the metrics.
        blocks: one row a block of test examples, as `blocks_schema` has it: `cell`, `seed`, `block` (0, 1, …), its
            `examples`, and the `total` over them of what `test_<recorded>` of the first metric is the mean of. No rows
            for trials that were not measured by example.
        samples: cell → text written by its first finished seed.
        worth: the smallest difference that matters, as it was typed: "1%", 0.5; None: it was not (`ablate.worth`).
        worths: of several studies that do not think the same worth a difference, what each of them does: study → as
            `worth`.
        stopping: with seeds=auto its `seeds` ("auto"), `max_seeds` and, once it has stopped, `look`: the last look at
            the results, as `ablate.analyze.stopping.Look` has it. Of several studies, one of which at least was
            stopped so, `seeds` and how many `studies` they are. None: the number of seeds was fixed.
        same: of several studies, which cells are one: study, its name for the cell, and the name that it has here.
        labels: label of a cell → the name that it has here, for cells that a user gave one.
        sources: of each study: version of the code, as the column `code` has it → its files, each with its SHA-256.
    """

    name: str
    command: str
    launched: str
    design: dict[str, Any]
    metrics: Sequence[Metric]
    task: Mapping[str, Any]
    trials: pd.DataFrame
    curves: pd.DataFrame
    blocks: pd.DataFrame
    samples: dict[str, str]
    worth: str | float | None = None
    worths: Mapping[str, str | float | None] = field(default_factory=dict)
    stopping: Mapping[str, Any] | None = None
    same: Sequence[tuple[str, str, str]] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    sources: Sequence[Mapping[str, Mapping[str, str]]] = ()


def read_study(source: Source, name: str | None = None, launch: Event | None = None) -> Results:
    """Read a study (None: the one launched last), as one of its launches asked for it (None: its newest).

    Args:
        launch: need not be recorded; its study is the one that is read.

    Raises:
        KnobError: when there is no such study, its source cannot be read, or what is recorded cannot be right.
    """
    # Late, for it brings pandera.
    from ablate.track.tables import (
        Measurements,
        blocks_schema,
        blocks_table,
        curves_schema,
        row,
        trials_schema,
        trials_table,
        validated,
    )

    chosen = _chosen(source, name) if launch is None else str(launch["study"])
    launch = readable(launch or source.launch(chosen))
    if launch is None:
        raise KnobError(f"the study {chosen!r} in {source} was never launched; start it again")
    if not {"metrics", "task"} <= launch.keys():
        raise KnobError(
            f"the study {chosen!r} in {source} was launched by an older version, which did not record what it "
            "measures; start it again: what is finished stands"
        )
    metrics, task = [Metric(**metric) for metric in launch["metrics"]], launch["task"]
    asked = [(cell, trial) for cell in launch["cells"] for trial in cell["trials"]]
    rows: list[dict[str, Any]] = []
    curves = Measurements(metrics)
    blocks: list[tuple[str, int, Mapping[str, Any]]] = []
    samples: dict[str, str] = {}
    sources: dict[str, Mapping[str, str]] = {}
    for (cell, trial), events in zip(asked, source.attempts(chosen, launch), strict=True):
        events = [event if event["event"] == "log" else readable(event) for event in events]
        rows.append(row(cell, trial, events, metrics, task["step"]))
        curves.add(cell["label"], trial["seed"], events)
        if events and (files := events[0].get("sources")):
            sources[rows[-1]["code"]] = files
        if events and (measured := events[-1].get("blocks")):
            blocks.append((cell["label"], trial["seed"], measured))
        if events and (text := events[-1].get("sample")):
            samples.setdefault(cell["label"], text)
    where = f"the study {chosen!r} in {source}"
    found = Results(
        name=readable(chosen),
        command=launch["command"],
        launched=str(launch.get("began") or launch["time"]),
        design=launch["design"],
        metrics=metrics,
        task=task,
        trials=validated(trials_table(rows, metrics), trials_schema(metrics), where),
        curves=validated(curves.table(), curves_schema(metrics), where),
        blocks=validated(blocks_table(blocks), blocks_schema(), where),
        samples=samples,
        worth=launch.get("worth"),
        stopping=launch.get("stopping"),
        sources=[sources],
    )
    return renamed(found, readable(launch.get("labels") or {}), f"labels of {where}")


def _chosen(source: Source, name: str | None) -> str:
    known = source.studies()
    chosen = source.newest_study() if name is None else name
    if chosen is None or chosen not in known:
        asked = "no study" if chosen is None else f"no study {chosen!r}{suggest(chosen, known)}"
        there = f"there are {', '.join(known)}" if known else "start one with python -m ablate"
        raise KnobError(f"{asked} in {source}; {there}")
    return chosen


def read_studies(
    source: Source, names: Sequence[str], worth: str | None = None, labels: Mapping[str, str] | None = None
) -> Results:
    """Read several studies as one ([]: the one launched last).

    A trial that several of them share is there once: from the first study in which it has ended, and under the label
    that its cell has in the first of all. A cell whose label stands already for another configuration is told apart by
    its study: "full (cumulative)". The name joins the studies' with "+", and so does the design's kind. Of what the
    studies think worth a difference, the least counts.

    Args:
        worth: the smallest difference that matters, in place of what was recorded.
        labels: cell → the name that it is to have.

    Raises:
        KnobError: as `read_study`, when a study is named twice, when they do not measure the same, and for a `worth`
            that their metric cannot have.
    """
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise KnobError(f"{', '.join(twice)}: named twice; name each study once")
    parts = [read_study(source, name) for name in names] or [read_study(source)]
    if worth is not None:
        margin(worth, parts[0].metrics[0])
        parts = [replace(part, worth=worth) for part in parts]
    for part in parts[1:]:
        if part.metrics != parts[0].metrics:
            raise KnobError(
                f"{parts[0].name} is compared by {parts[0].metrics[0].name}, {part.name} by {part.metrics[0].name}; "
                "report each by itself"
            )
        if part.task["name"] != parts[0].task["name"]:
            raise KnobError(
                f"{parts[0].name} is of the task {parts[0].task['name']}, {part.name} of {part.task['name']}; "
                "report each by itself"
            )
    return renamed(parts[0] if len(parts) == 1 else _joined(parts, source), labels or {}, "--label")


def _joined(parts: Sequence[Results], source: Source) -> Results:
    from ablate.track.tables import blocks_schema, curves_schema, trials_schema, trials_table, validated

    metrics = parts[0].metrics
    trials: list[pd.DataFrame] = []
    curves, blocks = [], []
    samples: dict[str, str] = {}
    same: list[tuple[str, str, str]] = []
    names: dict[str, str] = {}
    cells: list[str] = []  # in the order of the studies, whichever of them a trial is taken from
    for part, own, labels in zip(parts, _shared_out(parts), labels_among(parts), strict=True):
        names = {label: labels[name] for label, name in part.labels.items()} | names
        same += [(part.name, cell, label) for cell, label in labels.items() if label != cell and label in cells]
        cells += [label for label in labels.values() if label not in cells]
        new = part.trials[own]
        trials.append(new.assign(cell=new["cell"].map(labels)))
        curves.append(_of(part.curves, new, labels))
        blocks.append(_of(part.blocks, new, labels))
        for cell, text in part.samples.items():
            samples.setdefault(labels[cell], text)
    rows = [
        {str(name): None if pd.isna(value) else value for name, value in record.items()}
        for record in pd.concat(trials).to_dict("records")
    ]
    rows.sort(key=lambda record: cells.index(str(record["cell"])))
    where = f"the studies {', '.join(part.name for part in parts)} in {source}"
    return Results(
        name=folder_name("+".join(part.name for part in parts)),
        command=" && ".join(part.command for part in parts),
        launched=max(part.launched for part in parts),
        design=_design([part.design for part in parts]),
        metrics=metrics,
        task=parts[-1].task,
        trials=validated(trials_table(rows, metrics), trials_schema(metrics), where),
        curves=validated(pd.concat(curves, ignore_index=True), curves_schema(metrics), where),
        blocks=validated(pd.concat(blocks, ignore_index=True), blocks_schema(), where),
        samples=samples,
        worth=min(parts, key=lambda part: margin(part.worth, metrics[0]) or 0.0).worth,
        worths={} if len({margin(part.worth, metrics[0]) for part in parts}) == 1 else {p.name: p.worth for p in parts},
        stopping={"seeds": "auto", "studies": len(parts)} if any(part.stopping for part in parts) else None,
        same=same,
        labels=names,
        sources=[versions for part in parts for versions in part.sources],
    )


def _shared_out(parts: Sequence[Results]) -> list[pd.Series]:
    """Of each study, which of its trials are taken from it: one place for a trial, as far along as there is."""
    ended: dict[str, bool] = {}
    place: dict[str, int] = {}
    for number, part in enumerate(parts):
        for fingerprint, status in zip(part.trials["fingerprint"], part.trials["status"], strict=True):
            has_ended = status in DONE
            if fingerprint not in place or (has_ended and not ended[fingerprint]):
                place[fingerprint], ended[fingerprint] = number, has_ended
    return [part.trials["fingerprint"].map(place) == number for number, part in enumerate(parts)]


def _of(table: pd.DataFrame, trials: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """The rows that belong to these trials, under the labels that their cells have among all."""
    key = ["cell", "seed"]
    rows = table[pd.MultiIndex.from_frame(table[key]).isin(pd.MultiIndex.from_frame(trials[key]))]
    return rows.assign(cell=rows["cell"].map(labels).astype("str"))


def _design(designs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    kinds = dict.fromkeys(kind for design in designs for kind in design["kind"].split("+"))
    left_out = [cell for design in designs for cell in design["left_out"]]
    return {
        "kind": "+".join(kinds),
        "components": list(dict.fromkeys(name for design in designs for name in design["components"])),
        "left_out": [cell for i, cell in enumerate(left_out) if cell not in left_out[:i]],
    }
