"""One folder a study: tables, figures, the results as CSV and Parquet, and a page that holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from ablate.analyze.study import Analysis, analyse
from ablate.names import folder_name
from ablate.report.escape import write_csv
from ablate.report.figures import FIGURES, draw_all
from ablate.report.figures.style import Drawn
from ablate.report.files import Files, chosen_columns
from ablate.report.glossary import glossary, linked, linked_table, meanings
from ablate.report.replace import replaced
from ablate.report.section import Section
from ablate.report.sections import TABLES, make_sections
from ablate.report.tables import display
from ablate.report.warnings import warnings_of
from ablate.report.words import findings
from ablate.track.process import report_lock
from ablate.track.read import Results

PAGE = "index.html"
_KINDS = (
    (["results", "curves"], [".csv", ".parquet"]),
    (TABLES, [".html", ".md", ".tex", ".csv"]),
    (FIGURES, [".png", ".svg", ".pdf"]),
)
# All that a report may have; a table or a figure that a study has nothing for is not there.
_FILES = {PAGE, *(f"{name}{suffix}" for names, suffixes in _KINDS for name in names for suffix in suffixes)}


@dataclass(frozen=True)
class Report:
    """Where a report lies and what it says in short.

    Attributes:
        table: the comparison, as a reader sees it.
        findings: what was found, in sentences, the most important first.
        warnings: what to know before believing it.
        learned_nothing: whether every result is worse than that of a model that knows nothing.
        failures: `cell`, `seed`, `status`, `reason`, `log` of every trial that has no result.
    """

    folder: Path
    page: Path
    table: pd.DataFrame
    findings: list[str]
    warnings: list[str]
    learned_nothing: bool
    failures: pd.DataFrame

    @property
    def all_finished(self) -> bool:
        """Whether every trial has a result."""
        return self.failures.empty


def write_report(
    results: Results,
    reports: Path,
    baseline: str | None = None,
    columns: Sequence[str] | None = None,
    digits: int | None = None,
) -> Report:
    """Write the report of a study into `reports/<study>/` and say what it holds.

    The same results give the same bytes, wherever they were read from.

    Args:
        baseline: the cell that the others are compared with, by its display name or its label; None: the study's
            first. With another one than that, the report has a folder of its own, `reports/<study>-beside-<baseline>/`.
        columns: of the comparison in Markdown and LaTeX, in their order, by the first words of the page's headings;
            None: all in Markdown, what there is room for in LaTeX.
        digits: decimals of values and differences in Markdown and LaTeX; None: as many as are worth printing.

    Raises:
        KnobError: for a baseline or a column that there is not.
    """
    if baseline is not None and baseline not in {*results.trials["cell"]}:
        baseline = results.labels.get(baseline, baseline)
    analysis = analyse(results, baseline)
    said, warnings = findings(analysis), warnings_of(results, analysis)
    beside = "" if baseline in (None, str(results.trials["cell"].iloc[0])) else f"-beside-{baseline}"
    folder = reports / folder_name(results.name + beside)
    table = display(analysis.metric, analysis.task, analysis.comparison, analysis.others)
    if columns is not None:
        chosen_columns(table, columns)  # refused before anything is written
    reports.mkdir(parents=True, exist_ok=True)
    # A study launched twice at once ends twice at once.
    with report_lock(folder), replaced(folder, _FILES) as scratch:
        _write_data(results, scratch)
        drawn = draw_all(results, analysis, scratch)
        first = _first_figure(analysis, drawn)
        below = {name: figure for name, figure in drawn.items() if figure is not first}
        meant = meanings(results, analysis)
        sections = make_sections(results, analysis, below, Files(scratch, folder.name, columns, digits))
        (scratch / PAGE).write_text(_page(results, said, warnings, first, sections, meant), encoding="utf-8")
    failures = results.trials.loc[results.trials["status"] != "FINISHED", ["cell", "seed", "status", "reason", "log"]]
    return Report(folder, folder / PAGE, table, said, warnings, analysis.learned_nothing, failures)


def _write_data(results: Results, folder: Path) -> None:
    write_csv(results.trials, folder / "results.csv")
    write_csv(results.curves, folder / "curves.csv")
    # A knob may be a number in one cell and null or a word in another; Parquet's columns have one type.
    mixed = {str(name): _as_text(column) for name, column in results.trials.items() if column.dtype == object}
    results.trials.assign(**mixed).to_parquet(folder / "results.parquet", index=False)
    results.curves.to_parquet(folder / "curves.parquet", index=False)


def _as_text(column: pd.Series[str]) -> pd.Series[str]:
    return column.map(str, na_action="ignore").astype("string")


def _first_figure(analysis: Analysis, drawn: Mapping[str, Drawn | None]) -> Drawn | None:
    """The figure that shows what the finding says; None where nothing is drawn yet."""
    by_budget, parts = len(analysis.by_budget) > 0, analysis.designed
    return drawn["budget" if by_budget else "effects" if parts else "comparison"] or drawn["comparison"]


def _page(
    results: Results,
    said: Sequence[str],
    warnings: Sequence[str],
    first: Drawn | None,
    sections: Sequence[Section],
    meant: Mapping[str, str],
) -> str:
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("ablate.report", "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False}
    terms = glossary(sections, meant)
    values: Mapping[str, object] = {
        "results": results,
        "findings": said,
        "figure": first,
        "warnings": warnings,
        "sections": sections,
        "terms": terms,
        "linked": partial(linked, terms=terms),
        "linked_table": partial(linked_table, terms=terms),
    }
    return environment.get_template("page.html").render(values)
