"""A table for a paper: LaTeX with booktabs, a caption and a label."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import pandas as pd

from ablate.report.escape import latex

_NUMBER = re.compile(r"([+−]?)(\d[\d,]*)((?:\.\d+)?)")
Number = tuple[str, str, str]  # sign, whole part, decimals
_BREAKS = ("[", "*")  # at the start of a row they would be an argument of the line break before it


def latex_table(text: pd.DataFrame, words: Collection[str], caption: str, note: str, label: str) -> str:
    """The table as a float.

    Args:
        words: columns that are set flush left; in the others figures are aligned, decimal point below decimal point.
        label: for \\ref.
    """
    headings = [str(name) for name in text.columns]
    columns = [
        [latex(cell) for cell in text[name]] if name in words else _aligned(list(text[name])) for name in headings
    ]
    rows = [_row(cells) for cells in zip(*columns, strict=True)]
    return "\n".join([
        r"% needs \usepackage{booktabs}",
        r"\begin{table}[tbp]",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{latex(caption)}}}",
        rf"\label{{{_label(label)}}}\par\smallskip",
        rf"\begin{{tabular}}{{@{{}}{''.join('l' if name in words else 'r' for name in headings)}@{{}}}}",
        r"\toprule",
        _row([_heading(name, list(text[name])) for name in headings]),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        *_below(note),
        r"\end{table}",
        "",
    ])  # fmt: skip


def _below(note: str) -> list[str]:
    return [rf"\par\smallskip\parbox{{\linewidth}}{{\raggedright {latex(note)}}}"] if note else []


def _row(cells: Sequence[str]) -> str:
    line = " & ".join(cells)
    return ("{}" if line.startswith(_BREAKS) else "") + line + r" \\"


def _label(text: str) -> str:
    return "tab:" + re.sub(r"[^A-Za-z0-9.:+-]+", "-", text).strip("-")


def _heading(heading: str, cells: Sequence[str]) -> str:
    """In several lines where it would make its column wider than its cells do."""
    widest = max(map(len, [*cells, *heading.split(" ")]))
    lines: list[str] = []
    for word in heading.split(" "):
        if lines and len(lines[-1]) + len(word) < widest:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    stacked = r" \\ ".join(map(latex, lines))
    return stacked if len(lines) == 1 else rf"\shortstack[r]{{{stacked}}}"


def _aligned(cells: Sequence[str]) -> list[str]:
    """Cells that differ in nothing but their numbers, with these padded to the same width."""
    split = [_NUMBER.sub("\0", cell).split("\0") for cell in cells]
    numbers: list[list[Number]] = [_NUMBER.findall(cell) for cell in cells]
    found = []
    for between, own in zip(split, numbers, strict=True):
        alike = [others for text, others in zip(split, numbers, strict=True) if text == between]
        padded = [
            _padded(number, [each[place] for each in alike], bool(between[0]) or place > 0)
            for place, number in enumerate(own)
        ]
        found.append(latex(between[0]) + "".join(n + latex(text) for n, text in zip(padded, between[1:], strict=True)))
    return found


def _padded(number: Number, others: Sequence[Number], is_after_text: bool) -> str:
    sign, whole, decimals = number
    longest = {place: max((other[place] for other in others), key=len) for place in range(3)}
    before = ("" if sign else longest[0]) + longest[1][: len(longest[1]) - len(whole)]
    after = longest[2][len(decimals) :]
    return _phantom(before if is_after_text else "") + latex(sign + whole + decimals) + _phantom(after)


def _phantom(text: str) -> str:
    """As wide as the text, and empty."""
    return rf"\phantom{{{latex(text)}}}" if text else ""
