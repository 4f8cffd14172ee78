"""Text that stays text: in a Markdown table, in LaTeX, and in a spreadsheet."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pandas as pd


def markdown(shown: pd.DataFrame) -> str:
    """A GitHub table; `|` and what would be markup in a name stay inert."""
    headings, *rows = ([_no_markup(str(cell)) for cell in line] for line in (shown.columns, *shown.to_numpy()))
    lines = [headings, ["---"] + ["---:"] * (len(headings) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def markdown_line(text: str) -> str:
    """A paragraph in one line, in which nothing is markup."""
    return re.sub(r"^(\d*)(?=[-+=.)])", r"\1\\", _no_markup(text))  # it would begin a list, or underline a heading


def _no_markup(text: str) -> str:
    return re.sub(r"[\\|`*_{}\[\]<>$#&~]", r"\\\g<0>", " ".join(text.splitlines()).strip())


# What pdflatex has no letter for, in words that it has.
_LATIN = {"−": "-", "→": "to", "≤": "at most", "≥": "at least", "≠": "is not", "×": "x", "\N{NO-BREAK SPACE}": " "}


def plain_latin(text: str) -> str:
    """Text that pdflatex can print: letters it has no glyph for are written as their code, for example [U+65E5]."""
    for symbol, words in _LATIN.items():
        text = text.replace(symbol, words)
    return "".join(_in_latin(character) for character in text)


def _in_latin(character: str) -> str:
    if character in "–—‘’“”…±·":
        return character
    if character.isascii():
        return character if character.isprintable() else " "
    if unicodedata.category(character).startswith("L") and ord(character) < 0x180:
        return character
    return f"[U+{ord(character):04X}]"


def latex_rows(table: str) -> str:
    """The rows of a LaTeX table: one that begins with [ or * is no argument of the line break before it."""
    return re.sub(r"(\\\\\s*\n)(?=\s*[\[*])", r"\1{}", table)


_FORMULA = tuple("=+-@\t\n＝＋－＠")  # https://owasp.org/www-community/attacks/CSV_Injection
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table that a spreadsheet may open: a text that it would take for a formula begins with a "'"."""
    words = table.select_dtypes(exclude=["number", "bool"])
    inert = {str(name): column.map(_no_formula, na_action="ignore") for name, column in words.items()}
    table.assign(**inert).rename(columns=_no_formula).to_csv(path, index=False)


def _no_formula(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = re.sub(r"\r\n?", "\n", value)  # a line that ends in \r alone would end the row
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
