"""What runs on a node: a task of Ray's that supervises a worker process, which is started as on the study's machine.

So exit codes, threads and arithmetic are those of the local engine. The task itself trains nothing: it never holds
Python's lock for long, and hears when the study cancels it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.engines.assignment import PREEMPTED, Assignment
from ablate.engines.engine import Died
from ablate.engines.processes import WorkerProcess
from ablate.engines.server import warm_up

_LOOK_SECONDS = 0.2  # between two looks whether the study has cancelled it


@dataclass(frozen=True)
class Place:
    """Where a pack trains.

    Attributes:
        folder: the study's working directory, in which a worker starts where the node has it.
        environment: variables of the study's, for a node that has none of that name.
        is_reused: whether a worker may train the next pack as well.
        keeper: what keeps the runs folder on the study's machine; None: the node sees it.
    """

    folder: str
    environment: Mapping[str, str]
    is_reused: bool
    keeper: Any = None


@dataclass(frozen=True)
class End:
    """How a pack ended: what `train` returned, or how its process died, or what it raised."""

    results: Sequence[str] = ()
    died: str = ""
    raised: str = ""


def supervise(pack: Sequence[Assignment], place: Place) -> Iterator[str | End]:
    """A task of Ray's: first the id of its node, so that the study knows that it runs and where, then its end."""
    yield this_node()
    if place.keeper is None:
        yield train_in_child(pack, place, lambda: None)
    else:
        from ablate.engines.ray.courier import train_apart

        yield train_apart(pack, place)


def train_in_child(pack: Sequence[Assignment], place: Place, meanwhile: Callable[[], None]) -> End:
    """Have a worker process train a pack; `meanwhile` is called as long as it does."""
    worker = _idle.pop() if _idle and _idle[-1].is_alive else new_worker(place)
    try:
        worker.give(pack)
        while not worker.connection.poll(_LOOK_SECONDS):
            meanwhile()
        results = worker.result()
    except BaseException as error:  # KeyboardInterrupt: the study has cancelled this
        worker.kill()
        if isinstance(error, Died):
            return End(died=str(error))
        if isinstance(error, RuntimeError):  # the trial's folder cannot be written
            return End(raised=str(error))
        raise
    if os.environ.get("CUDA_VISIBLE_DEVICES"):
        worker.end()  # before Ray gives its GPU to another
    elif place.is_reused and PREEMPTED not in results:  # else it was asked to end
        _idle.append(worker)
    else:
        worker.leave()
    return End(results)


_idle: list[WorkerProcess] = []


def new_worker(place: Place) -> WorkerProcess:
    """A worker process; it ends with this one."""
    start_server()
    worker = WorkerProcess(missing(place.environment), folder_there(place.folder))
    worker.start()
    return worker


def missing(environment: Mapping[str, str]) -> dict[str, str]:
    """Those of these variables that this node has not set itself, and what Ray has set for this task.

    The latter because the server that workers are forked from has what Ray had set for the first one.
    """
    of_task = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS") if name in os.environ}
    return {name: value for name, value in environment.items() if name not in os.environ} | of_task


def folder_there(folder: str) -> Path | None:
    """The study's working directory, where this node has it."""
    return Path(folder) if os.path.isdir(folder) else None


def start_server() -> None:
    """Start what worker processes are forked from, where it does not run yet."""
    # multiprocessing would run Ray's program of a worker again in every process that is started from here.
    vars(sys.modules["__main__"]).pop("__file__", None)
    warm_up()


def this_node() -> str:
    """The id of the node that this runs on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())
