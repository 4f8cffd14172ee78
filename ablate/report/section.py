"""A section of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ablate.report.figures.style import Drawn


@dataclass(frozen=True)
class Table:
    """A table as HTML, its headings as text, and a note on how to read it."""

    html: Markup
    headings: Sequence[str]
    note: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it.

    Attributes:
        says: paragraphs; warns: what to know before believing them.
        tables: those made of numbers; figures: drawn ones.
        headings, rows: a table of words.
        samples: (title, text) pairs that are set as written.
    """

    id: str
    title: str
    says: Sequence[str] = ()
    warns: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Drawn] = ()
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    samples: Sequence[tuple[str, str]] = ()

    def __bool__(self) -> bool:
        return any((self.says, self.warns, self.tables, self.figures, self.rows, self.samples))
