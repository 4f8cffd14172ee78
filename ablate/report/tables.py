"""The comparison table as HTML, Markdown, LaTeX and CSV, and as plain text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from great_tables import GT

from ablate.track.units import duration

NOT_AVAILABLE = "n/a"


def display(comparison: pd.DataFrame) -> pd.DataFrame:
    """The comparison as a reader sees it: text, with units in the headings. One row a cell."""
    rows = [
        {
            "cell": row["cell"],
            "parameters": _whole(row["parameters"]),
            "tokens seen": _whole(row["tokens"]),
            "time": duration(row["train_seconds"]),
            "n": str(row["n"]),
            "valid perplexity": _spread(row["valid_mean"], row["valid_sd"], row["n"]),
            "test perplexity": _spread(row["test_mean"], row["test_sd"], row["n"]),
            "difference to the first row": "–" if i == 0 else _difference(row),
            "missing": row["missing"],
        }
        for i, row in enumerate(comparison.to_dict("records"))
    ]
    shown = pd.DataFrame(rows)
    return shown if shown["missing"].any() else shown.drop(columns="missing")


def write_tables(comparison: pd.DataFrame, note: str, folder: Path) -> str:
    """Write comparison.html, .md, .tex and .csv into `folder`; return the HTML of the table alone."""
    shown = display(comparison)
    table = (
        GT(shown, id="comparison")
        .tab_source_note(note)
        .cols_align("right", columns=[name for name in shown.columns if name not in ("cell", "missing")])
    )
    html = table.as_raw_html(inline_css=False)
    (folder / "comparison.html").write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Comparison</title>{html}</html>\n',
        encoding="utf-8",
    )
    (folder / "comparison.md").write_text(markdown(shown) + f"\n{note}\n", encoding="utf-8")
    (folder / "comparison.tex").write_text(table.as_latex() + "\n", encoding="utf-8")
    comparison.to_csv(folder / "comparison.csv", index=False)
    return str(html)


def markdown(shown: pd.DataFrame) -> str:
    """A GitHub table; `|` and what would be markup in a name stay inert."""
    lines = [list(shown.columns), ["---"] + ["---:"] * (len(shown.columns) - 1), *shown.to_numpy().tolist()]
    escaped = [lines[0], lines[1], *([_escape_markdown(str(cell)) for cell in line] for line in lines[2:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped) + "\n"


def _escape_markdown(text: str) -> str:
    for character in "\\|`*_{}[]<>$#":
        text = text.replace(character, "\\" + character)
    return text


def _whole(value: float | None) -> str:
    return NOT_AVAILABLE if value is None or math.isnan(value) else f"{round(value):,}"


def _spread(mean: float, sd: float, n: int) -> str:
    if n == 0:
        return NOT_AVAILABLE
    digits = 1 if mean < 10_000 else 0
    return f"{mean:,.{digits}f}" if n == 1 else f"{mean:,.{digits}f} ± {sd:,.{digits}f}"


def _difference(row: Mapping[Any, Any]) -> str:
    if row["pairs"] == 0:
        return NOT_AVAILABLE
    if row["pairs"] == 1:
        return f"{row['difference']:+.1%} (n = 1)"
    return f"{row['difference']:+.1%} [{row['difference_low']:+.1%}, {row['difference_high']:+.1%}]"
