"""Keeps the runs folder on the study's machine, for nodes that do not see it.

An actor of Ray's, on the study's node, claims trials for the processes of other nodes, and writes down what these send:
files first, then the lines of the journal that speak of them, then what is dropped. So the trial's folder is whole at
any instant, and a process that was taken for dead is refused by the claims themselves.

It holds nothing that is not on disk but the claims that it has made: each message says where it belongs, and one that
comes twice changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ablate.disk import sync
from ablate.track.claims import (
    BEAT,
    OVER,
    RECORD,
    Claim,
    Taken,
    attempt_folders,
    claim_trial,
    folder_of,
    journal_parts,
)
from ablate.track.journal import JOURNAL, LOG

OF_CLAIM = (RECORD, JOURNAL, BEAT, OVER)  # files of a claim that are no files of the trial's
DIGEST = re.compile(r".*-([0-9a-f]{64})\.pt")  # of a checkpoint's name
CHUNK_BYTES = 32 << 20


@dataclass(frozen=True)
class Holding:
    """A trial that a node may train.

    Attributes:
        number: of its claim.
        journals: what counts of those before, by number.
        files: what they left, by their names in the trial's folder.
    """

    trial: str
    number: int
    journals: tuple[bytes, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Gain:
    """What a claim has gained besides files.

    Attributes:
        lines: of the journal, from byte `journal_from` on; printed: of the log, from byte `log_from` on.
        beat: the newest sign of life.
        dropped: files, by their names in the trial's folder.
    """

    journal_from: int
    lines: bytes
    log_from: int
    printed: bytes
    beat: str
    dropped: tuple[str, ...]


class Keeper:
    """The actor."""

    def __init__(self) -> None:
        self._made: dict[str, Holding] = {}
        self._printed: dict[tuple[str, int], int] = {}  # bytes of a claim's log that have arrived

    def take(self, trial: str, launch: str, silent: int | None, asked: str) -> Holding | None:
        """Claim a trial; None: another process has it. `asked` tells a question that is asked again."""
        if asked not in self._made:
            try:
                claim = claim_trial(Path(trial), launch, silent)
            except Taken:
                return None
            (claim.trial / LOG).touch()
            parts = journal_parts(claim.trial)[: claim.number]
            self._made[asked] = Holding(trial, claim.number, tuple(parts), tuple(_files_before(claim)))
        return self._made[asked]

    def fetch(self, trial: str, name: str, offset: int) -> bytes:
        """The next bytes of a file; fewer than asked for at its end."""
        with (Path(trial) / name).open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK_BYTES)

    def missing(self, trial: str, number: int, names: list[str]) -> list[str]:
        """Of checkpoints those that have to be sent: the trial's folder holds none of the same bytes."""
        claim = _held(trial, number)
        return [name for name in names if not _is_there(claim, name)]

    def put(self, trial: str, number: int, name: str, sending: str, offset: int, data: bytes, is_last: bool) -> None:
        """Take the next bytes of a file; with the last ones it is there. `sending` tells two attempts apart."""
        claim = _held(trial, number)
        place = claim.folder / name
        scratch = place.with_name(f"{place.name}.tmp{sending}")
        scratch.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        if is_last:
            _refuse_damage(scratch, name)
            os.replace(scratch, place)
            sync(place.parent)

    def gain(self, trial: str, number: int, gain: Gain) -> None:
        """Write down what a claim has gained. Raises Taken."""
        claim = _held(trial, number)
        if gain.lines:
            _append_lines(claim.folder / JOURNAL, gain.journal_from, gain.lines)
        self._print(claim, gain)
        for name in gain.dropped:
            (claim.trial / name).unlink(missing_ok=True)
        if gain.beat:
            (claim.folder / BEAT).write_text(gain.beat, encoding="utf-8")
        claim.check()  # it may have been cut off just before

    def give_up(self, trial: str, number: int) -> None:
        """Let others have a trial."""
        claim = Claim(Path(trial), number, 0)
        for path in claim.folder.rglob("*.tmp*"):
            path.unlink(missing_ok=True)
        claim.give_up()

    def _print(self, claim: Claim, gain: Gain) -> None:
        arrived = self._printed.get((str(claim.trial), claim.number), gain.log_from)
        if new := gain.printed[arrived - gain.log_from :]:
            with (claim.trial / LOG).open("ab") as file:
                file.write(new)
            self._printed[str(claim.trial), claim.number] = arrived + len(new)


def _held(trial: str, number: int) -> Claim:
    """The claim of a message. Raises Taken where it is not the newest."""
    claim = Claim(Path(trial), number, 0)
    claim.check()
    return claim


def _files_before(claim: Claim) -> list[str]:
    """What the claims before left: what each says of itself, and all files of the last attempt."""
    earlier = [folder_of(claim.trial, number) for number in range(1, claim.number)]
    of_attempt = [folder for folder in attempt_folders(claim.trial) if folder in earlier]
    files = [path for folder in of_attempt for path in folder.rglob("*") if path.is_file()]
    left = [path for path in files if path.name not in OF_CLAIM and ".tmp" not in path.name]
    return [str(path.relative_to(claim.trial)) for path in (*(folder / RECORD for folder in earlier), *left)]


def _is_there(claim: Claim, name: str) -> bool:
    """Whether a checkpoint is there; the same bytes in another claim's folder get a second name here."""
    place = claim.folder / name
    digest = DIGEST.fullmatch(name)
    if place.exists() or digest is None:
        return place.exists()
    for same in claim.trial.glob(f"**/*-{digest[1]}.pt"):
        try:
            os.link(same, place)
        except OSError:
            continue
        sync(claim.folder)
        return True
    return False


def _refuse_damage(scratch: Path, name: str) -> None:
    digest = DIGEST.fullmatch(name)
    if digest is not None:
        with scratch.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest[1]:
                scratch.unlink()
                raise OSError(f"{name}: did not arrive whole")


def _append_lines(journal: Path, offset: int, lines: bytes) -> None:
    """Have these bytes at this place of a journal, however much of them has arrived before."""
    is_new = not journal.exists()
    with journal.open("ab") as file:
        assert file.tell() >= offset, "a node sends again what was not acknowledged"
        file.write(lines[file.tell() - offset :])
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync(journal.parent)
