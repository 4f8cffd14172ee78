"""Worker processes: each trains one pack after another; how one ends costs the pack that it was training, and no other.

Processes of our own, because a pool of them ends as a whole when one of its idle processes is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from ablate.engines.assignment import Assignment
from ablate.engines.engine import Died
from ablate.engines.server import CONTEXT

_STOP_SECONDS = 10.0  # for what a process does at its end


class WorkerProcess:
    """A process that trains what it is given, once it was started.

    Args:
        environment: variables that it has besides those of its server.
        folder: where it starts; None: where this process was started.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path | None = None) -> None:
        self.environment = environment
        self.connection, self._theirs = CONTEXT.Pipe()
        # No daemon: those may have no children, as the loaders of a user's data are. So Python waits for it at its own
        # end, and whoever starts one has it on record before.
        self._process = CONTEXT.Process(  # type: ignore[attr-defined]
            target=_serve, args=(self._theirs, environment, folder), name="worker"
        )

    def start(self) -> None:
        """Start it."""
        self._process.start()
        self._theirs.close()  # so that its end, however it comes, is heard

    @property
    def is_alive(self) -> bool:
        """Whether it can be given something."""
        return bool(self._process.is_alive())

    def give(self, pack: Sequence[Assignment]) -> None:
        """Have it train a pack; `connection` is ready once there is a result."""
        with suppress(OSError):  # it has just died, which `result` tells
            self.connection.send(pack)

    def result(self) -> list[str]:
        """What `train` returned. Raises Died, or what `train` raised."""
        try:
            result = self.connection.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            raise Died(_how_it_died(self._process.exitcode)) from error
        if isinstance(result, Exception):
            raise result
        return list(result)

    def preempt(self) -> None:
        """Have it save what it trains as soon as it can, and stop: `result` then says PREEMPTED."""
        os.kill(self._process.pid, signal.SIGUSR1)

    def leave(self) -> None:
        """Have it end, as it has nothing to do."""
        self.connection.close()

    def end(self) -> None:
        """Have it end, and wait until it has."""
        self.leave()
        if self._is_started:
            self._process.join(_STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it, whatever it does: what is on disk is whole at any instant."""
        if self._is_started:
            self._process.kill()
            self._process.join()
        self.connection.close()

    @property
    def _is_started(self) -> bool:
        return self._process.ident is not None


def _serve(connection: Connection, environment: Mapping[str, str], folder: Path | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches every process of a group; the study says when to end
    os.environ.update(environment)
    if folder is not None:
        os.chdir(folder)
    # Late: it imports torch, which the process that starts this one may have no use for.
    from ablate.engines.worker import start_worker, train

    start_worker()
    if hasattr(os, "register_at_fork"):  # what a user's code forks would keep the pipe open after this process has died
        os.register_at_fork(after_in_child=connection.close)
    while True:
        try:
            pack = connection.recv()
        except EOFError:
            return
        # What a user's code starts, as a loader's workers, starts as in a plain script: the server has set its own way.
        multiprocessing.set_start_method(None, force=True)
        try:
            connection.send(train(pack))
        except Exception as error:  # before or after training: the trial's folder cannot be written
            connection.send(RuntimeError(f"{type(error).__name__}: {error}"))


def _how_it_died(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"the worker process ended by itself with code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
    return f"the worker process was killed ({name}){hint}"
