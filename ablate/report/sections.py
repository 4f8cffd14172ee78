"""The page's sections, in the order of a reader's questions. A section without anything to show is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from ablate.analyze import METHOD
from ablate.analyze.study import Analysis
from ablate.metric import Metric
from ablate.report import told
from ablate.report.commands import command_of
from ablate.report.figures.style import Drawn
from ablate.report.tables import Shown, comparison_table, effects_table, write_table
from ablate.report.words import by_budget, certainty, disagreement
from ablate.track.read import Results

TABLES = ("comparison", "components", "factors", "interactions-table", "simple-effects", "budgets")

Figures = Mapping[str, Drawn | None]

_DIGITS_OF_A_DIGEST = 16
_CELLS_SAMPLED = 12
_SIMPLE_SHOWN = 60


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it.

    Attributes:
        says: paragraphs; warns: what to know before believing them.
        tables: HTML of tables, each with a note on how to read it; figures: drawn ones.
        headings, rows: a table of words.
        samples: (title, text) pairs that are set as written.
    """

    id: str
    title: str
    says: Sequence[str] = ()
    warns: Sequence[str] = ()
    tables: Sequence[tuple[Markup, str]] = ()
    figures: Sequence[Drawn] = ()
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    samples: Sequence[tuple[str, str]] = ()

    def __bool__(self) -> bool:
        return any((self.says, self.warns, self.tables, self.figures, self.rows, self.samples))


def make_sections(results: Results, analysis: Analysis, drawn: Figures, folder: Path) -> list[Section]:
    """All sections that have something to show; writes the tables' files into `folder`."""
    made = [
        _comparison(results, analysis, drawn, folder),
        _parts(analysis, drawn, folder),
        _by_budget(analysis, drawn, folder),
        _grid(analysis, drawn, folder),
        Section("sure", "How sure are we", says=certainty(analysis.metric, analysis.noise)),
        Section("curves", "Learning curves", figures=_there(drawn, "curves")),
        Section("cost", "What it costs", figures=_there(drawn, "cost")),
        _published(analysis),
        _confounds(analysis),
        _besides(analysis),
        _left_out(results),
        _failures(results),
        Section("samples", "What the models write", samples=list(results.samples.items())[:_CELLS_SAMPLED]),
        _commands(results),
        _provenance(results),
        Section("method", "How intervals are made", says=[METHOD]),
    ]
    return [section for section in made if section]


def _comparison(results: Results, analysis: Analysis, drawn: Figures, folder: Path) -> Section:
    metric = analysis.metric
    table = comparison_table(metric, analysis.comparison, _note(results, analysis))
    floors = results.trials["floor_nll"].unique()
    says = []
    if len(floors) == 1 and pd.notna(floors[0]):
        floor = f"{metric.value(floors[0]):.3f}"
        says.append(f"The source of this text is known: no model can get below a test {metric.name} of {floor}.")
    return Section(
        "comparison", "Comparison", says=says, tables=[_html(table, folder)], figures=_there(drawn, "comparison")
    )


def _note(results: Results, analysis: Analysis) -> str:
    metric, several = analysis.metric, analysis.comparison["n"].max() > 1
    spread = (
        "± is the standard deviation over seeds; brackets hold 95 % intervals, of differences paired by seed. "
        f"P(better): chance that a new seed has the {metric.better} {metric.name} here. p: paired t test (Welch's "
        "where two rows share no seed), corrected for the number of rows (Holm); the intervals are not."
        if several
        else "One seed a row: no spread can be given."
    )
    data = ", ".join(sorted(results.trials["data"].dropna().unique())) if "data" in results.trials else ""
    train = f"Train {metric.name} is that of the last windows trained on, with dropout at work."
    of = f"{metric.name.capitalize()} on {data or 'no data yet'}; {metric.better} is better."
    return f"{of} n: finished trials. {train} {spread}"


def _parts(analysis: Analysis, drawn: Figures, folder: Path) -> Section:
    metric, components, factors = analysis.metric, analysis.named_components(), analysis.named_factors()
    note = (
        f"The change of test {metric.name} by having the part; {_helps(metric)} it helps. Paired by seed, averaged "
        f"over seeds{_as_logarithm(metric)}. P-values are corrected (Holm) over the rows that are measured the same "
        "way."
    )
    tables = []
    if len(components):
        tables.append(_html(effects_table(metric, components, "components", note, analysis.costs()), folder))
    if len(factors):
        note = (
            f"The change of test {metric.name} from the first level to the second, averaged over those settings of the "
            f"other factors that have both; {_helps(metric)} the second is better. P-values are corrected "
            "(Holm) over this table."
        )
        tables.append(_html(effects_table(metric, factors, "factors", note), folder))
    return Section(
        "parts",
        "What each part buys",
        warns=[disagreement(metric, row) for row in analysis.disagreements.to_dict("records")],
        tables=tables,
        figures=_there(drawn, "effects", "steps"),
    )


def _by_budget(analysis: Analysis, drawn: Figures, folder: Path) -> Section:
    if analysis.by_budget.empty:
        return Section("budget", "")
    metric, rows = analysis.metric, analysis.by_budget
    named = rows.assign(name=[f"{row['name']}, at budget={row['budget']:g}" for row in rows.to_dict("records")])
    note = (
        f"The change of test {metric.name} by having the part, within the trials of each budget; {_helps(metric)} it "
        "helps. "
        "P-values are corrected (Holm) over this table."
    )
    table = _html(effects_table(metric, named, "budgets", note), folder)
    return Section(
        "budget",
        "How it depends on the budget",
        says=by_budget(analysis),
        tables=[table],
        figures=_there(drawn, "budget"),
    )


def _grid(analysis: Analysis, drawn: Figures, folder: Path) -> Section:
    says, metric = [], analysis.metric
    shares = analysis.shares.table
    if len(shares):
        largest = shares.sort_values("share", ascending=False, kind="stable").head(4)
        parts = ", ".join(f"{row['term']} {100 * row['share']:.0f} %" for row in largest.to_dict("records"))
        says.append(f"Of the variation of {_scored(metric)} between trials, {parts} ({analysis.shares.method}).")
    tables = []
    if len(analysis.interactions):
        note = (
            f"How much more (or less) one factor changes {metric.name} when the other has its second level; zero means "
            "that they act independently. P-values are corrected (Holm) over this table."
        )
        tables.append(_html(effects_table(metric, analysis.named_interactions(), "interactions-table", note), folder))
    if 0 < len(simple := analysis.named_simple()) <= _SIMPLE_SHOWN:
        note = "The same effects, each at one combination of the other factors. P-values are corrected over this table."
        tables.append(_html(effects_table(metric, simple, "simple-effects", note), folder))
    figures = _there(drawn, "grid", "interactions")
    return Section("grid", "The grid", says=says if figures or tables else (), tables=tables, figures=figures)


def _published(analysis: Analysis) -> Section:
    rows = [
        [
            str(row["cell"]),
            f"{row['ours']:,.1f} (n = {row['n']})",
            f"{row['published']:,.2f}" + ("" if pd.isna(row["published_sd"]) else f" ± {row['published_sd']:.2f}"),
            told.change(analysis.metric, row["effect"]),
            f"{row['name']}: {row['cite']}",
        ]
        for row in analysis.published.to_dict("records")
    ]
    if rows:
        headings = ["cell", f"test {analysis.metric.name} here", "published", "difference", "source"]
        says = ["Cells that follow a published recipe on the same text, in every knob that the source names."]
        return Section("published", "Beside what is published", says=says, headings=headings, rows=rows)
    others = [
        [str(row["name"]), f"{row['valid']:.1f}", f"{row['test']:.1f}", f"{row['cite']} ({row['source']})"]
        for row in analysis.same_text.to_dict("records")
    ]
    says = ["No cell follows a published recipe. What others reached on this text with theirs, for orientation:"]
    headings = ["model", "valid", "test", "source"]
    return Section("published", "Beside what is published", says=says if others else (), headings=headings, rows=others)


def _confounds(analysis: Analysis) -> Section:
    rows = [
        [str(name), "factor" if row.pop("factor") else "also", _grouped(row)]
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


def _besides(analysis: Analysis) -> Section:
    rows = [
        [cell, "; ".join(f"{what}: {_readable(base)} → {_readable(value)}" for what, base, value in told)]
        for cell, told in analysis.besides.items()
        if told
    ]
    says = ["What each row does not share with the baseline, besides what the study varied on purpose."] if rows else ()
    headings = ["cell", "baseline → cell"]
    return Section("besides", "What a difference may also come from", says=says, headings=headings, rows=rows)


def _grouped(values: Mapping[Any, Any]) -> str:
    """value: its cells; value: its cells."""
    cells: dict[str, list[str]] = {}
    for cell, value in values.items():
        cells.setdefault(_readable(str(value)), []).append(str(cell))
    if len(cells) > 8:
        return f"{len(cells)} different values; see results.csv"
    return "; ".join(f"{value}: {_some(names)}" for value, names in cells.items())


def _readable(value: str) -> str:
    return f"{int(value):,}" if value.isdecimal() else value[:_DIGITS_OF_A_DIGEST]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"


def _left_out(results: Results) -> Section:
    rows = [[str(cell["label"]), str(cell["reason"])] for cell in results.design.get("left_out", [])]
    says = ["The design would have asked for these too."] if rows else ()
    return Section("left-out", "Left out of the design", says=says, headings=["cell", "reason"], rows=rows)


def _failures(results: Results) -> Section:
    missing = results.trials[results.trials["status"] != "FINISHED"]
    rows = [[str(row[c]) for c in ("cell", "seed", "status", "reason", "log")] for row in missing.to_dict("records")]
    return Section("missing", "Without a result", headings=["cell", "seed", "status", "reason", "log"], rows=rows)


def _commands(results: Results) -> Section:
    cells = list(dict.fromkeys(results.trials["cell"]))
    commands = [(cell, command_of(results.trials, cell)) for cell in cells]
    says = [
        f"The study was launched {results.launched[:16].replace('T', ' ')} UTC by: {results.command}",
        "Each cell alone, spelled out so that no preset and no default decides.",
        "Where the results are still there, the command finds them and trains nothing.",
    ]
    rows = [[cell, command] for cell, command in commands if command is not None]
    return Section("again", "Train it again", says=says, headings=["cell", "command"], rows=rows)


def _provenance(results: Results) -> Section:
    named = {
        "data": "Corpus",
        "data_digest": "SHA-256 of the corpus",
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
        [title, ", ".join(sorted(map(str, trials[column].dropna().unique())))]
        for column, title in named.items()
        if column in trials and trials[column].notna().any()
    ]
    says = ["Beside this page, every trial is a row of results.csv, every measurement one of curves.csv (or .parquet)."]
    return Section("source", "Where the numbers come from", says=says, headings=["what", "value"], rows=rows)


def _helps(metric: Metric) -> str:
    """On which side of zero a change of the metric is one to the better."""
    return "below zero" if metric.better == "lower" else "above zero"


def _scored(metric: Metric) -> str:
    """What differences are taken of."""
    return f"log-{metric.name}" if metric.scale == "log" else metric.name


def _as_logarithm(metric: Metric) -> str:
    return f" as {_scored(metric)}" if metric.scale == "log" else ""


def _there(drawn: Figures, *names: str) -> list[Drawn]:
    return [figure for figure in map(drawn.get, names) if figure is not None]


def _html(table: Shown, folder: Path) -> tuple[Markup, str]:
    return Markup(write_table(table, folder)), table.note
