"""How a user wants the files of the tables: where, under which labels, with which columns and decimals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ablate.knobs import KnobError
from ablate.registry import suggest


@dataclass(frozen=True)
class Files:
    """How the files of a report's tables are written, for a paper.

    Attributes:
        label: what the LaTeX labels of its tables begin with.
        columns: of the comparison in Markdown and LaTeX, as `named_columns` knows them; None: what there is room for.
        digits: decimals of values and differences in Markdown and LaTeX; None: as many as are worth printing.
    """

    folder: Path
    label: str
    columns: Sequence[str] | None = None
    digits: int | None = None


def named_columns(text: pd.DataFrame) -> dict[str, str]:
    """What a user calls the columns of a table → their headings: by the first word, or all where that is taken."""
    names: dict[str, str] = {}
    for heading in map(str, text.columns):
        first = heading.split(" ")[0]
        names[heading if first in names else first] = heading
    return names


def chosen_columns(text: pd.DataFrame, asked: Sequence[str]) -> list[str]:
    """The headings of the columns that are asked for, by a name or the whole heading.

    Raises:
        KnobError: for one that there is not, or that is named twice.
    """
    names = named_columns(text)
    headings = {heading: heading for heading in names.values()} | names
    for name in asked:
        if name not in headings:
            raise KnobError(f"--columns: no column {name!r}{suggest(name, names)}; there are {','.join(names)}")
    found = [headings[name] for name in asked]
    if twice := [name for name in asked if found.count(headings[name]) > 1]:
        raise KnobError(f"--columns: {twice[0]!r} is named twice; name each column once")
    return found
