"""What cells are called: among several studies, and by the display names that a user gave them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ablate.knobs import KnobError, show
from ablate.names import some
from ablate.registry import suggest

if TYPE_CHECKING:
    import pandas as pd

    from ablate.track.read import Results

_LISTED = 20


def display_names(cells: Sequence[str], labels: Mapping[str, str], typed: str) -> dict[str, str]:
    """Every cell → the name that it is shown by.

    Args:
        labels: cell → display name, for some of them.
        typed: the option that they come from, for messages.

    Raises:
        KnobError: for a cell that there is not, a name that is none, and a name that two cells would have.
    """
    for cell, name in labels.items():
        if cell not in cells:
            raise KnobError(f"{typed}: no cell {cell!r}{suggest(cell, cells)}; there are {some(cells, _LISTED)}")
        if not name.strip() or not name.isprintable():
            raise KnobError(f"{typed}: {cell!r} as {name!r}: must be a name in one line, for example Our model")
    shown = {cell: labels.get(cell, cell) for cell in cells}
    name, count = Counter(shown.values()).most_common(1)[0]
    if count > 1:
        two = ", ".join(repr(cell) for cell in cells if shown[cell] == name)
        raise KnobError(f"{typed}: {name!r} would be the name of {two}; give each a name of its own")
    return shown


def renamed(results: Results, labels: Mapping[str, str], typed: str) -> Results:
    """The results with these display names, wherever a cell is named.

    Args:
        labels: cell → display name; a cell is known by the name that it has, and by the one that it had before.

    Raises:
        KnobError: as `display_names`.
    """
    if not labels:
        return results
    cells = [str(cell) for cell in results.trials["cell"].unique()]
    asked = {cell if cell in cells else results.labels.get(cell, cell): name for cell, name in labels.items()}
    shown = display_names(cells, asked, typed)
    before = {name: label for label, name in results.labels.items()}
    return replace(
        results,
        trials=_with_names(results.trials, shown),
        curves=_with_names(results.curves, shown),
        blocks=_with_names(results.blocks, shown),
        samples={shown[cell]: text for cell, text in results.samples.items()},
        stopping=_stopping(results.stopping, shown),
        same=[(study, cell, shown[here]) for study, cell, here in results.same],
        labels={before.get(cell, cell): name for cell, name in shown.items() if cell in before or cell != name},
    )


def _with_names(table: pd.DataFrame, shown: Mapping[str, str]) -> pd.DataFrame:
    return table.assign(cell=table["cell"].map(shown).astype(table["cell"].dtype))


def _stopping(stopping: Mapping[str, Any] | None, shown: Mapping[str, str]) -> Mapping[str, Any] | None:
    """The last look names cells where these are what is compared."""
    if stopping is None or not (look := stopping.get("look")):
        return stopping
    names = {which: [shown.get(name, name) for name in look[which]] for which in ("decided", "undecided")}
    return {**stopping, "look": {**look, **names}}


def labels_among(parts: Sequence[Results]) -> list[dict[str, str]]:
    """Cell → its label among all cells, for each study."""
    found = []
    # What earlier studies have: fingerprint or configuration → label.
    known: dict[str, str] = {}
    for part in parts:
        labels, own = {}, {}
        for cell, trials in part.trials.groupby("cell", sort=False):
            identities = [*trials["fingerprint"], *_configuration(trials, part.task["decides"])]
            same = next((known[identity] for identity in identities if identity in known), None)
            apart = f"{cell} ({part.name})" if cell in known.values() else str(cell)
            labels[str(cell)] = apart if same is None else same
            own.update(dict.fromkeys(identities, labels[str(cell)]))
        known = {**own, **known}
        found.append(labels)
    return found


def _configuration(trials: pd.DataFrame, decides: Sequence[str]) -> list[str]:
    """What a fingerprint is made of besides the seed, in a line; none while no trial of the cell was started."""
    started = trials[trials["data"].notna()]
    if started.empty:
        return []
    record = started.iloc[0]
    names = [*(f"knob.{name}" for name in decides if f"knob.{name}" in trials), "data_digest", "code"]
    shown = {name: show(record.get(name)) for name in names}
    # Studies differ in which knobs they have a column for.
    return [" ".join(f"{name}={shown[name]}" for name in sorted(shown) if shown[name] != "null")]
