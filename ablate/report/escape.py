"""Text that stays text: in a Markdown table, in LaTeX, and in a spreadsheet."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pandas as pd


def markdown(shown: pd.DataFrame, words: Sequence[str] = ()) -> str:
    """A GitHub table; `|` and what would be markup in a name stay inert. `words`: columns that are set flush left."""
    headings, *rows = ([_no_markup(str(cell)) for cell in line] for line in (shown.columns, *shown.to_numpy()))
    lines = [headings, ["---" if name in words else "---:" for name in shown.columns], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def markdown_line(text: str) -> str:
    """A paragraph in one line, in which nothing is markup."""
    return re.sub(r"^(\d*)(?=[-+=.)])", r"\1\\", _no_markup(text))  # it would begin a list, or underline a heading


def _no_markup(text: str) -> str:
    return re.sub(r"[\\|`*_{}\[\]<>$#&~]", r"\\\g<0>", " ".join(text.splitlines()).strip())


# What LaTeX reads as more than a letter, or would print as another one.
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\symbol{34}", "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}", "−": "$-$", "→": r"$\to$", "≤": r"$\le$", "≥": r"$\ge$", "≠": r"$\ne$",
    "×": r"$\times$", "±": r"$\pm$", "²": "$^2$", "χ": r"$\chi$", "\N{NO-BREAK SPACE}": "~",
}  # fmt: skip
_LATEX |= {symbol: f"\\{symbol}" for symbol in "&%$#_{}"}
_OGONEK = "\N{COMBINING OGONEK}"  # an accent that pdflatex's first encoding lacks
_LETTERS = "–—‘’“”…·ªºµßÆæŒœØøŁłıĲĳ"  # besides ASCII's, and these with an accent


def latex(text: str) -> str:
    """Text as LaTeX prints it; letters that pdflatex has no glyph for are written as their code, [U+65E5]."""
    inert = "".join(_LATEX.get(character) or _in_latex(character) for character in text)
    return re.sub("-(?=-)", "-{}", inert).replace(r" \%", r"\,\%")  # two hyphens would be a dash


def _in_latex(character: str) -> str:
    if character in _LETTERS:
        return character
    if character.isascii():
        return character if character.isprintable() else " "
    parts = unicodedata.normalize("NFD", character)
    known = ord(character) < 0x180 and parts[0].isascii() and parts[0].isalpha() and _OGONEK not in parts
    return character if known else f"[U+{ord(character):04X}]"


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
