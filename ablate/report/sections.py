"""The page's sections, in the order of a reader's questions. A section without anything to show is left out."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from markupsafe import Markup

from ablate.analyze.by_budget import PART
from ablate.analyze.families import SETTLED
from ablate.analyze.study import Analysis
from ablate.metric import Metric
from ablate.names import some
from ablate.report.budgets import by_budget
from ablate.report.figures.style import Drawn
from ablate.report.files import Files
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
from ablate.report.notes import comparison_caption, comparison_notes, effects_caption
from ablate.report.parts import disagreement
from ablate.report.records import besides, commands, differs, failures, left_out, provenance, published
from ablate.report.section import Section, Table
from ablate.report.tables import Shown, comparison_table, effects_table, write_table
from ablate.report.words import certainty
from ablate.track.read import Results

TABLES = ("comparison", "components", "factors", "interactions-table", "simple-effects", "budgets", "noise")

Figures = Mapping[str, Drawn | None]

_CELLS_SAMPLED = 12
_SIMPLE_SHOWN = 60


def make_sections(results: Results, analysis: Analysis, drawn: Figures, files: Files) -> list[Section]:
    """All sections that have something to show; writes the tables' files."""
    made = [
        _comparison(results, analysis, drawn, files),
        _parts(results, analysis, drawn, files),
        _by_budget(results, analysis, drawn, files),
        _grid(results, analysis, drawn, files),
        Section(
            "sure",
            "How sure are we",
            says=() if analysis.sources.asked else certainty(analysis.metric, analysis.noise, analysis.stopping),
            figures=_there(drawn, "stability"),
        ),
        noise_section(analysis, files),
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
        Section("method", "How intervals are made", says=[method(analysis)]),
    ]
    return [section for section in made if section]


def _comparison(results: Results, analysis: Analysis, drawn: Figures, files: Files) -> Section:
    metric = analysis.metric
    caption, notes = comparison_caption(results, analysis), comparison_notes(results, analysis)
    table = comparison_table(analysis, caption, notes, files)
    floors = results.trials[f"floor_{metric.recorded}"].unique()
    says = []
    if len(floors) == 1 and pd.notna(floors[0]):
        floor, where = f"{metric.value(floors[0]):.3f}", "below" if metric.better == "lower" else "above"
        says.append(f"The source of this data is known: no model can get {where} a test {metric.name} of {floor}.")
    if results.labels:
        called = [f"{name} is {label}" for label, name in results.labels.items()]
        says.append(f"Display names: {some(called)}.")
    return Section(
        "comparison", "Comparison", says=says, tables=[_html(table, files)], figures=_there(drawn, "comparison")
    )


def _parts(results: Results, analysis: Analysis, drawn: Figures, files: Files) -> Section:
    metric, components, factors = analysis.metric, named_components(analysis), named_factors(analysis)
    tables = []
    if len(components):
        by = f"by having the part ({_helps(metric)} it helps)"
        caption = effects_caption(results, analysis, components, by)
        tables.append(_html(effects_table(analysis, components, "components", caption, files, costs(analysis)), files))
    if len(factors):
        by = (
            f"from the first level to the second ({_helps(metric)} the second is better), over those settings of the "
            "other factors that have both"
        )
        caption = effects_caption(results, analysis, factors, by)
        tables.append(_html(effects_table(analysis, factors, "factors", caption, files), files))
    return Section(
        "parts",
        "What each part buys",
        warns=[
            disagreement(metric, row) for row in analysis.disagreements.to_dict("records") if row["verdict"] in SETTLED
        ],
        tables=tables,
        figures=_there(drawn, "effects", "steps"),
    )


def _by_budget(results: Results, analysis: Analysis, drawn: Figures, files: Files) -> Section:
    if analysis.by_budget.empty:
        return Section("budget", "")
    metric = analysis.metric
    named = named_at_budgets(analysis).drop(columns=PART)
    by = f"by having the part, within the trials of each budget ({_helps(metric)} it helps)"
    caption = effects_caption(results, analysis, named, by)
    table = _html(effects_table(analysis, named, "budgets", caption, files), files)
    return Section(
        "budget",
        "How it depends on the budget",
        says=by_budget(analysis),
        tables=[table],
        figures=_there(drawn, "budget"),
    )


def _grid(results: Results, analysis: Analysis, drawn: Figures, files: Files) -> Section:
    says, metric = [], analysis.metric
    shares = analysis.shares.table
    if len(shares):
        largest = shares.sort_values("share", ascending=False, kind="stable").head(4)
        parts = ", ".join(f"{row['term']} {100 * row['share']:.0f} %" for row in largest.to_dict("records"))
        says.append(
            f"Of the variation of {_scored(metric)} between trials, {parts} ({METHODS[analysis.shares.method]})."
        )
    tables = []
    if len(interactions := named_interactions(analysis)):
        by = "by one factor, more or less where another has its second level (zero: they act independently)"
        caption = effects_caption(results, analysis, interactions, by)
        tables.append(_html(effects_table(analysis, interactions, "interactions-table", caption, files), files))
    if 0 < len(simple := named_simple(analysis)) <= _SIMPLE_SHOWN:
        by = "from the first level to the second, each at one combination of the other factors"
        caption = effects_caption(results, analysis, simple, by)
        tables.append(_html(effects_table(analysis, simple, "simple-effects", caption, files), files))
    figures = _there(drawn, "grid", "interactions")
    return Section("grid", "The grid", says=says if figures or tables else (), tables=tables, figures=figures)


def _helps(metric: Metric) -> str:
    """On which side of zero a change of the metric is one to the better."""
    return "below zero" if metric.better == "lower" else "above zero"


def _scored(metric: Metric) -> str:
    """What differences are taken of."""
    return f"log-{metric.name}" if metric.scale == "log" else metric.name


def _there(drawn: Figures, *names: str) -> list[Drawn]:
    return [figure for figure in map(drawn.get, names) if figure is not None]


def _html(table: Shown, files: Files) -> Table:
    return Table(Markup(write_table(table, files)), list(table.text.columns), table.note_on_page)
