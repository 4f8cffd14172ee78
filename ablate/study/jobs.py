"""Jobs as Hydra made them → the cells of a study: parsed, checked, labelled, each configuration once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablate.find_task import load_task
from ablate.knobs import KnobError, deciding, flat, nameable, show, values_of
from ablate.launch import Design, Launch
from ablate.protocol import Task
from ablate.study.cells import Cell, Job, LeftOut, Study, label, recorded
from ablate.study.components import Component, declared
from ablate.study.conditions import Condition, Values, read_condition
from ablate.study.designs import REPLICATES, check_use
from ablate.study.records import OF_THE_DESIGN, Reader, read_design
from ablate.track.labels import display_names
from ablate.worth import margin

# Of a launch, what a cell may have its own of: its replicates.
_OF_CELLS = ("seed", "seeds")


def make_study(jobs: Sequence[Job]) -> Study:
    """Check all jobs, leave out what a design excludes, and merge jobs with the same knobs: one cell, more seeds.

    Raises:
        KnobError: with what is wrong in any of them, each problem once; when no cell is left.
    """
    reader = _Reader(load_task(str(jobs[0].values["task"])))
    designs = [reader.design(job) for job in jobs]
    asked = [job.asked for job in jobs if job.asked is not None]
    if not asked:
        check_use(designs)
    varied = _varied(jobs)
    candidates = [c for job in jobs if (c := reader.candidate(job, varied)) is not None]
    left_out = dict.fromkeys(skipped for candidate in candidates for skipped in candidate.skipped())
    exclude = dict.fromkeys(text for design in designs for text in design.exclude)
    kept = _keep(
        candidates,
        reader,
        [read_condition(text, "design.exclude", reader.known) for text in exclude],
        left_out,
        len(jobs),
    )
    reader.finish()
    launch, cells = candidates[0].launch, _merged(kept, reader.task)
    if launch.seeds == "auto" and len(cells) < 2:
        raise KnobError("seeds=auto: one cell has nothing to be compared with; add another one, or use seeds=3")
    labels = [*(cell.label for cell in cells), *(one.label for one in left_out)]
    display_names(list(dict.fromkeys(labels)), launch.labels or {}, "labels")
    return Study(
        task=reader.task,
        launch=launch,
        cells=cells,
        kinds=list(dict.fromkeys(design.kind for design in designs)),
        components=list(dict.fromkeys(name for each in asked for name in each.components)),
        left_out=list(left_out),
        outside=[name for name in dict.fromkeys(n.lstrip("+") for each in asked for n in each.at) if name in varied],
        is_named=any("name" in dict(_pairs(job.overrides)) for job in jobs),
    )


@dataclass(frozen=True)
class _Candidate:
    """A job whose knobs are right each by itself; whether they go together is not known yet.

    Attributes:
        typed: the levels that its own overrides name.
        levels: of every factor.
        values: what a condition can name.
    """

    job: Job
    launch: Launch
    config: Any
    task: Task
    typed: Mapping[str, str]
    levels: Mapping[str, str]
    values: Values
    components: Mapping[str, Component]

    @property
    def label(self) -> str:
        asked = self.job.asked
        if asked is not None and asked.label:
            return self._before + asked.label
        return label(self.typed, [*dict(_pairs(self.job.overrides))], self.config, self.task)

    @property
    def base(self) -> str:
        """Label of the cell that its design compares it with; "": it has none."""
        return self._before + self.job.asked.base if self.job.asked is not None and self.job.asked.base else ""

    @property
    def _before(self) -> str:
        """The levels of what lies outside the design: "lr=0.1 "."""
        outside = [name.lstrip("+") for name in self.job.asked.at] if self.job.asked is not None else []
        # What has one level only is no factor, nor is a seed.
        return "".join(f"{name}={self.levels[name]} " for name in outside if name in self.levels)

    def skipped(self) -> list[LeftOut]:
        """What the design had no use for, as the sweeper found."""
        given = self.job.asked.left_out if self.job.asked is not None else ()
        return [LeftOut(self._before + one["label"], one["reason"]) for one in given]

    def refusal(self) -> str | None:
        """Which component's rule it breaks; None: none."""
        return next((r for c in self.components.values() if (r := c.refusal(self.values)) is not None), None)

    def cell(self) -> Cell:
        """With its replicates, as many as it may come to have."""
        seeds = tuple(range(self.launch.seed, self.launch.seed + self.launch.most_seeds))
        on = {name: component.is_on(self.values) for name, component in self.components.items()}
        return Cell(self.label, dict(self.levels), self.config, seeds, self.job.environment, on)


class _Reader(Reader):
    """Reads jobs, and collects what is wrong with any of them."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.known = nameable(task.Config)
        self.problems: dict[str, None] = {}
        self._designs: dict[str, Design] = {}
        self._components: dict[str, dict[str, Component]] = {}
        self._settings: dict[str, dict[str, None]] = {}

    def design(self, job: Job) -> Design:
        if (text := repr(job.values["design"])) not in self._designs:
            self._designs[text] = read_design(job.values["design"])
        return self._designs[text]

    def candidate(self, job: Job, varied: Sequence[str]) -> _Candidate | None:
        """None where it cannot be read."""
        try:
            launch, config = self.both(job.values)
            margin(launch.worth, self.task.metrics[0])
            components = self._declared(job)
        except KnobError as error:
            self.problems.update(dict.fromkeys(error.problems))
            return None
        for name, value in flat(launch).items():
            self._settings.setdefault(name, {})[show(value)] = None
        typed = dict(_pairs(job.overrides))
        levels = _levels(typed, config, varied, job.environment)
        own = {name: level for name, level in levels.items() if name in typed}
        return _Candidate(job, launch, config, self.task, own, levels, values_of(config), components)

    def _declared(self, job: Job) -> dict[str, Component]:
        values = job.values.get("components", {})
        if (text := repr(values)) not in self._components:
            self._components[text] = declared(values, self.known)
        return self._components[text]

    def finish(self) -> None:
        """Raise KnobError with all that is wrong."""
        for name, values in self._settings.items():
            if len(values) < 2:
                continue
            if name not in _OF_CELLS:
                self.problems[f"{name}={','.join(values)}: a study has one {name}; start one study for each"] = None
            elif "auto" in self._settings["seeds"]:
                same = f"seeds=auto gives every cell the same seeds; for example {name}={next(iter(values))}"
                self.problems[f"{name}={','.join(values)}: {same}"] = None
        if self.problems:
            raise KnobError(*self.problems)


def _keep(
    candidates: Sequence[_Candidate],
    reader: _Reader,
    exclude: Sequence[Condition],
    left_out: dict[LeftOut, None],
    jobs: int,
) -> list[_Candidate]:
    """Those that are cells; the others are noted in `left_out`, or, where nothing else was asked for, are problems."""
    excluded, refused, kept = {}, {}, []
    for candidate in candidates:
        if (condition := next((c for c in exclude if c.holds(candidate.values)), None)) is not None:
            excluded[LeftOut(candidate.label, condition.text)] = candidate
        elif (refusal := candidate.refusal()) is not None:
            refused[LeftOut(candidate.label, refusal)] = candidate
        else:
            kept.append(candidate)
    reader.problems.update(dict.fromkeys(_without_base(kept, [*excluded, *refused])))
    # A cell that was asked for alone is not left out: its knobs are wrong.
    alone = not kept and len(candidates) == jobs
    for candidate in (*kept, *(refused.values() if alone else ())):
        try:
            reader.task.check(candidate.config)
        except KnobError as error:
            reader.problems.update(dict.fromkeys(error.problems))
    if alone and not reader.problems:
        reader.problems[_no_cell_left([*excluded], [*refused])] = None
    left_out.update(dict.fromkeys((*excluded, *refused)))
    return kept


def _without_base(kept: Sequence[_Candidate], left_out: Sequence[LeftOut]) -> Iterable[str]:
    """What is wrong where a design goes without the cell that it compares its others with."""
    have = {candidate.label for candidate in kept}
    reasons = {one.label: one.reason for one in left_out}
    for base in dict.fromkeys(candidate.base for candidate in kept):
        if base not in have and base in reasons:
            yield (
                f"{base}: left out ({reasons[base]}), and the other cells of the design are compared with it; "
                "change the condition, or ask for another full model"
            )


def _no_cell_left(excluded: Sequence[LeftOut], refused: Sequence[LeftOut]) -> str:
    if not excluded:
        return f"{refused[0].label}: {refused[0].reason}, which does not hold, and no other cell is left"
    conditions = ", ".join(f'"{text}"' for text in dict.fromkeys(left.reason for left in excluded))
    return f"design.exclude=[{conditions}]: leaves no cell; take out a condition, or add levels where none holds"


def _merged(kept: Sequence[_Candidate], task: Task) -> list[Cell]:
    """Each configuration once, under the label that came first, with the seeds of all."""
    merged: dict[str, Cell] = {}
    labels: set[str] = set()
    for candidate in kept:
        cell = candidate.cell()
        identity = json.dumps(_identity(cell.config), sort_keys=True)
        if (same := merged.get(identity)) is not None:
            cell = replace(same, seeds=tuple(dict.fromkeys((*same.seeds, *cell.seeds))))
        elif cell.label in labels:  # two designs may have a base each
            cell = replace(cell, label=f"{cell.label} ({label(cell.levels, (), cell.config, task)})")
        merged[identity] = cell
        labels.add(cell.label)
    return list(merged.values())


def _identity(config: Any) -> dict[str, Any]:
    """What two cells of one study differ in: nested records too, which decide by their digest."""
    nested = {name: value for name, value in flat(config).items() if "." in name}
    return deciding(config) | nested


def _varied(jobs: Sequence[Job]) -> list[str]:
    """Names of the overrides that are not the same in all jobs."""
    pairs = [dict(_pairs(job.overrides)) for job in jobs]
    names = dict.fromkeys(name for job in pairs for name in job)
    return [name for name in names if name not in REPLICATES and len({job.get(name) for job in pairs}) > 1]


def _levels(
    typed: Mapping[str, str], config: Any, varied: Sequence[str], environment: Mapping[str, str]
) -> dict[str, str]:
    """Factor → level of a job; a knob's level as it was understood, a preset's as it was typed."""
    understood, resolved = recorded(config, environment), values_of(config)
    return {name: _shown(understood.get(name, typed.get(name, resolved.get(name)))) for name in varied}


def _shown(level: object) -> str:
    """A level as a user would type it: dropout=0, which is held as 0.0."""
    short = isinstance(level, float) and level.is_integer() and abs(level) < 1e6
    return show(int(level) if short else level)  # type: ignore[call-overload]


def _pairs(overrides: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Name and value, of what is no part of the design."""
    for override in overrides:
        name, _, value = override.partition("=")
        name = name.lstrip("+~")
        if name.partition(".")[0] not in OF_THE_DESIGN:
            yield name, value
