"""The page's sections on what was recorded: what differs, what is missing, where the numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ablate.analyze.differs import Task
from ablate.analyze.study import Analysis
from ablate.report import told
from ablate.report.commands import command_of
from ablate.report.names import knob_or_fact
from ablate.report.section import Section
from ablate.track.read import Results
from ablate.track.units import duration

_DIGITS_OF_A_DIGEST = 16


def published(analysis: Analysis) -> Section:
    """Figures of others, by the same recipe or, where no cell follows one, on the same data."""
    rows = [
        [
            str(row["cell"]),
            f"{told.value(analysis.metric, row['ours'])} (n = {row['n']}{_diverged(analysis, row['cell'])})",
            f"{row['published']:,.2f}" + ("" if pd.isna(row["published_sd"]) else f" ± {row['published_sd']:.2f}"),
            told.change(analysis.metric, row["effect"]),
            f"{row['name']}: {row['cite']}",
        ]
        for row in analysis.published.to_dict("records")
    ]
    if rows:
        headings = ["cell", f"test {analysis.metric.name} here", "published", "difference", "source"]
        says = ["Cells that follow a published recipe on the same data, in every knob that the source names."]
        return Section("published", "Beside what is published", says=says, headings=headings, rows=rows)
    others = [
        [str(row["name"]), f"{row['valid']:.1f}", f"{row['test']:.1f}", f"{row['cite']} ({row['source']})"]
        for row in analysis.same_data.to_dict("records")
    ]
    nothing = "No cell that has a result follows a published recipe."
    says = [f"{nothing} What others reached on this data with theirs, for orientation:"]
    headings = ["model", "valid", "test", "source"]
    return Section("published", "Beside what is published", says=says if others else (), headings=headings, rows=others)


def _diverged(analysis: Analysis, cell: str) -> str:
    asked, lost = analysis.ends.loc[cell, ["asked", "diverged"]].to_numpy(int)
    return f"; {lost} of {asked} diverged" if lost else ""


def differs(analysis: Analysis) -> Section:
    """What differs between the rows, by knob or fact."""
    rows = [
        [knob_or_fact(analysis.task, str(name)), "factor" if row.pop("factor") else "also", _grouped(row)]
        for name, row in analysis.confounds.to_dict("index").items()
    ]
    says = ["A line marked “also” was not varied by the study: it is a confound, or follows from what was varied."]
    return Section(
        "differs",
        "What differs between the rows",
        says=says if rows else (),
        headings=["knob or fact", "varied", "values"],
        rows=rows,
    )


def besides(analysis: Analysis) -> Section:
    """What differs besides the factors, by row."""
    rows = [
        [cell, "; ".join(_beside(analysis.task, *difference) for difference in differing)]
        for cell, differing in analysis.besides.items()
        if differing
    ]
    says = ["What each row does not share with the baseline, besides what the study varied on purpose."] if rows else ()
    headings = ["cell", "baseline → cell"]
    return Section("besides", "What a difference may also come from", says=says, headings=headings, rows=rows)


def _beside(task: Task, what: str, base: str, value: str) -> str:
    if what == "train_seconds":
        base, value = duration(float(base)), duration(float(value))
    return f"{knob_or_fact(task, what)}: {_readable(base)} → {_readable(value)}"


def _grouped(values: Mapping[Any, Any]) -> str:
    """value: its cells; value: its cells."""
    cells: dict[str, list[str]] = {}
    for cell, value in values.items():
        known = "not finished" if pd.isna(value) else _readable(str(value))
        cells.setdefault(known, []).append(str(cell))
    if len(cells) > 8:
        return f"{len(cells)} different values; see results.csv"
    return "; ".join(f"{value}: {_some(names)}" for value, names in cells.items())


def _readable(value: str) -> str:
    return f"{int(value):,}" if value.isdecimal() else value[:_DIGITS_OF_A_DIGEST]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"


def left_out(results: Results) -> Section:
    """Cells that a design has not, with the reason."""
    rows = [[str(cell["label"]), str(cell["reason"])] for cell in results.design.get("left_out", [])]
    says = ["The design would have asked for these too."] if rows else ()
    return Section("left-out", "Left out of the design", says=says, headings=["cell", "reason"], rows=rows)


def failures(results: Results) -> Section:
    """Trials without a result, with the reason."""
    missing = results.trials[results.trials["status"] != "FINISHED"]
    rows = [[str(row[c]) for c in ("cell", "seed", "status", "reason", "log")] for row in missing.to_dict("records")]
    return Section("missing", "Without a result", headings=["cell", "seed", "status", "reason", "log"], rows=rows)


def commands(results: Results) -> Section:
    """How to train each cell again."""
    cells = list(dict.fromkeys(results.trials["cell"]))
    commands = [(cell, command_of(results.task, results.trials, cell)) for cell in cells]
    says = [
        f"The study was launched {results.launched[:16].replace('T', ' ')} UTC by: {results.command}",
        "Each cell alone, spelled out so that no preset and no default decides.",
        "Where the results are still there, the command finds them and trains nothing.",
    ]
    rows = [[cell, command] for cell, command in commands if command is not None]
    return Section("again", "Train it again", says=says, headings=["cell", "command"], rows=rows)


def provenance(results: Results) -> Section:
    """Data, code and machines."""
    named = {
        "data": "Data",
        "data_digest": "SHA-256 of the data",
        "code": "SHA-256 of the code",
        "git_commit": "Commit",
        "git_dirty": "Uncommitted changes",
        "torch": "torch",
        "python": "Python",
        "platform": "Platform",
        "device": "Device",
        "threads": "Threads",
        "precision": "Precision",
    }
    trials = results.trials
    rows = [
        [title, ", ".join(sorted(str(value) or "not checked" for value in trials[column].dropna().unique()))]
        for column, title in named.items()
        if column in trials and trials[column].notna().any()
    ]
    says = ["Beside this page, every trial is a row of results.csv, every measurement one of curves.csv (or .parquet)."]
    return Section("source", "Where the numbers come from", says=says, headings=["what", "value"], rows=rows)
