"""The engine of a SLURM cluster. Heavy libraries, and submitit, are imported where they are used."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablate.engines.assignment import Assignment
from ablate.engines.engine import Demand, Died, Left, Machine
from ablate.engines.slurm.kept import KeptJob, KeptJobs
from ablate.engines.slurm.node import TrainPack
from ablate.engines.slurm.probe import Probe
from ablate.engines.slurm.queue import Queue, SentJob, cancel, in_words, make_private
from ablate.engines.slurm.settings import check_login_node, parameters, settings_of
from ablate.knobs import KnobError, read
from ablate.launch import Launch
from ablate.protocol import Task

_POLL_SECONDS = 0.2
_STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class SlurmEngine:
    """Implements `ablate.engines.engine.Engine`."""

    outlives_launch = True
    """See `Engine`, as for all below."""

    def __init__(self, launch: Launch, task: Task) -> None:
        self._launch = launch
        self._task = task
        self._asked = settings_of(launch)
        self._parameters = parameters(launch)
        self._folder = Path(launch.runs).absolute() / "slurm"
        self._queue = Queue(self._folder / "sent")
        self._kept = KeptJobs(self._folder / "trials", self._folder / "sent")
        self._machine: Machine | None = None
        self._left = 0  # to be submitted
        self._unsent: list[SlurmPack] = []

    @property
    def machine(self) -> Machine:
        assert self._machine is not None, "asked of a node together with what it settles"
        return self._machine

    def settle(self, configs: Sequence[Any]) -> list[Any]:
        check_login_node(self._asked)
        make_private(self._folder)
        probe = Probe(self._folder / "nodes", self._queue, self._parameters, self._launch.runs)
        found = probe.answer(self._task, configs, self._launch.device)
        self._machine = Machine(found["device"], found["gpu_bytes"])
        return [_as_settled(self._task, each, found["host"]) for each in found["configs"]]

    def most(self, demand: Demand) -> int:
        return max(1, min(demand.packs, self._asked.jobs))

    def begin(self, demand: Demand) -> None:
        self._left = demand.packs

    def room(self, left: int) -> int:
        return self._asked.jobs

    def submit(self, pack: Sequence[Assignment]) -> SlurmPack:
        """It is sent when `wait` is called: what is submitted together becomes an array."""
        self._left = max(0, self._left - 1)
        pack = [replace(each, folder=each.folder.absolute()) for each in pack]
        submitted = SlurmPack(pack, self._queue, self._kept)
        if submitted.kept is None:
            self._unsent.append(submitted)
        return submitted

    def wait(self, submitted: Sequence[Any], seconds: float) -> None:
        self._send()
        end = time.monotonic() + seconds
        while True:
            self._queue.look([each.job for each in submitted])
            if any(each.has_ended for each in submitted):
                return
            if self._asked.leave:
                more = f", and submits the {self._left} beyond engine.jobs={self._asked.jobs}" if self._left else ""
                raise Left(f"{self.parting(submitted)}; the same command attaches{more}")
            if time.monotonic() > end:
                return
            time.sleep(min(seconds, _POLL_SECONDS))

    def parting(self, submitted: Sequence[Any]) -> str:
        jobs = [each.job for each in submitted if each.kept is not None]
        if not jobs:
            return "no job is with SLURM"
        are, them = ("job is", "it") if len(jobs) == 1 else ("jobs are", "them")
        return f"{len(jobs)} {are} with SLURM; scancel {in_words(jobs)} ends {them}"

    def advice(self, demand: Demand) -> str | None:
        return None

    def close(self) -> None:
        """Nothing to give back: jobs belong to SLURM."""

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if not unsent:
            return
        with _signals_wait():  # a job that SLURM has, and nobody knows of, could not be found again
            jobs = self._queue.send([TrainPack(each.pack, self._asked.minutes) for each in unsent], self._parameters)
            for each, job in zip(unsent, jobs, strict=True):
                each.sent_as(job)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """What asks this process to stop is heard at the end of the block."""
    if threading.current_thread() is not threading.main_thread():  # a notebook's, which hears none
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _as_settled(task: Task, found: Mapping[str, Any], host: str) -> Any:
    if "problems" in found:
        return KnobError(*(f"{problem} (so says {host}, a node of SLURM's)" for problem in found["problems"]))
    return read(task.Config, found["values"])


class SlurmPack:
    """Implements `ablate.engines.engine.Submitted`."""

    is_running = False  # silence says nothing here: the job watches over its process, and SLURM over the node
    """See `Submitted`, as for all below."""

    def __init__(self, pack: Sequence[Assignment], queue: Queue, kept: KeptJobs) -> None:
        self.pack = pack
        self._queue = queue
        self._all_kept = kept
        self.kept = kept.find(pack)

    @property
    def launch(self) -> str:
        return self.pack[0].launch if self.kept is None else self.kept.launch

    @property
    def where(self) -> str:
        return "" if self.kept is None else f"job {self.kept.job.id}"

    @property
    def job(self) -> SentJob:
        """The job that has it, once it was sent."""
        assert self.kept is not None
        return self.kept.job

    def sent_as(self, job: SentJob) -> None:
        """It has become a job."""
        self._all_kept.keep(self.pack, job)
        self.kept = KeptJob(job, self.pack[0].launch)

    @property
    def has_ended(self) -> bool:
        return self.kept is not None and self._queue.has_ended(self.job)

    def result(self) -> list[str]:
        try:
            found = self._queue.result(self.job)
        finally:
            self._all_kept.forget(self.pack)
        if "died" in found:
            raise Died(found["died"])
        if "raised" in found:
            raise RuntimeError(found["raised"])
        return list(found["results"])

    def kill(self) -> None:
        if self.kept is not None:
            cancel([self.job])
            self._all_kept.forget(self.pack)
