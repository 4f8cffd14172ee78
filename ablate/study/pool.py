"""Packs → worker processes: who trains what, what is waited for, and what is written down for those that died."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, Self

from ablate.study.cells import Study
from ablate.study.launched import LaunchRecord
from ablate.study.plan import PlannedTrial, stands
from ablate.study.processes import WorkerProcess
from ablate.study.share import Share
from ablate.study.view import View
from ablate.study.worker import ALONE, BUSY, STANDS, assign
from ablate.study.workers import threads_of
from ablate.track.alive import Silence
from ablate.track.claims import Taken, TrialTail, claimed, holder, written_under
from ablate.track.journal import FINAL_EVENTS, LOG, last_attempt

_POLL_SECONDS = 0.2
_START_SECONDS = 60.0  # that a process may take until it has claimed its trials: it imports torch
_BUSY_SECONDS = 2.0  # between two looks at a trial that another study is training


@dataclass
class _Running:
    """A pack that is being trained."""

    worker: WorkerProcess
    planned: Sequence[PlannedTrial]
    tails: Sequence[TrialTail]
    silences: Sequence[Silence]


@dataclass
class _Waiting:
    """A pack that is to be trained; alone in it, a trial may be another study's for now."""

    planned: Sequence[PlannedTrial]
    silence: Silence | None = None
    silent: int | None = None
    looked: float = field(default_factory=time.monotonic)


class Pool:
    """Trains packs, `workers` at a time.

    Args:
        study: whose they are.
        workers: processes, where no other study has cores of this machine.
        launch: on whose behalf.
        view: told of everything as it happens.
    """

    def __init__(self, study: Study, workers: int, launch: LaunchRecord, view: View) -> None:
        self._study = study
        self._workers = workers
        self._threads = threads_of(study)
        self._launch = launch
        self._view = view
        self._idle: list[WorkerProcess] = []
        self._leaving: list[WorkerProcess] = []
        self._running: dict[Any, _Running] = {}  # by the worker's connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers; what they had under way goes on at the next launch."""
        for worker in (*self._idle, *self._leaving):
            worker.end()
        for running in self._running.values():
            running.worker.kill()
        for planned in (planned for running in self._running.values() for planned in running.planned):
            # Nothing depends on this line: it tells a reader why.
            self._write_end(planned, "interrupted", reason="stopped by the user")

    def run(self, packs: Sequence[Sequence[PlannedTrial]]) -> None:
        """Train all; a trial that another study is training is waited for, after all others."""
        with Share(packs, self._study, self._workers) as share:
            self._train(deque(_Waiting(planned) for planned in packs), share)

    def _train(self, waiting: deque[_Waiting], share: Share) -> None:
        while waiting or self._running:
            most = share.workers(len(waiting) + len(self._running))
            for _ in range(len(waiting)):
                if len(self._running) >= most:
                    break
                pack = waiting.popleft()
                if self._is_due(pack):
                    self._start(pack)
                else:
                    waiting.append(pack)
            ready = wait([*self._running], _POLL_SECONDS)
            for running in self._running.values():
                self._show(running)
            for connection in ready:
                waiting.extend(self._settle(self._running.pop(connection)))
            for running in self._silent():
                waiting.extend(self._end(running))

    def _is_due(self, pack: _Waiting) -> bool:
        """Whether it can be tried now: nobody else trains it, as far as can be seen from here."""
        if pack.silence is None:
            return True
        if time.monotonic() - pack.looked < _BUSY_SECONDS:
            return False
        pack.looked = time.monotonic()
        (planned,) = pack.planned
        found = holder(planned.folder)
        if found is None or found.is_over:
            return True
        if pack.silence.look() > self._study.launch.lease:
            pack.silent = found.number
            self._view.note(
                f"{planned.cell.label} seed {planned.trial.seed}: {found.process} has given no sign of life for "
                f"{self._study.launch.lease:g} s; its trial is taken over"
            )
            return True
        return False

    def _start(self, pack: _Waiting) -> None:
        tails = [TrialTail(each.folder) for each in pack.planned]
        for tail in tails:
            tail.read()  # what earlier launches wrote
        worker = self._worker()
        silences = [Silence(each.folder, _START_SECONDS) for each in pack.planned]
        self._running[worker.connection] = _Running(worker, pack.planned, tails, silences)
        worker.give([assign(each, self._study, self._launch, pack.silent) for each in pack.planned])

    def _worker(self) -> WorkerProcess:
        while self._idle:
            if (worker := self._idle.pop()).is_alive:
                return worker
            worker.kill()  # it has died since
        return WorkerProcess(self._threads)

    def _settle(self, running: _Running) -> list[_Waiting]:
        """How a pack ended; returns what is to be trained again, each alone."""
        try:
            results = running.worker.result()
        except Exception as error:  # it died; or before or after training, the trial's folder cannot be written
            running.worker.kill()
            return self._failed(running, str(error))
        self._put_back(running.worker)
        self._show(running)
        again = []
        for planned, result in zip(running.planned, results, strict=True):
            if result == BUSY:
                self._view.busy(planned)
                again.append(_Waiting([planned], Silence(planned.folder)))
            elif result == STANDS:
                self._view.skipped(planned)
            elif result == ALONE:
                again.append(_Waiting([planned]))
        return again

    def _put_back(self, worker: WorkerProcess) -> None:
        if self._study.task.leaves_no_trace:
            self._idle.append(worker)
        else:
            worker.leave()
            self._leaving.append(worker)

    def _silent(self) -> list[_Running]:
        """Packs whose process is stopped, or keeps Python's lock for itself."""
        lease = self._study.launch.lease
        seconds = [(running, [each.look() for each in running.silences]) for running in self._running.values()]
        return [running for running, of_each in seconds if min(of_each) > lease]

    def _end(self, running: _Running) -> list[_Waiting]:
        """End a process that gives no sign of life, and write down that it was."""
        lease = self._study.launch.lease
        del self._running[running.worker.connection]
        running.worker.kill()
        reason = f"its process gave no sign of life for {lease:g} s (lease={lease:g}) and was ended"
        return self._failed(running, reason)

    def _failed(self, running: _Running, reason: str) -> list[_Waiting]:
        """A death is written down here, for the dead cannot; of a pack nobody knows whose fault it was."""
        self._show(running)
        if len(running.planned) > 1:
            return [_Waiting([planned]) for planned in running.planned]
        (planned,) = running.planned
        if self._write_end(planned, "failed", reason=reason, log=str(planned.folder / LOG)):
            self._view.event(planned, {"event": "failed", "reason": reason})
            return []
        return [_Waiting([planned], Silence(planned.folder))]  # it has an end, or another study has it

    def _write_end(self, planned: PlannedTrial, event: str, **values: object) -> bool:
        """Write for a worker that is dead how its trial ended, unless that is known, or another study has it."""
        found = holder(planned.folder)
        own = found.number if found is not None and found.launch == self._launch.id else None
        with contextlib.suppress(OSError, Taken), claimed(planned.folder, self._launch.id, own) as claim:
            has_ended = own is not None and any(e["event"] in FINAL_EVENTS for e in written_under(planned.folder, own))
            if has_ended or stands(last_attempt(claim.events()), self._launch.results_of):
                return False
            claim.append(event, **values)
            return True
        return found is None or own is not None  # the disk is full: it is told on the terminal alone

    def _show(self, running: _Running) -> None:
        for planned, tail in zip(running.planned, running.tails, strict=True):
            for event in tail.read():
                self._view.event(planned, event)
