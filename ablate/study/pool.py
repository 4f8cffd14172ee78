"""Packs → worker processes, each alone in one: what kills a trial leaves the others alone."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from types import TracebackType
from typing import Self

from pebble import ProcessExpired, ProcessPool

from ablate.study.cells import Study
from ablate.study.plan import PlannedTrial
from ablate.study.server import CONTEXT
from ablate.study.share import Share
from ablate.study.view import View
from ablate.study.worker import ALONE, BUSY, STANDS, assign, start_worker, train
from ablate.study.workers import threads_of
from ablate.track.journal import JOURNAL, LOG, Journal, Tail

_POLL_SECONDS = 0.2
_BUSY_SECONDS = 2.0  # between two looks at a trial that another study is training


_Pack = list[tuple[PlannedTrial, Tail]]


class Pool:
    """Trains packs, `workers` at a time.

    Args:
        study: whose they are.
        workers: processes, where no other study has cores of this machine.
        command: what the user typed, for the record.
        view: told of everything as it happens.
    """

    def __init__(self, study: Study, workers: int, command: str, view: View) -> None:
        self._study = study
        threads = threads_of(study)
        self._workers = workers
        self._command = command
        self._view = view
        most = 0 if study.task.leaves_no_trace else 1  # tasks of a process; 0: no limit
        self._pool = ProcessPool(workers, most, context=CONTEXT, initializer=start_worker, initargs=(threads,))
        self._running: dict[Future[list[str]], _Pack] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the workers; what they had under way goes on at the next launch."""
        if kind is None:
            self._pool.close()  # type: ignore[no-untyped-call]
        else:
            self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()
        for planned in (planned for pack in self._running.values() for planned, _ in pack):
            # The worker is dead, so this process may write. Nothing depends on this line: it tells a reader why.
            with contextlib.suppress(OSError):
                Journal(planned.folder / JOURNAL).append("interrupted", reason="stopped by the user")

    def run(self, packs: Sequence[Sequence[PlannedTrial]]) -> None:
        """Train all; a trial that another study is training is waited for, after all others."""
        with Share(packs, self._study, self._workers) as share:
            self._train(deque(packs), share)

    def _train(self, waiting: deque[Sequence[PlannedTrial]], share: Share) -> None:
        not_before = 0.0
        while waiting or self._running:
            most = share.workers(len(waiting) + len(self._running))
            while waiting and len(self._running) < most and time.monotonic() >= not_before:
                planned = waiting.popleft()
                assigned = [assign(each, self._study, self._command) for each in planned]
                pack = [(each, Tail(each.folder / JOURNAL)) for each in planned]
                for _, tail in pack:
                    tail.read()  # what earlier launches wrote
                self._running[self._pool.schedule(train, args=[assigned])] = pack
            if not self._running:
                time.sleep(_POLL_SECONDS)
                continue
            finished, _ = wait(self._running, _POLL_SECONDS, FIRST_COMPLETED)
            for pack in self._running.values():
                self._show(pack)
            for future in finished:
                again = self._settle(future, self._running.pop(future))
                waiting.extend([planned] for planned in again)
                if again:
                    not_before = time.monotonic() + (_BUSY_SECONDS if self._all_busy(waiting) else 0.0)

    def _settle(self, future: Future[list[str]], pack: _Pack) -> list[PlannedTrial]:
        """How a pack's process ended; returns what is to be trained again, each alone."""
        try:
            results = future.result()
        except ProcessExpired as error:
            return self._failed(pack, _how_it_died(error.exitcode))
        except Exception as error:  # before or after training: the trial's folder cannot be written, or locked
            return self._failed(pack, f"{type(error).__name__}: {error}")
        self._show(pack)
        for (planned, _), result in zip(pack, results, strict=True):
            if result == BUSY:
                self._view.busy(planned)
            elif result == STANDS:
                self._view.skipped(planned)
        return [planned for (planned, _), result in zip(pack, results, strict=True) if result in (BUSY, ALONE)]

    def _failed(self, pack: _Pack, reason: str) -> list[PlannedTrial]:
        """A death is written down here, for the dead cannot; of a pack nobody knows whose fault it was."""
        self._show(pack)
        if len(pack) > 1:
            return [planned for planned, _ in pack]
        ((planned, _),) = pack
        with contextlib.suppress(OSError):
            Journal(planned.folder / JOURNAL).append("failed", reason=reason, log=str(planned.folder / LOG))
        self._view.event(planned, {"event": "failed", "reason": reason})
        return []

    def _show(self, pack: _Pack) -> None:
        for planned, tail in pack:
            for event in tail.read():
                self._view.event(planned, event)

    def _all_busy(self, waiting: deque[Sequence[PlannedTrial]]) -> bool:
        return all(self._view.progress.states[p.fingerprint] == "busy" for pack in waiting for p in pack)


def _how_it_died(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"the worker process ended by itself with code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
    return f"the worker process was killed ({name}){hint}"
