"""What belongs to a launch and to its design, whatever the task: settings that decide no trial's result."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from ablate.knobs import Record, Says, knob

FEWEST_SEEDS = 3  # that seeds=auto trains before it looks
MOST_SEEDS = 20  # that it trains where max_seeds does not say
KINDS = ("grid", "one_factor", "latin_square", "leave_one_out", "cumulative", "add_one_in", "cells")
COMPONENT_PARTS = ("off", "requires", "excludes", "idle")  # what a component's declaration may say

STUDY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
_NAME = Field(pattern=STUDY_NAME)
Name = Annotated[str, _NAME, Says("a name of letters, digits, '.', '_' and '-', for example my-study")]
StudyName = Annotated[
    str,
    _NAME,
    Says(
        "a name of at most 100 letters, digits, '.', '_' and '-', for example my-study; a number or a truth value goes "
        "into quotes, for example 'name=\"2024\"'"
    ),
]
Path = Annotated[str, Field(min_length=1), Says("a path")]
Address = Annotated[str, Field(min_length=1), Says("an MLflow tracking URI, for example http://127.0.0.1:5000")]
Processes = Annotated[int, Field(ge=1, le=1024)]
Cores = Annotated[int, Field(ge=1, le=1024)]
Gigabytes = Annotated[float, Field(gt=0, le=100_000)]
Seeds = Annotated[int, Field(ge=1, le=10_000)]
Percentage = Annotated[str, Field(pattern=r"^\d+(\.\d+)?%$"), Says("a percentage")]


class Tracking(Record):
    """Where the MLflow mirror goes."""

    enabled: bool = knob("false: journals only")
    uri: Address | None = knob("null: SQLite in the runs folder")


class OnThisMachine(Record):
    """Processes of this machine."""

    name: Literal["local"] = knob("always local")


class OnRay(Record):
    """A Ray cluster."""

    name: Literal["ray"] = knob("always ray")
    address: Annotated[str, Field(min_length=1), Says("the address of a Ray cluster")] | None = knob(
        "of the head, HOST:PORT; null: the cluster that this machine belongs to"
    )
    cpus: Cores | None = knob("CPU cores of a pack; null: as many as threads", 2)
    gpus: Annotated[float, Field(ge=0, le=64)] | None = knob("GPUs of a pack; null: one where device is cuda", 1)
    memory: Gigabytes | None = knob("memory of a pack, in GB; null: not counted", 4)
    shared: bool = knob("false: the nodes do not see the runs folder; what they write travels to this machine")


class OnSlurm(Record):
    """A SLURM cluster."""

    name: Literal["slurm"] = knob("always slurm")
    partition: Name | None = knob("where jobs go; null: the default partition")
    cpus: Cores | None = knob("CPU cores of a pack; null: as many as threads", 2)
    gpus: Annotated[int, Field(ge=0, le=64)] | None = knob("GPUs of a pack; null: one where device is cuda", 1)
    memory: Gigabytes | None = knob("memory of a pack, in GB; null: the cluster's default", 4)
    minutes: Annotated[int, Field(ge=1, le=100_000)] = knob("time limit of a job; what is not finished is queued again")
    jobs: Annotated[int, Field(ge=1, le=100_000)] = knob("packs in the queue at a time")
    leave: bool = knob("true: submit and end; the same command typed again attaches")
    options: Annotated[dict[str, str | int], Says("a mapping, for example '{account:mine,constraint:a100}'")] | None = (
        knob("further options of sbatch, by name; null: none")
    )


class OnOwn(Record):
    """An engine of a user's own, or of another package."""

    name: Literal["own"] = knob("always own")
    point: Name = knob("name of its entry point, of the group ablate.engine")
    options: Annotated[dict[str, object], Says("a mapping, for example '{queue:long}'")] | None = knob(
        "its settings; null: none"
    )


class Design(Record):
    """How the cells of a study are chosen."""

    kind: Literal[KINDS] = knob("which cells a study has; the preset design= sets it")  # type: ignore[valid-type]
    components: Annotated[list[str], Says("a list, for example [dropout,tying]")] | None = knob(
        "components that leave_one_out, cumulative, add_one_in vary, in this order; null: all that are on"
    )
    exclude: Annotated[list[str], Says('a list, for example ["residual=true & depth=1"]')] = knob(
        "conditions on knobs; a cell where one holds is left out"
    )
    cells: Annotated[list[str], Says('a list, for example ["depth=1 tie=true","depth=2 dropout=0.5"]')] = knob(
        "the cells of design=cells, one by one"
    )


class Launch(Record):
    """What a command asks for besides its cells."""

    task: str = knob("what is trained: a name, or FILE.py:FUNCTION", group="Study")
    seed: int = knob("first seed", 0, ge=0, le=2**31 - 1)
    seeds: Seeds | Literal["auto"] = knob(
        "replicates: seeds seed, seed + 1, …; auto: as many as it takes to decide every comparison", 3
    )
    max_seeds: int | None = knob(
        f"the most that seeds=auto trains; null: {MOST_SEEDS}", MOST_SEEDS, ge=FEWEST_SEEDS, le=1000
    )
    worth: Percentage | Annotated[float, Field(gt=0)] | None = knob(
        "the smallest difference that matters: 1% of a metric that is compared by ratios, else a number in its unit; "
        "null: 1% of the former",
        "1%",
    )
    force: bool = knob("train again what is finished")
    plan: bool = knob("true: say what would be trained, how long it would take, and train nothing")
    check: bool = knob("true: try whether a task of your own is one that can be stopped, repeated and compared")
    report: bool = knob("false: no report is written after training; python -m ablate.report writes it later")
    name: StudyName | None = knob("name of the study; null: from its factors")
    labels: Annotated[dict[str, str], Says('a mapping, for example {"depth=1 tie=true":"Our model"}')] | None = knob(
        "names that cells have in reports, a mapping of label to name; null: their labels"
    )
    device: Literal["auto", "cpu", "cuda"] = knob("auto: cuda, else cpu", group="Machine")
    threads: int | None = knob(
        "CPU threads of a trial, which may change its last digits; null: one, or beside a CUDA device one a physical "
        "core, at most OMP_NUM_THREADS",
        2,
        ge=1,
        le=1024,
    )
    workers: Processes | Literal["auto"] = knob(
        "packs trained at a time, each in a process of its own; auto: as many as the cores and the memory that other "
        "studies leave are good for",
        2,
    )
    pack: Processes | Literal["auto"] = knob(
        "trials that differ in seeds and numbers alone, trained together as one program; auto: as many as a CUDA "
        "device holds, one on a CPU",
        8,
    )
    lease: float = knob(
        "seconds without a sign of life after which a worker process is ended, and its trial may be taken over by "
        "another study; a process gives one as long as Python can run in it",
        300,
        ge=1,
        le=1e6,
    )
    runs: Path = knob("folder of journals, checkpoints and mlflow.db")
    reports: Path = knob("folder of reports")
    tracking: Tracking = knob("where the MLflow mirror goes")
    engine: OnThisMachine | OnRay | OnSlurm | OnOwn = knob(
        "what trains the packs", group="Machine", discriminator="name"
    )

    @field_validator("max_seeds")
    @classmethod
    def _is_used(cls, most: int | None, others: ValidationInfo) -> int | None:
        if most is not None and others.data.get("seeds", "auto") != "auto":
            raise ValueError("only used by seeds=auto; add seeds=auto, or leave out max_seeds")
        return most

    @property
    def most_seeds(self) -> int:
        """How many replicates a cell has at most."""
        if self.seeds == "auto":
            return MOST_SEEDS if self.max_seeds is None else self.max_seeds
        return self.seeds
