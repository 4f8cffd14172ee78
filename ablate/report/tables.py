"""Tables as a reader sees them: HTML, Markdown, LaTeX (booktabs) and CSV from one frame of text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from great_tables import GT

from ablate.analyze.differs import Task
from ablate.analyze.families import EXPLORATORY, is_claim
from ablate.metric import Metric
from ablate.report import told
from ablate.report.escape import latex_rows, markdown, markdown_line, plain_latin, write_csv
from ablate.report.told import NOT_AVAILABLE
from ablate.track.units import duration

OVER_TEXT = "over test data too"
BESIDES = (OVER_TEXT, "wins", "pairing")  # what a page has room for, and a terminal or a sheet of paper has not


@dataclass(frozen=True)
class Shown:
    """A table made for reading.

    Attributes:
        name: of its files, without suffix.
        text: what is printed, every value a string.
        numbers: what it was made from, for the CSV file.
        note: how to read it.
        words: columns that hold words; the others are set flush right.
        not_on_paper: columns that a page in print is too narrow for; they are left out of the LaTeX table.
    """

    name: str
    text: pd.DataFrame
    numbers: pd.DataFrame
    note: str
    words: Sequence[str] = ()
    not_on_paper: Sequence[str] = ()


def write_table(shown: Shown, folder: Path) -> str:
    """Write <name>.html, .md, .tex and .csv; return the HTML of the table alone, without its note."""
    table = GT(shown.text, id=f"table-{shown.name}").cols_align("right", columns=_numeric(shown, shown.text))
    names = list(map(str, shown.text.columns))
    ahead = [name for name in names if name == "verdict"] + [name for name in names if name.startswith("difference ")]
    if ahead:
        # A screen may be too narrow for what follows.
        table = table.cols_move(ahead, after=names[0])
    path = folder / shown.name
    # Rendered once, which takes long: the note is all that the page leaves out.
    noted = str(table.tab_source_note(shown.note).as_raw_html(inline_css=False))
    html = re.sub(r"<tfoot.*?</tfoot>", "", noted, flags=re.DOTALL)
    path.with_suffix(".html").write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{shown.name}</title>{noted}</html>\n',
        encoding="utf-8",
    )
    path.with_suffix(".md").write_text(markdown(shown.text) + f"\n{markdown_line(shown.note)}\n", encoding="utf-8")
    narrow = shown.text[[name for name in shown.text.columns if name not in shown.not_on_paper]]
    plain = narrow.rename(columns=plain_latin).map(plain_latin)
    paper = GT(plain).cols_align("right", columns=[plain_latin(name) for name in _numeric(shown, narrow)])
    latex = paper.tab_source_note(plain_latin(shown.note)).tab_options(table_font_size="8pt").as_latex()
    path.with_suffix(".tex").write_text("% needs \\usepackage{booktabs}\n" + latex_rows(latex) + "\n", encoding="utf-8")
    write_csv(shown.numbers, path.with_suffix(".csv"))
    return html


def _numeric(shown: Shown, text: pd.DataFrame) -> list[str]:
    return [str(name) for name in text.columns if name not in shown.words]


def comparison_table(
    metric: Metric, task: Task, comparison: pd.DataFrame, note: str, others: Sequence[Metric] = ()
) -> Shown:
    """One row a cell, each beside the baseline."""
    wide = (told.seen(task), "time", f"train {metric.name}", f"valid {metric.name}", *BESIDES, "missing")
    words = ("cell", "verdict", "missing")
    numbers = _changes(metric, comparison).assign(missing=comparison["missing"].map(told.missing))
    return Shown("comparison", display(metric, task, comparison, others), numbers, note, words, wide)


def _changes(metric: Metric, table: pd.DataFrame) -> pd.DataFrame:
    """The numbers of a table, with effects as changes of the metric, the lower end of each interval first."""
    changes = {
        name: table[_end(metric, name)].astype(float).map(metric.change)
        for name in map(str, table.columns)
        if name.startswith(("effect", "low", "high")) or name in ("detectable", "text_low", "text_high")
    }
    lost = table["lost"].map(lambda found: f"{found.with_}/{found.of_with} {found.without}/{found.of_without}")
    shown = table.assign(**changes, diverged=lost).drop(columns=["deltas", "delta_seeds", "contrast", "lost"])
    return shown.rename(columns={"effect": "change"})


def _end(metric: Metric, name: str) -> str:
    """The column that holds an end of an interval: higher is better where the lower score is the higher value."""
    ends = dict(zip(("low", "high"), told.ends(metric, "low", "high"), strict=True))
    return "_".join(ends.get(word, word) for word in name.split("_"))


def display(metric: Metric, task: Task, comparison: pd.DataFrame, others: Sequence[Metric] = ()) -> pd.DataFrame:
    """The comparison as text, with units in the headings. One row a cell.

    The verdict stands beside the difference: a screen may be too narrow for what follows.

    Args:
        task: as a launch records it.
        others: metrics that are shown beside the one that cells are compared by.
    """
    base = comparison.loc[comparison["verdict"] == "baseline", "cell"]
    first = base.empty or base.iloc[0] == comparison["cell"].iloc[0]
    to, train, seen = "to the first row" if first else f"to {base.iloc[0]}", f"train {metric.name}", told.seen(task)
    rows = [
        {
            "cell": row["cell"],
            "parameters": whole(row["parameters"]),
            seen: whole(row["seen"]),
            "time": duration(row["train_seconds"]),
            "n": str(row["n"]),
            train: _value(metric, row.get("train_mean", math.nan), math.nan),
            f"valid {metric.name}": _value(metric, row["valid_mean"], row["valid_sd"]),
            f"test {metric.name}": _value(metric, row["test_mean"], row["test_sd"]),
            **{f"test {other.name}": _of_other(other, row) for other in others},
            f"difference {to}": "–" if row["verdict"] == "baseline" else _difference(metric, row),
            "verdict": _verdict(row),
            "p": p_value(row["p_holm"]),
            OVER_TEXT: _over_text(metric, row),
            "wins": _wins(row),
            "pairing": _pairing(row),
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
    metric: Metric, effects: pd.DataFrame, name: str, note: str, costs: Mapping[str, str] | None = None
) -> Shown:
    """Effects of components or factors: `name` and what is known of each. `costs`: name → parameters it adds."""
    change = f"change of {metric.name}"
    rows = [
        {
            "part": row["name"],
            change: told.change(metric, row["effect"]) if _known(row["effect"]) else NOT_AVAILABLE,
            "95 % interval": told.span(metric, row["low"], row["high"]) if _known(row["low"]) else NOT_AVAILABLE,
            "verdict": _verdict(row),
            "p (Holm)": p_value(row["p_holm"]),
            "n": str(row["n"]),
            OVER_TEXT: _over_text(metric, row),
            "wins": _wins(row),
            "pairing": _pairing(row),
            "parameters": (costs or {}).get(row["name"], "–"),
        }
        for row in effects.to_dict("records")
    ]
    columns = ["part", change, "95 % interval", "verdict", "p (Holm)", "n", OVER_TEXT, "wins", "pairing", "parameters"]
    text = pd.DataFrame(rows, columns=columns)
    text = text.drop(columns=[name for name in ("parameters", OVER_TEXT) if (text[name] == "–").all()])
    return Shown(name, text, _changes(metric, effects), note, words=("part", "verdict"), not_on_paper=BESIDES)


def whole(value: float | None) -> str:
    """A count, with separators."""
    return f"{round(value):,}" if _known(value) else NOT_AVAILABLE  # type: ignore[arg-type]


def p_value(p: float) -> str:
    """A p-value in three digits, never 0."""
    if not _known(p):
        return NOT_AVAILABLE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _over_text(metric: Metric, row: Mapping[Any, Any]) -> str:
    """The interval for other test data too."""
    return told.span(metric, row["text_low"], row["text_high"]) if _known(row["text_low"]) else "–"


def _wins(row: Mapping[Any, Any]) -> str:
    """How many pairs went for the better."""
    ties = len(row["deltas"]) - row["wins"] - row["losses"]
    if not row["deltas"]:
        return "–"
    tied = f", {ties} tied" if ties else ""
    chance = f" [{row['wins_low']:.2f}, {row['wins_high']:.2f}]" if _known(row["wins_low"]) else ""
    return f"{row['wins']} of {len(row['deltas'])}{tied}{chance}"


def _pairing(row: Mapping[Any, Any]) -> str:
    """Correlation of the cells over seeds, and the width of the paired interval to that of an unpaired one."""
    if not _known(row["width_ratio"]):
        return "–"
    correlation = f"r {row['correlation']:.2f}, " if _known(row["correlation"]) else ""
    return f"{correlation}×{row['width_ratio']:.2f}".replace("-", "−")


def _verdict(row: Mapping[Any, Any]) -> str:
    """With what it is worth: what belongs to no question that was asked beforehand is marked, and so is divergence."""
    diverged = row["lost"]
    lost = [
        f"{k}/{n} diverged {where}"
        for k, n, where in (
            (diverged.with_, diverged.of_with, "with"), (diverged.without, diverged.of_without, "without"),
        )
        if k
    ]  # fmt: skip
    marks = [*(["exploratory"] if row["family"] == EXPLORATORY and is_claim(row["verdict"]) else []), *lost]
    return f"{row['verdict']} ({', '.join(marks)})" if marks else str(row["verdict"])


def _known(value: float | None) -> bool:
    return value is not None and not pd.isna(value) and math.isfinite(value)


def _value(metric: Metric, mean: float, sd: float) -> str:
    return NOT_AVAILABLE if math.isnan(mean) else told.value(metric, mean, sd)


def _of_other(metric: Metric, row: Mapping[Any, Any]) -> str:
    return _value(metric, row[f"test_{metric.name}_mean"], row[f"test_{metric.name}_sd"])


def _difference(metric: Metric, row: Mapping[Any, Any]) -> str:
    if not _known(row["effect"]):
        return NOT_AVAILABLE
    change = told.change(metric, row["effect"])
    if row["pairs"] == 1 or (row["difference_kind"] == "unpaired" and row["n"] == 1):
        return f"{change} (n = 1)"
    if not _known(row["low"]):
        return f"{change} (no spread)"
    low, high = (told.change(metric, end) for end in told.ends(metric, row["low"], row["high"]))
    return f"{change} [{low}, {high}]"
