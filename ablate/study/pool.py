"""Trials → worker processes: each trial alone in one, so that what kills it leaves the others alone."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from types import TracebackType
from typing import Self

from pebble import ProcessExpired, ProcessPool

from ablate.study.plan import PlannedTrial
from ablate.study.server import CONTEXT
from ablate.study.view import View
from ablate.study.worker import BUSY, STANDS, start_worker, train
from ablate.track.journal import JOURNAL, LOG, Journal, Tail

_POLL_SECONDS = 0.2
_BUSY_SECONDS = 2.0  # between two looks at a trial that another study is training


class Pool:
    """Trains trials `workers` at a time.

    Args:
        workers: processes; the machine's cores are divided among them.
        command: what the user typed, for the record.
        view: told of everything as it happens.
    """

    def __init__(self, workers: int, command: str, view: View) -> None:
        threads = threads_of(workers)
        self._workers = workers
        self._command = command
        self._view = view
        self._pool = ProcessPool(workers, context=CONTEXT, initializer=start_worker, initargs=(threads,))
        self._running: dict[Future[str], tuple[PlannedTrial, Tail]] = {}

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
        for planned, _ in self._running.values():
            # The worker is dead, so this process may write. Nothing depends on this line: it tells a reader why.
            with contextlib.suppress(OSError):
                Journal(planned.folder / JOURNAL).append("interrupted", reason="stopped by the user")

    def run(self, plan: Sequence[PlannedTrial]) -> None:
        """Train all; a trial that another study is training is waited for, after all others."""
        waiting = deque(plan)
        not_before = 0.0
        while waiting or self._running:
            while waiting and len(self._running) < self._workers and time.monotonic() >= not_before:
                planned = waiting.popleft()
                tail = Tail(planned.folder / JOURNAL)
                tail.read()  # what earlier launches wrote
                self._running[self._pool.schedule(train, args=[planned, self._command])] = planned, tail
            if not self._running:
                time.sleep(_POLL_SECONDS)
                continue
            finished, _ = wait(self._running, _POLL_SECONDS, FIRST_COMPLETED)
            for planned, tail in self._running.values():
                self._show(planned, tail)
            for future in finished:
                planned, tail = self._running.pop(future)
                if self._settle(future, planned, tail) == BUSY:
                    waiting.append(planned)
                    not_before = time.monotonic() + (_BUSY_SECONDS if self._all_busy(waiting) else 0.0)

    def _settle(self, future: Future[str], planned: PlannedTrial, tail: Tail) -> str:
        """How a trial's process ended; a death is written down here, for the dead cannot."""
        try:
            result = str(future.result())
        except ProcessExpired as error:
            self._failed(planned, tail, _how_it_died(error.exitcode))
            return STANDS
        except Exception as error:  # before or after training: the trial's folder cannot be written, or locked
            self._failed(planned, tail, f"{type(error).__name__}: {error}")
            return STANDS
        self._show(planned, tail)
        if result == BUSY:
            self._view.busy(planned)
        elif result == STANDS:
            self._view.skipped(planned)
        return result

    def _failed(self, planned: PlannedTrial, tail: Tail, reason: str) -> None:
        self._show(planned, tail)
        with contextlib.suppress(OSError):
            Journal(planned.folder / JOURNAL).append("failed", reason=reason, log=str(planned.folder / LOG))
        self._view.event(planned, {"event": "failed", "reason": reason})

    def _show(self, planned: PlannedTrial, tail: Tail) -> None:
        for event in tail.read():
            self._view.event(planned, event)

    def _all_busy(self, waiting: deque[PlannedTrial]) -> bool:
        return all(self._view.progress.states[p.fingerprint] == "busy" for p in waiting)


def threads_of(workers: int) -> int | None:
    """Threads of each worker where `threads` does not say; None: what torch chooses by itself, which one worker has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return None if workers == 1 else max(1, cores // workers)


def _how_it_died(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"the worker process ended by itself with code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
    return f"the worker process was killed ({name}){hint}"
