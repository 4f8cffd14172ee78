"""One folder a study: tables, figures, the results as CSV, and a page that holds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ablate.analyze import compare, confounds, warnings_for
from ablate.report.figures import draw_comparison, draw_curves
from ablate.report.tables import display, write_tables
from ablate.track.read import Results
from ablate.track.units import perplexity


@dataclass(frozen=True)
class Report:
    """Where a report lies and what it says in short.

    Attributes:
        table: the comparison, as a reader sees it.
        warnings: what to know before believing it.
        failures: `cell`, `seed`, `status`, `reason`, `log` of every trial that has no result.
    """

    folder: Path
    page: Path
    table: pd.DataFrame
    warnings: list[str]
    failures: pd.DataFrame

    @property
    def all_finished(self) -> bool:
        """Whether every trial has a result."""
        return self.failures.empty


def write_report(results: Results, reports: Path) -> Report:
    """Write the report of a study into `reports/<study>/` and say what it holds."""
    folder = reports / results.name
    folder.mkdir(parents=True, exist_ok=True)
    comparison = compare(results.trials)
    warnings = warnings_for(results.trials)
    note = _note(results, comparison)
    table_html = write_tables(comparison, note, folder)
    results.trials.to_csv(folder / "results.csv", index=False)
    results.curves.to_csv(folder / "curves.csv", index=False)
    draw_curves(results.curves, folder)
    draw_comparison(results.trials, folder)
    failures = results.trials.loc[results.trials["status"] != "FINISHED", ["cell", "seed", "status", "reason", "log"]]
    page = folder / "index.html"
    page.write_text(_page(results, comparison, table_html, warnings, failures, folder), encoding="utf-8")
    return Report(folder, page, display(comparison), warnings, failures)


def _note(results: Results, comparison: pd.DataFrame) -> str:
    several = comparison["n"].max() > 1
    spread = (
        "± is the standard deviation over seeds; brackets hold the 95 % interval of the paired difference."
        if several
        else "One seed a row: no spread can be given."
    )
    data = ", ".join(sorted(results.trials["data"].dropna().unique())) if "data" in results.trials else ""
    return f"Perplexity on {data or 'no data yet'}; lower is better. n: finished trials. {spread}"


def _page(
    results: Results,
    comparison: pd.DataFrame,
    table_html: str,
    warnings: list[str],
    failures: pd.DataFrame,
    folder: Path,
) -> str:
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    environment = Environment(loader=PackageLoader("ablate.report", "templates"), autoescape=True)
    differing = confounds(results.trials)
    trials = results.trials
    return environment.get_template("page.html").render(
        results=results,
        headline=_headline(comparison),
        table=Markup(table_html),
        warnings=warnings,
        failures=failures.to_dict("records"),
        figures={name: Markup(_inline_svg(folder / f"{name}.svg")) for name in ("comparison", "curves")},
        cells=list(comparison["cell"]),
        differing=[(str(name), row) for name, row in differing.to_dict("index").items()],
        provenance=_provenance(trials),
        floor=_floor(trials),
    )


def _headline(comparison: pd.DataFrame) -> str:
    """The finding in a sentence, from the table."""
    done = comparison[comparison["n"] > 0]
    if done.empty:
        return "No trial has finished yet."
    best = done.sort_values("test_mean", kind="stable").iloc[0]
    first = comparison.iloc[0]
    value = f"{best['test_mean']:,.1f}"
    if len(done) == 1:
        return f"{best['cell']} reaches a test perplexity of {value} (n = {best['n']})."
    if best["cell"] == first["cell"] or best["pairs"] == 0:
        return f"{best['cell']} has the lowest test perplexity: {value} (n = {best['n']})."
    gain = -best["difference"]
    sure = (
        "; with one seed this may be chance"
        if best["pairs"] < 2
        else f" (95 % interval {-best['difference_high']:.1%} to {-best['difference_low']:.1%}, {best['pairs']} seeds)"
    )
    return (
        f"{best['cell']} has the lowest test perplexity, {value}: "
        f"{gain:.1%} below {first['cell']}, the first row{sure}."
    )


def _inline_svg(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return text[text.index("<svg") :]


def _provenance(trials: pd.DataFrame) -> list[tuple[str, str]]:
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
    return [
        (title, ", ".join(sorted(map(str, trials[column].dropna().unique()))))
        for column, title in named.items()
        if column in trials and trials[column].notna().any()
    ]


def _floor(trials: pd.DataFrame) -> float | None:
    """Test perplexity of the true source, where all rows share a known one."""
    known = trials["floor_nll"].dropna().unique()
    return perplexity(float(known[0])) if len(known) == 1 else None
