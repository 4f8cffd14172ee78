"""The records that a command line fills: those of the launch and of its design, and the task's own."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ablate.described import Description, describe
from ablate.knobs import (
    Knob,
    KnobError,
    fields_of,
    knobs_of,
    nameable,
    named,
    nested_records,
    read,
    show,
    values_of,
)
from ablate.launch import Design, Launch
from ablate.protocol import Task
from ablate.registry import suggest

# What says which cells there are, and is no knob of any: `ablate.study.designs` reads it.
OF_THE_DESIGN = ("design", "components")
_OF_LAUNCH = tuple(fields_of(Launch))


class Reader:
    """Reads the values of jobs, which have most in common: what was read once is not read again."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._launches: dict[str, Launch] = {}

    def launch(self, values: Mapping[str, Any]) -> Launch:
        """The settings of a job's launch. Raises KnobError."""
        own = {name: values[name] for name in _OF_LAUNCH if name in values}
        if (text := repr(own)) not in self._launches:
            self._launches[text] = read(Launch, own)
        return self._launches[text]

    def config(self, values: Mapping[str, Any]) -> Any:
        """The task's configuration. Raises KnobError."""
        own = {name: value for name, value in values.items() if name not in (*_OF_LAUNCH, *OF_THE_DESIGN)}
        if strangers := [name for name in own if name not in fields_of(self.task.Config)]:
            known = [*fields_of(self.task.Config), *_OF_LAUNCH]
            raise KnobError(*(f"{n}={show(own[n])}: unknown knob{suggest(n, known)}" for n in strangers))
        return read(self.task.Config, own)

    def both(self, values: Mapping[str, Any]) -> tuple[Launch, Any]:
        """Both. Raises KnobError with all that is wrong with either."""
        problems: list[str] = []
        found = []
        reads: tuple[Callable[[Mapping[str, Any]], Any], ...] = (self.launch, self.config)
        for each in reads:
            try:
                found.append(each(values))
            except KnobError as error:
                problems += error.problems
        if problems:
            raise KnobError(*problems)
        launch, config = found
        return launch, config


@dataclass(frozen=True)
class Space:
    """What a design is made in.

    Attributes:
        compose: overrides → the values they resolve to.
        read: those values → the knobs of the task, checked.
        known: the knobs that there are.
        refuse: a key of an override → why it is refused; None: it is known.
    """

    compose: Callable[[Sequence[str]], Mapping[str, Any]]
    read: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    known: Mapping[str, Sequence[Knob]]
    refuse: Callable[[str], str | None]


def space(task: Task, compose: Callable[[Sequence[str]], Mapping[str, Any]]) -> Space:
    """The space of a task's cells."""
    reader = Reader(task)
    return Space(
        compose=compose,
        read=lambda values: values_of(reader.both(values)[1]),
        known=nameable(task.Config),
        refuse=lambda key: unknown_name(task, key),
    )


def read_design(values: object) -> Design:
    """The frozen form of the group `design`. Raises KnobError."""
    return read(Design, values if isinstance(values, Mapping) else {}, "design.")


def presets_of(task: Task) -> list[str]:
    """Names of the groups of presets: the task's own, and those of every launch."""
    folder = task.presets
    own = [] if folder is None else sorted(path.name for path in folder.iterdir() if path.is_dir())
    return [*own, "tracking", "engine", "design"]


def unknown_name(task: Task, key: str) -> str | None:
    """Why an override's key, for example "optimizer.rate", is refused; None when it names a knob or a group."""
    members = {**_members(task.Config), **_members(Launch), "design": list(fields_of(Design))}
    known = [*fields_of(task.Config), *_OF_LAUNCH, *presets_of(task), *OF_THE_DESIGN, "hydra"]
    name, _, rest = key.replace("/", ".").partition(".")
    if name not in known:
        return f"unknown knob {name!r}{suggest(name, known)}"
    if rest and name in members and rest not in members[name]:
        return f"unknown knob {rest!r} of {name}{suggest(rest, members[name])}"
    return None


@cache
def _members(kind: type) -> dict[str, list[str]]:
    """Name of a nested record → the knobs that any of its kinds has."""
    return {
        name: sorted({knob.partition(".")[2] for knob in knobs_of(kind) if knob.startswith(f"{name}.")})
        for name, field in fields_of(kind).items()
        if nested_records(field)
    }


def describe_knobs(task: Task, values: Mapping[str, Any] | None = None, width: int = 80) -> str:
    """Every knob with its meaning, its range and its default, under the headings of their groups.

    Args:
        values: the defaults, by name.
        width: columns of the terminal.
    """
    given = values or {}
    lines = [
        *describe(task.Config, values=given, group=task.name),
        *describe(Design, "design.", given.get("design"), group=_STUDY),
        Description(_STUDY, "components.NAME", "a part and its off level, for the designs (NAME=off)"),
        *describe(Launch, values=given),
    ]
    groups: dict[str, list[str]] = {}
    for line in lines:
        groups.setdefault(line.group, []).append(_wrapped(line, width))
    return "\n\n".join("\n".join([f"== {group} ==", *texts]) for group, texts in groups.items())


_STUDY = "Study"
_NAMES = 18  # columns of the names


def _wrapped(line: Description, width: int) -> str:
    first = f"  {line.name:<{_NAMES - 2}}"
    if len(first) > _NAMES:  # a long name has a line of its own
        first += "\n" + " " * _NAMES
    body = textwrap.wrap(line.text, max(width - _NAMES - 1, 40), break_long_words=False, break_on_hyphens=False)
    return f"{first} " + f"\n{' ' * (_NAMES + 1)}".join(body)


def task_record(task: Task, program: str = "python -m ablate") -> dict[str, Any]:
    """What a launch records of its task, for who reads its results without it.

    `program`: what starts it; `step`: the word for one; `unit`: what training reads; `budget`: knobs that set how much
    a trial trains on, first the one that scales a whole training; `presets`: knobs that name a preset, and the parts
    that it sets on purpose; `follows`: knobs that take another's value unless they are set; `idle`: knobs that change
    no result; `decides`: knobs that do; `kinds`: groups of knobs that differ from preset to preset; `noise`: knobs that
    are the seed of one source of noise, what that is called, and the knob it `needs` (None: it always does something).
    """
    kind = task.Config
    presets, parts = named(kind, "preset"), knobs_of(kind)
    return {
        "name": task.name,
        "program": program,
        "step": task.step,
        "unit": task.unit,
        "budget": list(task.budget),
        "presets": {p: [name for name, each in parts.items() if each[0].role("set_by") == p] for p in presets},
        "follows": {name: parts[name][0].role("follows") for name in named(kind, "follows")},
        "idle": [
            name
            for name, each in parts.items()
            if not each[0].role("decides", True) and name not in presets and "." not in name
        ],
        "decides": [name for name, each in parts.items() if each[0].role("decides", True)],
        "noise": {
            name: {"source": parts[name][0].role("noise"), "needs": parts[name][0].role("needs")}
            for name in named(kind, "noise")
        },
        "kinds": [name for name, field in fields_of(kind).items() if nested_records(field)[1:]],
    }
