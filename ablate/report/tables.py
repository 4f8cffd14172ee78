"""Tables as a reader sees them: HTML, Markdown, LaTeX and CSV, made of one table of numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from great_tables import GT

from ablate.analyze.comparison import BASELINE
from ablate.analyze.differs import Task
from ablate.analyze.study import Analysis
from ablate.metric import Metric
from ablate.report import told
from ablate.report.entries import difference, known, of_other, over_text, p_value, pairing, value, verdict, whole, wins
from ablate.report.escape import markdown, markdown_line, write_csv
from ablate.report.files import Files, chosen_columns
from ablate.report.latex import latex_table
from ablate.report.notes import OVER_TEXT, Note, effects_notes, told_of
from ablate.report.told import NOT_AVAILABLE
from ablate.track.units import duration

BESIDES = (OVER_TEXT, "wins", "pairing")  # what a page has room for, and a terminal or a sheet of paper has not


@dataclass(frozen=True)
class Shown:
    """A table made for reading.

    Attributes:
        name: of its files, without suffix.
        text: what the page shows, every value a string.
        written: the same with the decimals that Markdown and LaTeX have.
        numbers: what it was made from, for the CSV file.
        caption: what is measured; notes: what its columns and marks mean.
        words: columns that hold words; the others are set flush right.
        not_on_paper: columns that a page in print is too narrow for; they are left out of the LaTeX table.
        columns: those of the Markdown and LaTeX table, in their order; None: all, but for `not_on_paper`.
    """

    name: str
    text: pd.DataFrame
    written: pd.DataFrame
    numbers: pd.DataFrame
    caption: Sequence[Note]
    notes: Sequence[Note]
    words: Sequence[str] = ()
    not_on_paper: Sequence[str] = ()
    columns: Sequence[str] | None = None

    @property
    def note(self) -> str:
        """How to read it, where there is nothing else to say so."""
        return self.note_on(self.text)

    @property
    def note_on_page(self) -> str:
        """How to read it on the page, where a glossary says what headings mean."""
        return told_of([*self.caption, *(note for note in self.notes if note.mark)], self.text)

    def note_on(self, text: pd.DataFrame) -> str:
        """Caption and notes in one, for a table with the columns of `text`."""
        return told_of([*self.caption, *self.notes], text)


def write_table(shown: Shown, files: Files) -> str:
    """Write <name>.html, .md, .tex and .csv; return the HTML of the table alone, without its note."""
    numeric = [str(name) for name in shown.text.columns if name not in shown.words]
    table = GT(shown.text, id=f"table-{shown.name}").cols_align("right", columns=numeric)
    names = list(map(str, shown.text.columns))
    ahead = [name for name in names if name == "verdict"] + [name for name in names if name.startswith("difference ")]
    if ahead:
        # A screen may be too narrow for what follows.
        table = table.cols_move(ahead, after=names[0])
    path = files.folder / shown.name
    # Rendered once, which takes long: the note is all that the page leaves out.
    noted = str(table.tab_source_note(shown.note).as_raw_html(inline_css=False))
    html = re.sub(r"<tfoot.*?</tfoot>", "", noted, flags=re.DOTALL)
    path.with_suffix(".html").write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{shown.name}</title>{noted}</html>\n',
        encoding="utf-8",
    )
    whole = shown.written if shown.columns is None else shown.written[list(shown.columns)]
    note = markdown_line(shown.note_on(whole))
    path.with_suffix(".md").write_text(markdown(whole, shown.words) + f"\n{note}\n", encoding="utf-8")
    narrow = [name for name in whole.columns if shown.columns is not None or name not in shown.not_on_paper]
    paper = whole[narrow]
    caption, below = told_of(shown.caption, paper), told_of(shown.notes, paper)
    latex = latex_table(paper, shown.words, caption, below, f"{files.label}-{shown.name}")
    path.with_suffix(".tex").write_text(latex, encoding="utf-8")
    write_csv(shown.numbers, path.with_suffix(".csv"))
    return html


def comparison_table(analysis: Analysis, caption: Sequence[Note], notes: Sequence[Note], files: Files) -> Shown:
    """One row a cell, each beside the baseline."""
    metric, task, comparison = analysis.metric, analysis.task, analysis.comparison
    wide = [told.seen(task), "time", f"train {metric.name}", f"valid {metric.name}", *BESIDES, "missing"]
    if comparison["n"].nunique() == 1:
        wide.append("n")  # the caption says it
    text = display(metric, task, comparison, analysis.others)
    return Shown(
        "comparison",
        text,
        text if files.digits is None else display(metric, task, comparison, analysis.others, files.digits),
        _changes(metric, comparison).assign(missing=comparison["missing"].map(told.missing)),
        caption,
        notes,
        words=("cell", "verdict", "missing"),
        not_on_paper=wide,
        columns=None if files.columns is None else chosen_columns(text, files.columns),
    )


def _changes(metric: Metric, table: pd.DataFrame) -> pd.DataFrame:
    """The numbers of a table, with effects as changes of the metric, the lower end of each interval first."""
    changes = {
        name: table[_end(metric, name)].astype(float).map(metric.change)
        for name in map(str, table.columns)
        if name.startswith(("effect", "low", "high")) or name in ("text_low", "text_high")
    }
    changes["detectable"] = (metric.sign * table["detectable"].astype(float)).map(metric.change)  # a size
    lost = table["lost"].map(lambda found: f"{found.with_}/{found.of_with} {found.without}/{found.of_without}")
    where = {"where": table["where"].map("; ".join)} if "where" in table else {}
    shown = table.assign(**changes, **where, diverged=lost).drop(columns=["deltas", "delta_seeds", "contrast", "lost"])
    return shown.rename(columns={"effect": "change"})


def _end(metric: Metric, name: str) -> str:
    """The column that holds an end of an interval: higher is better where the lower score is the higher value."""
    ends = dict(zip(("low", "high"), told.ends(metric, "low", "high"), strict=True))
    return "_".join(ends.get(word, word) for word in name.split("_"))


def display(
    metric: Metric,
    task: Task,
    comparison: pd.DataFrame,
    others: Sequence[Metric] = (),
    digits: int | None = None,
) -> pd.DataFrame:
    """The comparison as text, with units in the headings. One row a cell.

    The verdict stands beside the difference: a screen may be too narrow for what follows.

    Args:
        task: as a launch records it.
        others: metrics that are shown beside the one that cells are compared by.
        digits: decimals of values and differences; None: as many as are worth printing.
    """
    base = comparison.loc[comparison["verdict"] == BASELINE, "cell"]
    first = base.empty or base.iloc[0] == comparison["cell"].iloc[0]
    to, train, seen = "to the first row" if first else f"to {base.iloc[0]}", f"train {metric.name}", told.seen(task)
    rows = [
        {
            "cell": row["cell"],
            "parameters": whole(row["parameters"]),
            seen: whole(row["seen"]),
            "time": duration(row["train_seconds"]),
            "n": str(row["n"]),
            train: value(metric, row.get("train_mean", math.nan), math.nan, digits),
            f"valid {metric.name}": value(metric, row["valid_mean"], row["valid_sd"], digits),
            f"test {metric.name}": value(metric, row["test_mean"], row["test_sd"], digits),
            **{f"test {other.name}": of_other(other, row, digits) for other in others},
            f"difference {to}": "–" if row["verdict"] == BASELINE else difference(metric, row, digits),
            "verdict": verdict(row),
            "p": "–" if row["verdict"] == BASELINE else p_value(row["p_holm"]),
            OVER_TEXT: over_text(metric, row, digits),
            "wins": wins(row),
            "pairing": pairing(row),
            "missing": told.missing(row["missing"]),
        }
        for row in comparison.to_dict("records")
    ]
    shown = pd.DataFrame(rows)
    not_known = [name for name in ("parameters", seen, train) if (shown[name] == NOT_AVAILABLE).all()]
    not_known += [OVER_TEXT] if (shown[OVER_TEXT] == "–").all() else []
    shown = shown.drop(columns=not_known)
    if not (comparison["n"] > 1).any():
        shown = shown.drop(columns=["wins", "pairing", "p", "verdict"])  # one seed says nothing of the kind
    return shown if shown["missing"].any() else shown.drop(columns="missing")


def effects_table(
    analysis: Analysis,
    effects: pd.DataFrame,
    name: str,
    caption: Sequence[Note],
    files: Files,
    costs: Mapping[str, str] | None = None,
) -> Shown:
    """Effects of components or factors: `name` and what is known of each. `costs`: name → parameters it adds."""
    metric = analysis.metric
    text = _effects(metric, effects, costs or {})
    return Shown(
        name,
        text,
        text if files.digits is None else _effects(metric, effects, costs or {}, files.digits),
        _changes(metric, effects),
        caption,
        effects_notes(analysis, effects),
        words=("part", "verdict"),
        not_on_paper=BESIDES,
    )


def _effects(
    metric: Metric, effects: pd.DataFrame, costs: Mapping[str, str], digits: int | None = None
) -> pd.DataFrame:
    change = f"change of {metric.name}"
    rows = [
        {
            "part": row["name"],
            change: told.change(metric, row["effect"], digits) if known(row["effect"]) else NOT_AVAILABLE,
            "95 % interval": told.span(metric, row["low"], row["high"], digits) if known(row["low"]) else NOT_AVAILABLE,
            "verdict": verdict(row),
            "p (Holm)": p_value(row["p_holm"]),
            "n": str(row["n"]),
            OVER_TEXT: over_text(metric, row, digits),
            "wins": wins(row),
            "pairing": pairing(row),
            "parameters": costs.get(row["name"], "–"),
        }
        for row in effects.to_dict("records")
    ]
    columns = ["part", change, "95 % interval", "verdict", "p (Holm)", "n", OVER_TEXT, "wins", "pairing", "parameters"]
    text = pd.DataFrame(rows, columns=columns)
    return text.drop(columns=[name for name in ("parameters", OVER_TEXT) if (text[name] == "–").all()])
