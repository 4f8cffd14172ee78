"""The seam between the core and what is trained: what a task gives, and what it is given."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ablate.metric import Metric

if TYPE_CHECKING:
    from ablate.train import Checkpoints

Payload = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """The training of one replicate: one cell, one seed.

    Attributes:
        device: where, as `device=` says it: auto, cpu, cuda; of a planned trial the kind that was chosen.
    """

    config: Any
    seed: int
    device: str = "auto"


@dataclass(frozen=True)
class Facts:
    """What is known of a trial before it trains. Numbers of a metric are as they are recorded.

    Attributes:
        data: name of the data; digest: SHA-256 of it, "" where nobody checked it.
        sizes: examples of each split, in the task's unit.
        evaluated: identity of what it is evaluated on; rows are comparable where it is the same.
        alike: identity of what the first step reads and a model that knows nothing scores there; None: not known.
        steps: its budget; None: known when it ends.
        parameters: numbers that are trained; None: not known.
        chance: the first metric of a model that knows nothing; floor: at best.
        details: what else a reader may want to know of the data.
        work: arithmetic of the whole trial, in operations; 1 where nobody counted it.
    """

    data: str = ""
    digest: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    evaluated: str = ""
    alike: str | None = None
    steps: int | None = None
    parameters: int | None = None
    chance: float | None = None
    floor: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    work: float = 1.0

    def record(self) -> dict[str, Any]:
        """As a trial's journal has it."""
        return {
            "name": self.data,
            "digest": self.digest,
            "sizes": dict(self.sizes),
            "evaluated": self.evaluated or self.digest,
            "alike": self.alike,
            "chance": self.chance,
            "floor": self.floor,
            "details": dict(self.details),
        }


@dataclass(frozen=True)
class Blocks:
    """The test examples in blocks: runs of neighbours, or the task's own groups (documents, chapters).

    Attributes:
        sizes: examples of each block.
        totals: the sum over a block's examples of what `test_<recorded>` of the first metric is the mean of.
    """

    sizes: Sequence[int]
    totals: Sequence[float]


@dataclass(frozen=True)
class Outcome:
    """What a trial came to.

    Attributes:
        status: FINISHED, or DIVERGED when a number that was measured was no finite one.
        steps: trained; seen: examples read, in the task's unit; None: not known.
        diverged_at: the step at which it did.
        seconds: wall time, evaluations included; train_seconds: without them.
        best_step: where the valid value of the first metric was best.
        values: `test_<recorded>` of every metric, `valid_<recorded>` and `best_valid_<recorded>` where there are any,
            `first_<recorded>` of the first step, `clipped`, and what else the task tells.
        sample: text that the trained model wrote; "" where it writes none.
        reason: why it diverged, where the status alone does not say it.
        parameters: numbers that were trained, where `Facts` could not know.
        blocks: what the test examples scored, the same examples in the same blocks in every trial that is evaluated on
            the same data; None: not measured by example.
    """

    status: str
    steps: int
    seen: int | None
    diverged_at: int | None
    seconds: float
    train_seconds: float
    best_step: int | None
    values: Mapping[str, float | None]
    sample: str = ""
    parameters: int | None = None
    reason: str = ""
    blocks: Blocks | None = None


@dataclass(frozen=True)
class Estimates:
    """Seconds of a trial of each pack: before its first step, and from there to its end; and how they were found."""

    start: Sequence[float]
    rest: Sequence[float]
    how: str


class Sink(Protocol):
    """Takes a trial's measurements as they are made."""

    def __call__(self, event: str, /, **values: Any) -> int:
        """Record an event; returns the length of the record so far, in bytes, which a checkpoint keeps."""
        ...


class Task(Protocol):
    """Something that is trained and measured. What it imports is heavy, and comes late."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def reference(self) -> str:
        """What another process finds it by, as `task=` has it."""
        ...

    @property
    def leaves_no_trace(self) -> bool:
        """Whether trials may follow each other in one process; else each has one of its own."""
        ...

    @property
    def folder(self) -> Path:
        """Where its code lies."""
        ...

    @property
    def step(self) -> str:
        """What one step of training is called: "window", "epoch"."""
        ...

    @property
    def unit(self) -> str:
        """What training reads: "tokens", "images"; "" where it does not say."""
        ...

    @property
    def metrics(self) -> Sequence[Metric]:
        """What is measured; cells are compared by the first."""
        ...

    @property
    def Config(self) -> Any:
        """A record of knobs."""
        ...

    @property
    def components(self) -> Mapping[str, Any]:
        """Name → its declaration, as `components.<name>` in a configuration."""
        ...

    @property
    def budget(self) -> Sequence[str]:
        """Knobs that say how much a trial trains, first the one that scales a whole training."""
        ...

    @property
    def presets(self) -> Path | None:
        """Folder of its presets, `config.yaml` among them where it has one; None: it has none."""
        ...

    def settle(self, config: Any, device: str) -> Any:
        """The configuration with what this machine settles; raises KnobError for what it cannot run."""
        ...

    def check(self, config: Any) -> None:
        """Raise KnobError where knobs are at odds with each other."""
        ...

    def describe(self, config: Any) -> Facts:
        """What is known before training; trains nothing. Raises KnobError where its data cannot be used."""
        ...

    def files(self, config: Any) -> Mapping[str, Path]:
        """Name → path of the code that decides a result; names are the same on every machine."""
        ...

    def sources(self, config: Any) -> Mapping[str, str]:
        """Name → SHA-256 of these files, each read once a process."""
        ...

    def shape(self, config: Any) -> Hashable | None:
        """Trials may train as a pack where it is the same; None: only alone."""
        ...

    def bytes_of(self, config: Any, facts: Facts) -> float:
        """Memory that a trial needs on its device."""
        ...

    def trial_facts(self, trial: Trial) -> Mapping[str, str]:
        """What a reader has to know of a trial besides its knobs, its data and its machine."""
        ...

    def estimate(self, packs: Sequence[Sequence[Trial]]) -> Estimates | None:
        """How long trials take on this machine, by a short measurement; None: only training tells."""
        ...

    def load(self, config: Any, weights: Payload) -> object:
        """What a finished trial has trained, of the weights that it saved as its best; for whoever asks for it."""
        ...

    def fit(
        self,
        pack: Sequence[Trial],
        sinks: Sequence[Sink],
        checkpoints: Sequence[Checkpoints],
        states: Sequence[Payload] | None,
    ) -> list[Outcome]:
        """Train a pack, and measure it on test data once at the end.

        Args:
            sinks: one a trial, take `log` events.
            checkpoints: one a trial, take its state.
            states: what each trial's checkpoints held after the same step, to go on from; None: from the start.
        """
        ...
