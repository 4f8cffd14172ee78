"""What differs between the cells of a study besides what it varied on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ablate.analyze.table import cells_of, show, started
from ablate.code import code_digest

Task = Mapping[str, Any]

# Knobs of a launch that were recorded with the trials: they have no bearing on a result.
_OF_THE_LAUNCH = {"name", "runs", "reports", "force", "seed", "seeds", "threads", "device"}
FACTS = ("data_digest", "code", "torch", "device", "threads", "precision")
_DIGESTS = ("code", "data_digest", "evaluated")
_WORTH_TELLING = 1.2  # train times that differ by less are noise of the machine


def code_in_common(trials: pd.DataFrame, sources: Sequence[Mapping[str, Mapping[str, str]]]) -> pd.Series[str]:
    """The column `code`, counting only files that tell nothing of which part a trial has.

    A file that some trials of a study have and others have not belongs to a part that a factor chooses, a layer of the
    user's own: a study fingerprints all of its trials by one state of the code. It counts where it is there in several
    versions.

    Args:
        sources: of each study: version of the code → its files, each with its SHA-256; a version that is not there
            stays as it is.
    """
    known = {*trials["code"].dropna()}
    studies = [[files for version, files in versions.items() if version in known] for versions in sources]
    found: dict[str, set[str]] = {}
    for files in (files for versions in studies for files in versions):
        for name, digest in files.items():
            found.setdefault(name, set()).add(digest)
    of_parts = {name for name, digests in found.items() if len(digests) == 1 and _is_chosen(name, studies)}
    if not of_parts:
        return trials["code"]
    counted = {
        version: code_digest({name: sha for name, sha in files.items() if name not in of_parts})
        for versions in sources
        for version, files in versions.items()
    }
    return trials["code"].replace(counted)


def _is_chosen(name: str, studies: Sequence[Sequence[Mapping[str, str]]]) -> bool:
    """Whether some trials of a study have a file, and others of the same study have not."""
    return any(0 < sum(name in files for files in versions) < len(versions) for versions in studies)


def confounds(task: Task, trials: pd.DataFrame) -> pd.DataFrame:
    """What differs between the cells: one row a knob, fact or `detail.<name>` with more than one value.

    The column `factor` says whether the study varied it on purpose; where it is False, the row is a confound. Every
    other column is a cell: all values that its trials have, NaN where they are not known yet.

    Args:
        task: as a launch records it. Its `presets` name parts that they set, its `follows` knobs that follow others,
            and its `idle` knobs that change no result; each may be left out.
    """
    # A cell that has not started has no settings on record yet.
    known = started(trials)
    cells = cells_of(known)
    on_purpose = set_by_presets(task, trials)
    rows: dict[str, dict[str, object]] = {}
    for column in _candidates(task, trials):
        values = values_of(known, column)
        if len({*values.values()}) > 1:
            name = column.removeprefix("knob.")
            rows[name] = {"factor": f"factor.{name}" in trials or column in on_purpose, **values}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["factor", *cells])


def confounds_between(task: Task, trials: pd.DataFrame, a: str, b: str) -> list[tuple[str, str, str]]:
    """What differs between two cells besides what the study varied on purpose.

    Returns:
        (what, value in a, value in b): every other knob, parameters, details, what was seen, the data, code, torch,
        device, threads and precision; `train_seconds` where they differ by more than 20 %. Empty where one of the two
        has not started.
    """
    return confounds_with(task, trials, confounds(task, trials), a, [b])[b]


def confounds_with(
    task: Task, trials: pd.DataFrame, differing: pd.DataFrame, base: str, cells: Sequence[str]
) -> dict[str, list[tuple[str, str, str]]]:
    """Cell → what differs between `base` and it, as `confounds_between` has it. `differing`: their `confounds`."""
    mine = differing.loc[~differing["factor"].astype(bool) & ~differing.index.isin(followers(task, trials))]
    values = {str(cell): mine[cell].to_dict() for cell in mine.columns.drop("factor")}
    known = started(trials)
    seconds = known["train_seconds"].astype(float).groupby(known["cell"]).mean().to_dict()
    found: dict[str, list[tuple[str, str, str]]] = {}
    for cell in cells:
        found[cell] = []
        if not {base, cell} <= values.keys():
            continue
        for name, value in values[base].items():
            other = values[cell][name]
            if value != other and isinstance(value, str) and isinstance(other, str):  # NaN: not known yet
                found[cell].append((str(name), value, other))
        both = [seconds[base], seconds[cell]]
        if max(both) > _WORTH_TELLING * min(both):
            found[cell].append(("train_seconds", str(both[0]), str(both[1])))
    return found


def set_by_presets(task: Task, trials: pd.DataFrame) -> set[str]:
    """Columns of knobs that a factor's presets set on purpose."""
    parts = {
        f"knob.{name}"
        for preset, names in task.get("presets", {}).items()
        if f"factor.{preset}" in trials
        for name in names
    }
    factors = [str(c).removeprefix("factor.") for c in trials.columns if str(c).startswith("factor.")]
    groups = tuple(f"knob.{name}." for name in factors)
    return parts | {str(c) for c in trials.columns if str(c).startswith(groups)} if groups else parts


def followers(task: Task, trials: pd.DataFrame) -> set[str]:
    """Knobs that took the value of a factor of their own accord."""
    return {
        follower
        for follower, leader in task.get("follows", {}).items()
        if {f"factor.{leader}", f"knob.{leader}", f"knob.{follower}"} <= set(trials.columns)
        and (trials[f"knob.{leader}"].map(show) == trials[f"knob.{follower}"].map(show)).all()
    }


def values_of(trials: pd.DataFrame, column: str) -> dict[str, str]:
    """Cell ↦ all values that its trials have, digests cut to what tells them apart; without cells that have none."""
    found: dict[str, dict[str, None]] = {}
    # What a trial has seen is known once it has finished.
    known = trials[trials[column].notna()] if column in ("seen", "parameters") else trials
    for cell, value in zip(known["cell"], known[column].map(show), strict=True):
        found.setdefault(str(cell), {})[value[:12] if column in _DIGESTS else value] = None
    return {cell: ", ".join(values) for cell, values in found.items()}


def _candidates(task: Task, trials: pd.DataFrame) -> list[str]:
    columns = [str(column) for column in trials.columns]
    idle = {*_OF_THE_LAUNCH, *task.get("presets", {}), *task.get("idle", ())}
    knobs = [c for c in columns if c.startswith("knob.") and c[5:] not in idle]
    details = [c for c in columns if c.startswith("detail.")]
    facts = ("parameters", *details, "seen", *FACTS)
    return [*knobs, *(c for c in facts if c in columns and f"knob.{c}" not in knobs)]
