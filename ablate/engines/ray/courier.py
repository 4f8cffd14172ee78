"""A node's side of the keeper: a pack trains in a folder of the node's own, and what it gains is sent as it comes."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from ablate.engines.assignment import ALONE, BUSY, Assignment
from ablate.engines.ray.keeper import CHUNK_BYTES, DIGEST, OF_CLAIM, Gain, Holding
from ablate.engines.ray.node import End, Place, train_in_child
from ablate.track.claims import BEAT, Taken, folder_of
from ablate.track.journal import JOURNAL, LOG, whole_lines

_SEND_SECONDS = 1.0  # between two messages
_ANSWER_SECONDS = 60.0  # in which the keeper has answered one
_AGAIN_SECONDS = 1.0  # before one is sent again

Signature = tuple[int, int]  # size and time of a file


def train_apart(pack: Sequence[Assignment], place: Place) -> End:
    """Train a pack in a folder of this node; what it gains goes to the keeper at once."""
    with _scratch_folder() as scratch:
        couriers: dict[str, Courier] = {}
        for each in sorted(pack, key=lambda each: each.fingerprint):  # as `train` claims them
            if (courier := _take(each, place, scratch)) is not None:
                couriers[each.fingerprint] = courier
        held = [couriers[each.fingerprint].assignment for each in pack if each.fingerprint in couriers]
        end = _train(held, place, list(couriers.values())) if held else End()
        ended = dict(zip([each.fingerprint for each in held], end.results, strict=False))
        return replace(end, results=[ended.get(each.fingerprint, BUSY) for each in pack])


def _train(held: Sequence[Assignment], place: Place, couriers: Sequence[Courier]) -> End:
    def send() -> None:
        for courier in couriers:
            courier.send_if_due()

    try:
        end = train_in_child(held, place, send)
        for courier in couriers:
            courier.send()
            courier.give_up()
    except Taken:  # another process has a trial, or this node was given up for dead
        return End([BUSY if len(held) == 1 else ALONE] * len(held))
    except OSError as error:  # the disk of the study's machine is full
        return End(raised=f"{type(error).__name__}: {error}".splitlines()[0])
    return end


def _take(each: Assignment, place: Place, scratch: Path) -> Courier | None:
    """Claim a trial and bring what there is of it; None: another process has it."""
    asked = uuid.uuid4().hex
    holding = _ask(each.lease, place.keeper.take, str(each.folder), each.launch, each.silent, asked)
    if holding is None:
        return None
    courier = Courier(place.keeper, each, holding, scratch)
    courier.bring()
    return courier


class Courier:
    """Brings one trial to this node, and sends what it gains.

    Args:
        scratch: a folder of this node's.
    """

    def __init__(self, keeper: Any, each: Assignment, holding: Holding, scratch: Path) -> None:
        self._keeper = keeper
        self._holding = holding
        self._lease = each.lease
        self._trial = scratch / each.folder.name
        self._claim = folder_of(self._trial, holding.number)
        self.assignment = replace(
            each, folder=self._trial, silent=holding.number - 1 or None, log=each.log or each.folder / LOG
        )
        self._sent: dict[str, Signature] = {}  # files of the claim, by their names in its folder
        self._brought: set[str] = set()  # files of earlier claims, by their names in the trial's
        self._journal = self._log = 0  # bytes that have arrived
        self._beat = ""
        self._next = 0.0

    def bring(self) -> None:
        """Fetch what earlier processes left, so that the claim here gets the same number and cuts at the same byte."""
        self._trial.mkdir(parents=True)
        for number, lines in enumerate(self._holding.journals):
            folder = folder_of(self._trial, number)
            folder.mkdir(exist_ok=True)
            if lines:
                (folder / JOURNAL).write_bytes(lines)
        for name in self._holding.files:
            self._fetch(name)
            self._brought.add(name)

    def _fetch(self, name: str) -> None:
        path = self._trial / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while True:
                data = _ask(self._lease, self._keeper.fetch, self._holding.trial, name, file.tell())
                file.write(data)
                if len(data) < CHUNK_BYTES:
                    return

    def send_if_due(self) -> None:
        """Send once a second; while the keeper does not answer, training goes on for as long as the lease."""
        if time.monotonic() >= self._next:
            self.send()
            self._next = time.monotonic() + _SEND_SECONDS

    def send(self) -> None:
        """Send what is new: files, then the lines that speak of them, then what was dropped. Raises Taken."""
        if not self._claim.is_dir():
            return  # the process is just starting
        lines = whole_lines(_read_from(self._claim / JOURNAL, self._journal))
        printed = _read_from(self._trial / LOG, self._log)
        files = _files_of(self._claim)  # after the lines: what they speak of is among them
        self._send_files({name: sign for name, sign in files.items() if self._sent.get(name) != sign})
        gone = [f"{self._claim.name}/{name}" for name in self._sent if name not in files]
        gone += [name for name in self._brought if not (self._trial / name).exists()]
        beat = _read_from(self._claim / BEAT, 0).decode()
        if lines or printed or gone or beat != self._beat:
            gain = Gain(self._journal, lines, self._log, printed, beat, tuple(gone))
            self._tell(self._keeper.gain, gain)
        self._journal += len(lines)
        self._log += len(printed)
        self._beat = beat
        self._sent = {name: sign for name, sign in self._sent.items() if name in files}
        self._brought = {name for name in self._brought if name not in gone}

    def give_up(self) -> None:
        """Let others have the trial."""
        self._tell(self._keeper.give_up)

    def _send_files(self, new: Mapping[str, Signature]) -> None:
        checkpoints = [name for name in new if DIGEST.fullmatch(name)]
        missing = {*self._tell(self._keeper.missing, checkpoints)} if checkpoints else set()
        for name, signature in new.items():
            if name not in checkpoints or name in missing:
                try:
                    self._send_file(name)
                except FileNotFoundError:
                    continue  # dropped meanwhile, for a newer one
            self._sent[name] = signature

    def _send_file(self, name: str) -> None:
        sending = uuid.uuid4().hex
        with (self._claim / name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            offset = 0
            while True:
                data = file.read(CHUNK_BYTES)
                is_last = not data or offset + len(data) >= size
                self._tell(self._keeper.put, name, sending, offset, data, is_last)
                offset += len(data)
                if is_last:
                    return

    def _tell(self, method: Any, *message: Any) -> Any:
        return _ask(self._lease, method, self._holding.trial, self._holding.number, *message)


def _ask(seconds: float, method: Any, *message: Any) -> Any:
    """What the keeper answers; asked again for so long where its connection is cut, for a message may come twice."""
    import ray

    deadline = time.monotonic() + seconds
    while True:
        try:
            return ray.get(method.remote(*message), timeout=_ANSWER_SECONDS)
        except (ray.exceptions.ActorUnavailableError, ray.exceptions.GetTimeoutError):
            if time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_SECONDS)


def _files_of(claim: Path) -> dict[str, Signature]:
    """The files of a claim's folder that are whole."""
    found = {}
    for path in claim.rglob("*"):
        if (path.parent == claim and path.name in OF_CLAIM) or ".tmp" in path.name:
            continue
        try:
            known = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file():
            found[str(path.relative_to(claim))] = (known.st_size, known.st_mtime_ns)
    return found


def _read_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        return b""


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """A folder of this process, gone at the end; those of processes that were killed go with it."""
    place = Path(tempfile.gettempdir()) / f"ablate-ray-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    for left in place.iterdir():
        pid = left.name.partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
