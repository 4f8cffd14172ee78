"""The engine of this machine: worker processes, one a core, or one a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from multiprocessing.connection import wait
from typing import Any

from ablate.engines.assignment import PREEMPTED, Assignment
from ablate.engines.cores import best_workers, cores, free_memory, threads_of
from ablate.engines.engine import Demand, Machine
from ablate.engines.probe import settled, this_machine, visible_gpus
from ablate.engines.processes import WorkerProcess
from ablate.engines.share import Share
from ablate.launch import Launch
from ablate.protocol import Task


class LocalEngine:
    """Implements `ablate.engines.engine.Engine`."""

    outlives_launch = False
    """See `Engine`, as for all below."""

    def __init__(self, launch: Launch, task: Task) -> None:
        self._launch = launch
        self._task = task
        self._most = 1
        self._left = 0
        self._share: Share | None = None
        self._held = ExitStack()
        self._running: list[LocalPack] = []
        self._idle: list[WorkerProcess] = []
        self._workers: list[WorkerProcess] = []  # all that may live, whatever they do

    @cached_property
    def machine(self) -> Machine:
        return this_machine(self._launch.device)

    @cached_property
    def _gpus(self) -> list[str]:
        return visible_gpus() if self.machine.device == "cuda" else []

    def settle(self, configs: Sequence[Any]) -> list[Any]:
        return settled(self._task, configs, self._launch.device)

    def most(self, demand: Demand) -> int:
        if isinstance(self._launch.workers, int):
            return self._launch.workers
        if self._gpus:  # packs fill each of them
            return max(1, min(demand.packs, len(self._gpus)))
        return best_workers(demand, self._launch.threads, cores(), free_memory())

    def begin(self, demand: Demand) -> None:
        self._held.close()
        self._left = demand.packs
        self._most = self.most(demand)
        self._share = None
        if not self._gpus:
            share = Share(demand, self._most, self._launch.threads, isinstance(self._launch.workers, int))
            self._share = self._held.enter_context(share)

    def room(self, left: int) -> int:
        return self._most if self._share is None else self._share.workers(left)

    def submit(self, pack: Sequence[Assignment]) -> LocalPack:
        worker = self._worker(self._of_a_gpu())
        submitted = LocalPack(pack[0].launch, worker, self._ended)
        self._running.append(submitted)
        worker.give([self._with_threads(each) for each in pack])
        self._left -= 1
        if self._left > 0 and not self._task.leaves_no_trace:  # the next one is there when this one ends
            self._idle.append(self._started(worker.environment))
        return submitted

    def wait(self, submitted: Sequence[Any], seconds: float) -> None:
        wait([each.worker.connection for each in submitted], seconds)

    def parting(self, submitted: Sequence[Any]) -> str:
        return ""  # nothing outlives a launch

    def advice(self, demand: Demand) -> str | None:
        workers = self.most(demand)
        each = cores() // workers
        if not demand.packs or self._gpus or self._launch.threads is not None or each < 2:
            return None
        return (
            f"{workers} of {cores()} cores train; threads={each} makes each trial faster, and its last digits other "
            "ones than in studies without it"
        )

    def close(self) -> None:
        for pack in self._running:  # a signal may have come before anybody else knew of it
            pack.worker.kill()
        for worker in self._workers:
            worker.leave()
        for worker in self._workers:
            worker.end()
        self._held.close()

    def _of_a_gpu(self) -> dict[str, str]:
        """The environment of a worker that sees the GPU which the fewest packs have; {}: nothing trains on one."""
        if len(self._gpus) < 2:
            return {}
        taken = [pack.worker.environment["CUDA_VISIBLE_DEVICES"] for pack in self._running]
        return {"CUDA_VISIBLE_DEVICES": min(self._gpus, key=taken.count)}

    def _with_threads(self, each: Assignment) -> Assignment:
        """The workers of several GPUs divide the cores."""
        if each.threads is not None or len(self._gpus) < 2:
            return each
        return replace(each, threads=max(1, threads_of("cuda") // len(self._gpus)))

    def _worker(self, environment: dict[str, str]) -> WorkerProcess:
        for worker in [each for each in self._idle if each.environment == environment]:
            self._idle.remove(worker)
            if worker.is_alive:
                return worker
            worker.kill()  # it has died since
        return self._started(environment)

    def _started(self, environment: Mapping[str, str]) -> WorkerProcess:
        """A new worker, on record before it lives: a signal may come at any instant."""
        self._workers = [each for each in self._workers if each.is_alive]
        self._workers.append(worker := WorkerProcess(environment))
        worker.start()
        return worker

    def _ended(self, pack: LocalPack, is_usable: bool) -> None:
        self._running.remove(pack)
        if not is_usable:
            pack.worker.kill()
        elif self._task.leaves_no_trace:
            self._idle.append(pack.worker)
        else:
            pack.worker.leave()


class LocalPack:
    """Implements `ablate.engines.engine.Submitted`."""

    is_running = True
    """See `Submitted`, as for all below."""

    where = "a process of this machine"

    def __init__(self, launch: str, worker: WorkerProcess, ended: Callable[[LocalPack, bool], None]) -> None:
        self.launch = launch
        self.worker = worker
        self._ended = ended

    @property
    def has_ended(self) -> bool:
        return self.worker.connection.poll()

    def result(self) -> list[str]:
        try:
            results = self.worker.result()
        except Exception:  # it died; or before or after training, the trial's folder cannot be written
            self._ended(self, False)
            raise
        self._ended(self, PREEMPTED not in results)  # it was asked to end
        return results

    def kill(self) -> None:
        self._ended(self, False)
