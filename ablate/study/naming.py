"""A name belongs to one question: what a study is called where another question has its name already."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any

from ablate.knobs import deciding, show
from ablate.names import some
from ablate.study.cells import Cell, Study
from ablate.track.folder import Folder
from ablate.track.journal import Event
from ablate.track.units import how_many

_TOLD = 3  # differences in a sentence


@dataclass(frozen=True)
class Named:
    """A study under the name that it goes by, and what to tell of that ("": nothing)."""

    study: Study
    note: str


def named(study: Study, folder: Folder) -> Named:
    """Give a study a name that stands for its question: its own, or that with the first free number.

    The same question has the same name, with other levels, cells or seeds too, so that a study can grow. A name that
    was typed is kept: the report of what it stood for before is replaced, which the note says.
    """
    mine = question(study)
    names = _names(study.name)
    taken = next(names)
    first = folder.launch(taken)
    numbered = [name for name in folder.studies() if re.fullmatch(rf"{re.escape(taken)}-\d+", name)]
    known = [name for name in numbered if _asks(folder.launch(name), mine)]
    different = differences(first, mine)
    if first is None and known and not study.is_named:
        return Named(_called(study, known[0]), "")
    if not different:
        return Named(study, _left_out(first, study))
    assert first is not None
    asked = f"{'; '.join(different[:_TOLD])}; {first['command']}"
    if study.is_named:
        note = f"name={taken} stood for another question until now ({asked}); its report becomes that of the new one"
        return Named(study, note)
    free = next(name for name in chain(known, names) if not differences(folder.launch(name), mine))
    return Named(_called(study, free), f"called {free}, for {taken} is another question ({asked})")


def _called(study: Study, name: str) -> Study:
    return replace(study, launch=study.launch.model_copy(update={"name": name}))


def _asks(launch: Event | None, mine: Mapping[str, Any]) -> bool:
    """Whether a launch is on record with this very question."""
    return launch is not None and "question" in launch and not differences(launch, mine)


def _left_out(before: Event | None, study: Study) -> str:
    """What to tell where a study asks for less than it did before."""
    asked = {(cell.label, seed) for cell in study.cells for seed in cell.seeds}
    earlier = [(cell["label"], trial["seed"]) for cell in (before or {}).get("cells", ()) for trial in cell["trials"]]
    lost = [trial for trial in earlier if trial not in asked]
    if not lost:
        return ""
    cells = dict.fromkeys(label for label, _ in lost)
    shown = some([*cells], _TOLD)
    return (
        f"{study.name} had {how_many(len(lost), 'trial')} that this command does not ask for (of {shown}); "
        "its report is without them. They are kept until python -m ablate.track prune --delete; name=… keeps two "
        "studies apart"
    )


def _names(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in count(2))


def question(study: Study) -> Event:
    """What a study asks, as its launch records it: its factors, the knobs that all cells have, and each cell's own."""
    knobs = {cell.label: _knobs(cell) for cell in study.cells}
    first = next(iter(knobs.values()))
    fixed = {
        name: value
        for name, value in first.items()
        if all(name in own and own[name] == value for own in knobs.values())
    }
    return {
        "task": [study.task.name],
        "kinds": list(study.kinds),
        # What a design of components varies of itself is no part of the question: it may come to vary more.
        "factors": list(study.outside if study.components else study.cells[0].levels),
        "fixed": fixed,
        "cells": {
            label: {name: value for name, value in own.items() if name not in fixed} for label, own in knobs.items()
        },
    }


def _knobs(cell: Cell) -> dict[str, str]:
    # Of nested records too: they decide by a digest of their data, which is not known before a study is planned.
    decides = deciding(cell.config)
    return {name: show(value) for name, value in cell.record().items() if name in decides or "." in name}


def differences(launch: Event | None, mine: Mapping[str, Any]) -> list[str]:
    """How the question of a launch differs from another, in words; [] where it does not, or there was none."""
    theirs = {} if launch is None else launch.get("question", {})
    if not theirs:
        return []
    for what in ("task", "kinds", "factors"):
        if sorted(theirs[what]) != sorted(mine[what]):
            return [f"of {' and '.join(theirs[what]) or 'one cell'} there, {' and '.join(mine[what]) or 'one'} here"]
    fixed = _different(theirs["fixed"], mine["fixed"])
    cells = (
        change
        for label, own in mine["cells"].items()
        if label in theirs["cells"]
        for change in _different(theirs["fixed"] | theirs["cells"][label], mine["fixed"] | own)
    )
    return fixed or [*dict.fromkeys(cells)]


def _different(theirs: Mapping[str, str], mine: Mapping[str, str]) -> list[str]:
    both = ((name, theirs[name], value) for name, value in mine.items() if name in theirs)
    return [f"{name}={before} there, {now} here" for name, before, now in both if before != now]
