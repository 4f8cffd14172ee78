"""What an engine is: it takes packs, trains them on one kind of machine, and says how each ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from ablate.knobs import KnobError
from ablate.launch import Launch, OnOwn
from ablate.registry import suggest

if TYPE_CHECKING:
    from ablate.engines.assignment import Assignment
    from ablate.protocol import Task

_GROUP = "ablate.engine"


class Died(Exception):
    """The process that trained a pack has ended, by the pack's own fault as far as is known; the message says how."""


class Lost(Exception):
    """The machine that trained a pack is gone, with no fault of the pack's: it goes on elsewhere."""


class Left(Exception):
    """All was handed over, and the launch ends as it was asked to; the message says what goes on without it."""


@dataclass(frozen=True)
class Machine:
    """The kind of machine that trains.

    Attributes:
        device: kind of the device that `device=` chooses there: "cpu" or "cuda".
        gpu_bytes: memory of one GPU; 0: there is none.
    """

    device: str
    gpu_bytes: float = 0.0


@dataclass(frozen=True)
class Demand:
    """What is asked of an engine.

    Attributes:
        packs: how many are to be trained.
        bytes: memory that the largest one needs.
    """

    packs: int
    bytes: float


class Submitted(Protocol):
    """A pack that was handed to an engine."""

    @property
    def launch(self) -> str:
        """The id of the launch that it was handed over by, which may be an earlier one where it outlives launches."""
        ...

    @property
    def where(self) -> str:
        """What has it, as a user finds it: "job 12"; "" while nothing has."""
        ...

    @property
    def is_running(self) -> bool:
        """Whether a process has it; while it waits for a machine, silence says nothing."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether `result` returns, or raises, without waiting."""
        ...

    def result(self) -> list[str]:
        """What `ablate.engines.worker.train` returned. Raises Died, Lost, or what `train` raised."""
        ...

    def kill(self) -> None:
        """End it, whatever it does: what is on disk is whole at any instant."""
        ...


class Engine(Protocol):
    """Trains packs.

    Made with the settings of a launch and its task; what it needs on the way (a cluster, a probe) it gets when it is
    first asked. Whoever makes one closes it.
    """

    @property
    def outlives_launch(self) -> bool:
        """Whether what was submitted is trained on when the launch is stopped, for the next one to find."""
        ...

    @property
    def machine(self) -> Machine:
        """The kind of machine that trains. Raises KnobError where it cannot train what was asked for."""
        ...

    def settle(self, configs: Sequence[Any]) -> list[Any]:
        """Each configuration with what that machine settles (`Task.settle`), or the KnobError that refuses it."""
        ...

    def most(self, demand: Demand) -> int:
        """Packs that it would train at a time if it had everything to itself."""
        ...

    def begin(self, demand: Demand) -> None:
        """What is going to be submitted, until `begin` is called again."""
        ...

    def room(self, left: int) -> int:
        """How many packs may be with it now, of `left` that have not ended; changes as others come and go."""
        ...

    def submit(self, pack: Sequence[Assignment]) -> Submitted:
        """Have a pack trained."""
        ...

    def wait(self, submitted: Sequence[Submitted], seconds: float) -> None:
        """Until one of these has ended, or for so long. Raises Left where the launch is to end once all is with it."""
        ...

    def parting(self, submitted: Sequence[Any]) -> str:
        """Where it outlives launches: what to tell a user who leaves these with it."""
        ...

    def advice(self, demand: Demand) -> str | None:
        """What a user can do to train faster; None: nothing."""
        ...

    def close(self) -> None:
        """Give back what it holds; what is still with it is for the next launch, unless it was killed."""
        ...


def make_engine(launch: Launch, task: Task) -> Engine:
    """The engine that `engine` names. Raises KnobError where there is none of that name."""
    settings = launch.engine
    name = settings.point if isinstance(settings, OnOwn) else settings.name
    points = {point.name: point for point in entry_points(group=_GROUP)}
    if name not in points:
        raise KnobError(
            f"engine.point={name}: no such engine{suggest(name, points)}; installed are {', '.join(sorted(points))}"
        )
    make: Callable[[Launch, Task], Engine] = points[name].load()
    return make(launch, task)
