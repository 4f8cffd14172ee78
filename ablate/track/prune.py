"""What lies in a runs folder and is needed by nothing any more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablate.track.claims import Taken, claimed, finished_in, holder, read_trial
from ablate.track.folder import Folder
from ablate.track.journal import last_attempt, status

_FOR_GOING_ON = ("*.tmp*", "state-*.pt")
_OF_A_RESULT = ("best-*.pt", "last-*.pt", "*.npy", "files")


@dataclass(frozen=True)
class Unneeded:
    """Something that can be deleted.

    Attributes:
        trial: the folder of the trial that it belongs to.
        paths: files and folders; the trial's own where nothing of it is needed.
    """

    trial: Path
    paths: Sequence[Path]
    why: str

    def delete(self) -> None:
        """Delete it. Raises Taken where a process has the trial."""
        with claimed(self.trial, "prune"):
            for path in self.paths:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def unneeded(folder: Folder) -> Iterator[Unneeded]:
    """What could be deleted of every trial that no process has.

    The newest launch of every study needs the journals of its trials, the best and last weights of those that are
    finished, and all that was saved of those that are not.
    """
    needed = {
        folder.trial(trial["fingerprint"])
        for study in folder.studies()
        if (launch := folder.launch(study)) is not None
        for cell in launch["cells"]
        for trial in cell["trials"]
    }
    for trial in sorted((folder.root / "trials").glob("*")):
        found = holder(trial)
        if not trial.is_dir() or (found is not None and not found.is_over):
            continue
        if trial not in needed:
            yield Unneeded(trial, [trial], "the newest launch of no study asks for it")
        elif status(last_attempt(read_trial(trial))) in ("FINISHED", "DIVERGED") and (left := list(_left_over(trial))):
            yield Unneeded(trial, left, "it is finished, and this was for going on with it")


def _left_over(trial: Path) -> Iterator[Path]:
    """Of a finished trial: the states, what earlier processes have saved, and what a killed one was writing."""
    finished = finished_in(trial)
    yield from trial.glob(".claim-*")
    for folder in (trial, *trial.glob("claim-*")):
        for pattern in _FOR_GOING_ON if folder == finished else (*_FOR_GOING_ON, *_OF_A_RESULT):
            yield from folder.glob(pattern)


def size_of(paths: Sequence[Path]) -> int:
    """Bytes on disk, of folders with all that is in them; a file of two names once."""
    files = [path for each in paths for path in ([*each.rglob("*")] if each.is_dir() else [each])]
    found = {(stat.st_dev, stat.st_ino): stat.st_blocks * 512 for path in files if (stat := _stat(path)) is not None}
    return sum(found.values())


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def delete(found: Sequence[Unneeded]) -> list[Unneeded]:
    """Delete all that no process has meanwhile; what was deleted."""
    deleted = []
    for each in found:
        try:
            each.delete()
        except Taken:
            continue
        deleted.append(each)
    return deleted
