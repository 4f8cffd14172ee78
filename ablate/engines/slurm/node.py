"""What a job does on the node that has it: train a pack in a process of its own, and watch over that."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ablate.engines.assignment import Assignment
from ablate.engines.engine import Died
from ablate.engines.processes import WorkerProcess
from ablate.engines.server import warm_up
from ablate.engines.slurm.settings import signal_seconds
from ablate.track.alive import Silence
from ablate.track.claims import holder

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

_LOOK_SECONDS = 2.0  # between two looks whether the process gives signs of life
_START_SECONDS = 120.0  # that it may take to import torch and claim its trials
_END_SECONDS = 300.0  # that SLURM may take to end a job after its first signal
_SAVE_SECONDS = 10.0  # that a step, and saving after it, may take; SLURM may kill soon
_EARLY_SECONDS = 65.0  # that SLURM's signal before the time limit may come earlier than it was asked for
_OF_SLURM = (signal.SIGUSR2,)  # for this process, which has the job queued again


class TrainPack:
    """Trains a pack in a job of submitit's.

    Args:
        minutes: the time limit of the job.
    """

    def __init__(self, pack: Sequence[Assignment], minutes: int) -> None:
        self._pack = pack
        self._minutes = minutes
        self._is_terminated = False
        self._worker: WorkerProcess | None = None
        self._began = time.monotonic()
        self._saved_before: set[str] = set()

    def __call__(self) -> dict[str, Any]:
        """Called on the node; "results" as `train` returns them, or how the process "died", or what it "raised"."""
        self._began = time.monotonic()
        self._saved_before = self._saved()
        signal.signal(signal.SIGTERM, self._terminated)
        with _blocked(_OF_SLURM):  # SLURM signals every process of a job; those started here must not end by it
            warm_up()
            self._worker = WorkerProcess({})
            self._worker.start()
        try:
            self._worker.give([_taking_over(each) for each in self._pack])
            self._watch(self._worker)
            return {"results": self._worker.result()}
        except Died as error:
            self._wait_for_the_end()
            return {"died": str(error)}
        except Exception as error:  # before or after training: the trial's folder cannot be written
            return {"raised": str(error)}
        finally:
            self._worker.end()

    def checkpoint(self) -> DelayedSubmission:
        """Called when SLURM wants the node back, or when the time is up: the job is queued again, for this.

        What it trains is saved at its next step; where that takes too long, it goes on from what was saved before.
        Raises Died where time was up and nothing had been saved: it would go on for ever.
        """
        from submitit.helpers import DelayedSubmission

        seconds = time.monotonic() - self._began
        if self._worker is not None:
            with suppress(ProcessLookupError):  # it has just died
                self._worker.preempt()
            self._worker.connection.poll(_SAVE_SECONDS)
            self._worker.kill()
        is_up = seconds > self._minutes * 60 - signal_seconds(self._minutes) - _EARLY_SECONDS
        if is_up and self._saved() == self._saved_before:
            raise Died(f"nothing could be saved in {seconds / 60:.2g} minutes of training; raise engine.minutes")
        return DelayedSubmission(TrainPack(self._pack, self._minutes))

    def _watch(self, worker: WorkerProcess) -> None:
        """Until there is a result. Raises Died where the process gives no sign of life."""
        lease = self._pack[0].lease
        silences = [Silence(each.folder, _START_SECONDS) for each in self._pack]
        while not worker.connection.poll(_LOOK_SECONDS):
            if min([each.look() for each in silences]) > lease:
                raise Died(f"its process gave no sign of life for {lease:g} s (lease={lease:g}) and was ended")

    def _saved(self) -> set[str]:
        return {str(path) for each in self._pack for path in each.folder.glob("claim-*/*.pt")}

    def _terminated(self, number: int, frame: object) -> None:
        self._is_terminated = True

    def _wait_for_the_end(self) -> None:
        """Where SLURM has begun to end the job, and with it the process: it is SLURM that says how it ended."""
        time.sleep(1)  # its signal reaches one process after the other
        end = time.monotonic() + _END_SECONDS
        while self._is_terminated and time.monotonic() < end:
            time.sleep(1)


@contextmanager
def _blocked(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Processes that are started meanwhile never get these signals; this one gets them afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _taking_over(each: Assignment) -> Assignment:
    """In a job that is started again, what it had claimed itself counts as over, on whatever node that was."""
    found = holder(each.folder)
    if os.environ.get("SLURM_RESTART_COUNT", "0") == "0" or found is None or found.launch != each.launch:
        return each
    return replace(each, silent=found.number)
