"""Jobs as Hydra made them → the cells of a study: parsed, checked, labelled, each configuration once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ablate.config import KnobError, Knobs, parse, show

# Knobs that belong to a launch as a whole.
_ONE_VALUE = ("runs", "reports", "name", "tracking", "workers")
# A replicate is not a level: seeds=3 and seed=0,1,2 give the same table.
_NOT_FACTORS = ("seed", "seeds")


@dataclass(frozen=True)
class Job:
    """One Hydra job: the overrides that made it, as typed, and the plain values they resolve to.

    Attributes:
        environment: name → value of the environment variables that the values were made with; they may be secrets.
    """

    overrides: tuple[str, ...]
    values: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One combination of levels.

    Attributes:
        label: what tells it from the study's other cells, for example "depth=2 tie=true".
        levels: factor → level, as typed.
        knobs: everything that is set.
        seeds: its replicates.
    """

    label: str
    levels: Mapping[str, str]
    knobs: Knobs
    seeds: tuple[int, ...]
    environment: Mapping[str, str]

    def record(self) -> dict[str, object]:
        """Every knob of its trials, as it may be written down."""
        return _recorded(self.knobs, self.environment)


def _recorded(knobs: Knobs, environment: Mapping[str, str]) -> dict[str, object]:
    """The knobs, a value from the environment by the name of its variable: "${oc.env:HOME}/my.txt"."""
    record = knobs.flat()
    for name in knobs.free_text():
        text = record[name]
        for variable, value in environment.items():
            if isinstance(text, str) and value:
                text = text.replace(value, f"${{oc.env:{variable}}}")
        record[name] = text
    return record


def make_cells(jobs: Sequence[Job]) -> list[Cell]:
    """Check all jobs and merge those with the same knobs: their seeds are replicates of one cell.

    Raises:
        KnobError: with what is wrong in any of them, each problem once.
    """
    parsed = _parse_all(jobs)
    varied = _varied(jobs)
    merged: dict[str, Cell] = {}
    for job, knobs in zip(jobs, parsed, strict=True):
        job_levels = _levels(job, knobs, varied)
        label = _label(job_levels, knobs)
        seeds = tuple(range(knobs.seed, knobs.seed + knobs.seeds))
        identity = json.dumps({**knobs.deciding(), "data": asdict(knobs.data)}, sort_keys=True)
        if (same := merged.get(identity)) is not None:
            seeds = tuple(dict.fromkeys((*same.seeds, *seeds)))
            label, job_levels, knobs = same.label, dict(same.levels), same.knobs
        merged[identity] = Cell(label, job_levels, knobs, seeds, job.environment)
    return list(merged.values())


def study_name(cells: Sequence[Cell]) -> str:
    """The name asked for, else the factors joined, else the only cell's model."""
    first = cells[0]
    if first.knobs.name is not None:
        return first.knobs.name
    return "-".join(factor.replace(".", "_") for factor in first.levels) or first.knobs.model


def _parse_all(jobs: Sequence[Job]) -> list[Knobs]:
    parsed, problems = [], {}
    for job in jobs:
        try:
            parsed.append(parse(job.values))
        except KnobError as error:
            problems.update(dict.fromkeys(error.problems))
    for name in _ONE_VALUE:
        values = list(dict.fromkeys(str(getattr(knobs, name)) for knobs in parsed))
        if len(values) > 1:
            problems[f"{name}={','.join(values)}: a study has one {name}; start one study for each"] = None
    if problems:
        raise KnobError(*problems)
    return parsed


def _varied(jobs: Sequence[Job]) -> list[str]:
    """Names of the overrides that are not the same in all jobs."""
    pairs = [dict(_pairs(job.overrides)) for job in jobs]
    names = dict.fromkeys(name for job in pairs for name in job)
    return [name for name in names if name not in _NOT_FACTORS and len({job.get(name) for job in pairs}) > 1]


def _levels(job: Job, knobs: Knobs, varied: Sequence[str]) -> dict[str, str]:
    """Factor → level of a job; a knob's level as it was understood, a preset's as it was typed."""
    typed, understood = dict(_pairs(job.overrides)), _recorded(knobs, job.environment)
    return {name: show(understood.get(name, typed[name])) for name in varied if name in typed}


def _pairs(overrides: Iterable[str]) -> Iterable[tuple[str, str]]:
    for override in overrides:
        name, _, value = override.partition("=")
        yield name.lstrip("+~"), value


def _label(levels: Mapping[str, str], knobs: Knobs) -> str:
    if not levels:
        return knobs.model
    if list(levels) == ["model"]:
        return levels["model"]
    return " ".join(f"{name}={value}" for name, value in levels.items())
