"""The page's sections, in the order of a reader's questions. A section without anything to show is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from ablate.analyze.by_budget import PART
from ablate.analyze.families import SETTLED
from ablate.analyze.study import Analysis
from ablate.metric import Metric
from ablate.report.budgets import by_budget
from ablate.report.figures.style import Drawn
from ablate.report.glossary import noted
from ablate.report.method import method
from ablate.report.names import (
    METHODS,
    costs,
    named_at_budgets,
    named_components,
    named_factors,
    named_interactions,
    named_simple,
)
from ablate.report.noise import noise_section
from ablate.report.parts import disagreement
from ablate.report.records import besides, commands, differs, failures, left_out, provenance, published
from ablate.report.section import Section, Table
from ablate.report.tables import OVER_TEXT, Shown, comparison_table, effects_table, write_table
from ablate.report.words import certainty
from ablate.track.read import Results

TABLES = ("comparison", "components", "factors", "interactions-table", "simple-effects", "budgets", "noise")

Figures = Mapping[str, Drawn | None]

_CELLS_SAMPLED = 12
_SIMPLE_SHOWN = 60


def make_sections(
    results: Results, analysis: Analysis, drawn: Figures, meant: Mapping[str, str], folder: Path
) -> list[Section]:
    """All sections that have something to show; writes the tables' files into `folder`.

    Args:
        meant: heading of a table → what it means.
    """
    made = [
        _comparison(results, analysis, drawn, meant, folder),
        _parts(analysis, drawn, meant, folder),
        _by_budget(analysis, drawn, folder),
        _grid(analysis, drawn, folder),
        Section(
            "sure",
            "How sure are we",
            says=() if analysis.sources.asked else certainty(analysis.metric, analysis.noise, analysis.stopping),
            figures=_there(drawn, "stability"),
        ),
        noise_section(analysis, folder),
        Section("curves", "Learning curves", figures=_there(drawn, "curves")),
        Section("cost", "What it costs", figures=_there(drawn, "cost")),
        published(analysis),
        differs(analysis),
        besides(analysis),
        left_out(results),
        failures(results),
        Section("samples", "What the models write", samples=list(results.samples.items())[:_CELLS_SAMPLED]),
        commands(results),
        provenance(results),
        Section("method", "How intervals are made", says=[method(analysis.metric)]),
    ]
    return [section for section in made if section]


def _comparison(
    results: Results, analysis: Analysis, drawn: Figures, meant: Mapping[str, str], folder: Path
) -> Section:
    metric = analysis.metric
    table = comparison_table(
        metric, analysis.task, analysis.comparison, _note(results, analysis), others=analysis.others
    )
    floors = results.trials[f"floor_{metric.recorded}"].unique()
    says = []
    if len(floors) == 1 and pd.notna(floors[0]):
        floor, where = f"{metric.value(floors[0]):.3f}", "below" if metric.better == "lower" else "above"
        says.append(f"The source of this data is known: no model can get {where} a test {metric.name} of {floor}.")
    tables = [_html(table, folder, noted(meant, list(table.text.columns)))]
    return Section("comparison", "Comparison", says=says, tables=tables, figures=_there(drawn, "comparison"))


def _note(results: Results, analysis: Analysis) -> str:
    metric, several = analysis.metric, analysis.comparison["n"].max() > 1
    spread = (
        "± is the standard deviation over seeds; brackets hold 95 % intervals, of differences paired by seed."
        if several
        else "One seed a row: no spread can be given."
    )
    names: list[str] = sorted(results.trials["data"].dropna().unique()) if "data" in results.trials else []
    data = f" on {', '.join(filter(None, names))}" if any(names) else ""
    of = f"{metric.name.capitalize()}{data}; {metric.better} is better."
    also = f" {_list(analysis.others)}: mean ± standard deviation, not compared." if analysis.others else ""
    return f"{of} {spread}{also}"


def _list(metrics: Sequence[Metric]) -> str:
    return ", ".join(f"test {metric.name}" for metric in metrics).capitalize()


def _parts(analysis: Analysis, drawn: Figures, meant: Mapping[str, str], folder: Path) -> Section:
    metric, components, factors = analysis.metric, named_components(analysis), named_factors(analysis)
    note = (
        f"The change of test {metric.name} by having the part; {_helps(metric)} it helps. Paired by seed, averaged "
        f"over seeds{_as_logarithm(metric)}. {_corrected(analysis)}"
    )
    tables = []
    if len(components):
        table = effects_table(metric, components, "components", note, costs(analysis))
        tables.append(_html(table, folder, noted(meant, [OVER_TEXT] if OVER_TEXT in table.text else [])))
    if len(factors):
        note = (
            f"The change of test {metric.name} from the first level to the second, averaged over those settings of the "
            f"other factors that have both; {_helps(metric)} the second is better. {_corrected(analysis)}"
        )
        tables.append(_html(effects_table(metric, factors, "factors", note), folder))
    return Section(
        "parts",
        "What each part buys",
        warns=[
            disagreement(metric, row) for row in analysis.disagreements.to_dict("records") if row["verdict"] in SETTLED
        ],
        tables=tables,
        figures=_there(drawn, "effects", "steps"),
    )


def _by_budget(analysis: Analysis, drawn: Figures, folder: Path) -> Section:
    if analysis.by_budget.empty:
        return Section("budget", "")
    metric = analysis.metric
    named = named_at_budgets(analysis).drop(columns=PART)
    note = (
        f"The change of test {metric.name} by having the part, within the trials of each budget; {_helps(metric)} it "
        f"helps. {_corrected(analysis)}"
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
        says.append(
            f"Of the variation of {_scored(metric)} between trials, {parts} ({METHODS[analysis.shares.method]})."
        )
    tables = []
    if len(analysis.interactions):
        note = (
            f"How much more (or less) one factor changes {metric.name} when the other has its second level; zero means "
            f"that they act independently. {_corrected(analysis)}"
        )
        tables.append(_html(effects_table(metric, named_interactions(analysis), "interactions-table", note), folder))
    if 0 < len(simple := named_simple(analysis)) <= _SIMPLE_SHOWN:
        note = f"The same effects, each at one combination of the other factors. {_corrected(analysis)}"
        tables.append(_html(effects_table(metric, simple, "simple-effects", note), folder))
    figures = _there(drawn, "grid", "interactions")
    return Section("grid", "The grid", says=says if figures or tables else (), tables=tables, figures=figures)


def _corrected(analysis: Analysis) -> str:
    """What counts together."""
    if not (analysis.comparison["n"] > 1).any():
        return "Nothing is tested: that takes two seeds or more."
    if not analysis.tests:
        return (
            "None of the comparisons that the study was made for could be tested; p-values of the rest are corrected "
            "(Holm) among themselves."
        )
    over = "one comparison" if analysis.tests == 1 else f"{analysis.tests} comparisons"
    return (
        f"P-values are corrected (Holm) over the {over} that the study was made for, those of the rest among "
        "themselves; a comparison that stands in several tables is tested once."
    )


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


def _html(table: Shown, folder: Path, added: str = "") -> Table:
    """Write a table. `added`: what the note of its files adds, for they have no glossary."""
    alone = replace(table, note=f"{table.note} {added}".rstrip())
    return Table(Markup(write_table(alone, folder)), list(table.text.columns), table.note)
