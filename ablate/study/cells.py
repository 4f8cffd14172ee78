"""The cells of a study: one combination of levels each, and what it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ablate.find_task import DEFAULT
from ablate.knobs import flat, knobs_of, named, show
from ablate.launch import Launch
from ablate.names import folder_name
from ablate.protocol import Task
from ablate.study.designs import Asked


@dataclass(frozen=True)
class Job:
    """One job of a command line: the overrides that made it, as typed, and the plain values they resolve to.

    Attributes:
        asked: what its design says of it; None: it is one of a plain grid.
        environment: name → value of the environment variables that the values were made with; they may be secrets.
    """

    overrides: tuple[str, ...]
    values: Mapping[str, Any]
    asked: Asked | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One combination of levels.

    Attributes:
        label: what tells it from the study's other cells, for example "depth=2 tie=true", or "without tying".
        levels: every factor of the study → level, resolved where the cell's own overrides do not name it.
        components: every declared component → whether it is on.
        config: everything of the task that is set.
        seeds: its replicates; with seeds=auto as many as it may come to have.
    """

    label: str
    levels: Mapping[str, str]
    config: Any
    seeds: tuple[int, ...]
    environment: Mapping[str, str]
    components: Mapping[str, bool] = field(default_factory=dict)

    def record(self) -> dict[str, object]:
        """Every knob of its trials, as it may be written down."""
        return recorded(self.config, self.environment)


def recorded(config: Any, environment: Mapping[str, str]) -> dict[str, object]:
    """The knobs, a value from the environment by the name of its variable: "${oc.env:HOME}/my.txt"."""
    paths = named(type(config), "path")
    return {name: _by_variable(value, environment, name in paths) for name, value in flat(config).items()}


def _by_variable(value: object, environment: Mapping[str, str], is_path: bool) -> object:
    """A text with what is from the environment by the name of its variable; of a path also a part of it."""
    for variable, secret in environment.items():
        if isinstance(value, str) and secret and (is_path or value == secret):
            value = value.replace(secret, f"${{oc.env:{variable}}}")
    return value


@dataclass(frozen=True)
class LeftOut:
    """A cell that a design would have had, and why it has not."""

    label: str
    reason: str


@dataclass(frozen=True)
class Study:
    """The cells that one command asks for.

    Attributes:
        launch: its settings; `seed` and `seeds` are the first cell's.
        kinds: of its designs.
        components: names of those that the designs vary, in their order.
        outside: factors that its designs of components do not vary.
        is_named: whether its name was typed, and not a preset's.
    """

    task: Task
    launch: Launch
    cells: Sequence[Cell]
    kinds: Sequence[str]
    components: Sequence[str]
    left_out: Sequence[LeftOut]
    outside: Sequence[str] = ()
    is_named: bool = False

    @property
    def name(self) -> str:
        """The name asked for, else the design's, else the factors joined, else the only cell's.

        Of another task than the one that comes first, with the task's name: studies of several share a folder.
        """
        if self.launch.name is not None:
            return self.launch.name
        first = self.cells[0]
        of_factors = {*self.kinds} <= {"grid", "one_factor", "latin_square"}
        factors = [factor.replace(".", "_") for factor in first.levels] if of_factors else []
        parts = [*(kind for kind in self.kinds if kind != "grid"), *factors]
        if self.task.reference == DEFAULT:
            return folder_name("-".join(parts or (word.partition("=")[0] for word in first.label.split(" "))))
        return folder_name("-".join([self.task.name, *parts]))

    def record(self) -> dict[str, object]:
        """The design, as a launch writes it down."""
        return {
            "kind": "+".join(self.kinds),
            "components": list(self.components),
            "left_out": [asdict(left_out) for left_out in self.left_out],
        }


def label(levels: Mapping[str, str], typed: Sequence[str], config: Any, task: Task) -> str:
    """What a cell is called: by its levels; where these are one preset or none, by that of its parts, else its task.

    Args:
        typed: names of the overrides; of parts that the preset sets, those that were typed are told with it.
    """
    presets = named(type(config), "preset")
    preset = next(iter(levels)) if len(levels) == 1 else ""
    if levels and preset not in presets:
        return " ".join(f"{name}={value}" for name, value in levels.items())
    if not levels and not (preset := next((name for name in presets if "." not in name), "")):
        return task.name
    kind: type = type(config)
    known = knobs_of(kind)
    own = [name for name in typed if name in known and known[name][0].role("set_by") == preset]
    return " ".join([levels.get(preset) or getattr(config, preset), *(f"{n}={show(getattr(config, n))}" for n in own)])
