"""Claims: which process may train a trial, and which lines of its journal count.

A process that trains a trial has claimed it: it has made `claim-N` in the trial's folder, N one more than that of the
claim before, and writes nowhere else. Of two that try at once one succeeds, because the folder comes into being whole,
under its name, by one rename. The claim says how many bytes of the journal before it count: a process that was taken
for dead and wakes up again writes what nobody reads. So a mistake about who is alive costs computing time, and never a
result; and no clock decides anything, for they differ between machines and can be set back.

    trials/<fingerprint>/claim-0001/claim.json, journal.jsonl, beat, checkpoints …
                         claim-0002/…
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ablate.disk import sync
from ablate.knobs import KnobError
from ablate.track.journal import JOURNAL, SCHEMA, Event, Journal, parse_events, refuse_newer, whole_lines
from ablate.track.process import is_dead, this_process

RECORD, BEAT, OVER = "claim.json", "beat", "over"
_NAME = re.compile(r"claim-(\d{4,})")


class Taken(Exception):
    """Another process has the trial."""


@dataclass(frozen=True)
class Claim:
    """A claim of this process.

    Attributes:
        trial: the folder of the trial.
        number: 1 for the first claim of a trial.
        before: bytes of the journal that were written under earlier claims.
    """

    trial: Path
    number: int
    before: int

    @property
    def folder(self) -> Path:
        """Where everything is written that comes of it."""
        return folder_of(self.trial, self.number)

    def check(self) -> None:
        """Raise Taken when another process has claimed the trial since."""
        if folder_of(self.trial, self.number + 1).exists():
            raise Taken(f"{self.trial.name} was taken over by another process, which gave this one up for dead")

    def append(self, event: str, /, **values: object) -> int:
        """Write an event of the trial; returns the length of its whole journal. Raises Taken."""
        self.check()
        length = self.before + Journal(self.folder / JOURNAL).append(event, **values)
        self.check()  # it may have been cut off just before
        return length

    def events(self) -> list[Event]:
        """What the journal holds."""
        return read_trial(self.trial)

    def beat(self, count: int) -> None:
        """Give a sign of life."""
        (self.folder / BEAT).write_text(str(count), encoding="utf-8")

    def give_up(self) -> None:
        """Let others have the trial."""
        with suppress(OSError):  # they see that this process is dead, or silent
            (self.folder / OVER).touch()


@dataclass(frozen=True)
class Holder:
    """The newest claim of a trial, whoever made it.

    Attributes:
        launch: of the study that it was made for.
        is_over: whether it was given up, or its process is known to be dead.
    """

    number: int
    process: str
    launch: str
    is_over: bool


def holder(trial: Path) -> Holder | None:
    """Who claimed a trial last; None where nobody has."""
    number = newest_claim(trial)
    if number == 0:
        return None
    record = _record(trial, number)
    is_over = (folder_of(trial, number) / OVER).exists() or is_dead(record["process"]) is True
    return Holder(number, record["process"], record["launch"], is_over)


@contextmanager
def claimed(trial: Path, launch: str, silent: int | None = None) -> Iterator[Claim]:
    """Claim a trial as `claim_trial` does, and let others have it at the end."""
    claim = claim_trial(trial, launch, silent)
    try:
        yield claim
    finally:
        claim.give_up()


def claim_trial(trial: Path, launch: str, silent: int | None = None) -> Claim:
    """Claim a trial, until `give_up`.

    Args:
        trial: its folder, which is made where there is none.
        launch: of the study that asks.
        silent: the number of a claim that counts as over, because it gave no sign of life.

    Raises:
        Taken: another process has it.
    """
    found = holder(trial)
    if found is not None and not found.is_over and found.number != silent:
        raise Taken(f"{trial.name} is claimed by {found.process}")
    return _claim(trial, launch, 0 if found is None else found.number)


def _claim(trial: Path, launch: str, last: int) -> Claim:
    is_new = not trial.exists()
    trial.mkdir(parents=True, exist_ok=True)
    if is_new:
        sync(trial.parent)
    cuts = [len(part) for part in _parts(trial, last)]
    scratch = trial / f".claim-{uuid.uuid4().hex}"
    scratch.mkdir()
    try:
        record = {"schema": SCHEMA, "process": this_process(), "launch": launch, "cut": cuts[-1] if cuts else 0}
        with (scratch / RECORD).open("w", encoding="utf-8") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        # A folder that is not empty is never replaced: who comes second fails.
        os.rename(scratch, folder_of(trial, last + 1))
    except OSError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if folder_of(trial, last + 1).exists():
            raise Taken(f"{trial.name} was claimed by another process at the same time") from error
        raise
    sync(trial)
    return Claim(trial, last + 1, sum(cuts))


def read_bytes(trial: Path) -> bytes:
    """The whole lines of a trial's journal that count."""
    return b"".join(_parts(trial, newest_claim(trial)))


def journal_parts(trial: Path) -> list[bytes]:
    """What counts of each claim's journal, by the claim's number; before there were claims, one had number 0."""
    return _parts(trial, newest_claim(trial))


def read_trial(trial: Path) -> list[Event]:
    """The events of a trial."""
    return parse_events(read_bytes(trial))


def written_under(trial: Path, number: int) -> list[Event]:
    """The events that one claim's process has written."""
    return parse_events(_part(trial, number, newest_claim(trial)))


def attempt_folders(trial: Path) -> list[Path]:
    """Where what was trained since the trial was last started anew lies, the newest first."""
    newest = newest_claim(trial)
    began = next((number for number in range(newest, 0, -1) if _has(trial, number, "started")), 0)
    return [folder_of(trial, number) for number in range(newest, began - 1, -1)]


def finished_in(trial: Path) -> Path | None:
    """Where the process that finished a trial last has written; None: none has."""
    numbers = range(newest_claim(trial), -1, -1)
    return next((folder_of(trial, number) for number in numbers if _has(trial, number, "finished")), None)


def _has(trial: Path, number: int, event: str) -> bool:
    return any(each["event"] == event for each in written_under(trial, number))


def earlier_folders(claim: Claim) -> list[Path]:
    """Where earlier claims of its trial have written."""
    return [folder_of(claim.trial, number) for number in range(claim.number)]


class TrialTail:
    """Reads a trial's journal as it grows, from one claim into the next."""

    def __init__(self, trial: Path) -> None:
        self.trial = trial
        self.rewind()

    def rewind(self) -> None:
        """Read all of it again."""
        self._number = self._offset = 0  # the claim and the byte up to which it was read

    def read(self) -> list[Event]:
        """The whole events since the last reading."""
        events: list[Event] = []
        newest = newest_claim(self.trial)
        for number in range(self._number, newest + 1):
            if number > self._number:
                self._number, self._offset = number, 0
            new = _part(self.trial, number, newest, self._offset)
            events += parse_events(new)
            self._offset += len(new)
        return events


def _parts(trial: Path, newest: int) -> list[bytes]:
    """The journal of each claim, up to where the next one has cut it; what comes after `newest` does not count."""
    return [_part(trial, number, newest) for number in range(newest + 1)]


def _part(trial: Path, number: int, newest: int, offset: int = 0) -> bytes:
    """The whole lines of a claim's journal that count, from byte `offset` on."""
    end = _record(trial, number + 1)["cut"] if number < newest else None
    try:
        with (folder_of(trial, number) / JOURNAL).open("rb") as file:
            file.seek(offset)
            lines = file.read() if end is None else file.read(max(0, end - offset))
    except FileNotFoundError:
        return b""
    return whole_lines(lines)


def folder_of(trial: Path, number: int) -> Path:
    """Number 0: before there were claims, a journal lay in the trial's own folder."""
    return trial / f"claim-{number:04d}" if number else trial


def newest_claim(trial: Path) -> int:
    """The number of the newest claim; 0: there is none."""
    try:
        names = os.listdir(trial)
    except FileNotFoundError:
        return 0
    return max((int(match[1]) for name in names if (match := _NAME.fullmatch(name)) is not None), default=0)


def _record(trial: Path, number: int) -> Event:
    path = folder_of(trial, number) / RECORD
    try:
        record: Event = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise KnobError(f"{path}: is damaged; delete {trial}, and its trial is trained again") from error
    refuse_newer(record)
    return record
