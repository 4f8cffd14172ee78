"""The stages that a plan is trained in: all seeds at once, or with seeds=auto as many as it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from ablate.engines.engine import Demand, Engine
from ablate.launch import FEWEST_SEEDS
from ablate.study.cells import Study
from ablate.study.packs import demand_of, make_packs
from ablate.study.plan import PlannedTrial

if TYPE_CHECKING:
    from ablate.analyze.stopping import Look
    from ablate.track.read import Results

Trials = Sequence[PlannedTrial]


class Stages:
    """How a plan is divided.

    A fixed number of seeds is one stage. With seeds=auto the first stage is three seeds of every cell, and each stage
    after it one seed more; between two stages one looks at the results. What earlier launches have finished is looked
    at in the same way, so that a launch goes on or stops where one that was never interrupted would.

    Args:
        plan: every trial that may be trained.
        engine: what trains them.
        read: the results of trials, as far as they have come.
    """

    def __init__(self, study: Study, plan: Trials, engine: Engine, read: Callable[[Trials], Results]) -> None:
        self._study = study
        self._engine = engine
        self._plan = plan
        self._read = read
        self._is_auto = study.launch.seeds == "auto"
        self._most = study.launch.most_seeds

    @cached_property
    def seeds(self) -> int:
        """Of the first stage: where something is left to be trained, or where it stops by what is finished."""
        if not self._is_auto:
            return self._most
        finished = FEWEST_SEEDS - 1
        while finished < self._most and all(planned.is_done for planned in self.up_to(finished + 1)):
            finished += 1
        if finished < FEWEST_SEEDS:
            return FEWEST_SEEDS
        results = self._read(self.up_to(finished))
        for seeds in range(FEWEST_SEEDS, finished + 1):
            if self.is_enough(_look(_first_seeds(results, self._end(seeds)))):
                return seeds
        return finished + 1

    def up_to(self, seeds: int) -> Trials:
        """The trials of so many seeds of every cell."""
        if not self._is_auto:
            return self._plan
        return [planned for planned in self._plan if planned.trial.seed < self._end(seeds)]

    def added(self, seeds: int) -> Trials:
        """Those of the last of so many seeds."""
        return [planned for planned in self._plan if planned.trial.seed == self._end(seeds) - 1]

    def in_order(self) -> list[Trials]:
        """Every stage that may be trained."""
        first = self.up_to(self.seeds)
        if not self._is_auto or all(planned.is_done for planned in first):  # it is enough already
            return [first]
        return [first, *(self.added(seeds) for seeds in range(self.seeds + 1, self._most + 1))]

    def look(self, seeds: int) -> Look:
        """At the results of so many seeds."""
        return _look(self._read(self.up_to(seeds)))

    def is_enough(self, look: Look) -> bool:
        """Whether no further seed is trained after it."""
        return not look.undecided or look.seeds >= self._most

    def packs(self, stage: Trials) -> list[list[PlannedTrial]]:
        """What is left of a stage, as it is trained."""
        return make_packs(to_train(stage), self._study, self._engine.machine)

    def largest(self) -> Demand:
        """What the largest stage that is left asks of the engine."""
        return demand_of(max((self.packs(stage) for stage in self.in_order()[:2]), key=len), self._study)

    def _end(self, seeds: int) -> int:
        return self._study.launch.seed + seeds


def to_train(trials: Trials) -> list[PlannedTrial]:
    """Those that have no result yet."""
    return [planned for planned in trials if not planned.is_done]


def _look(results: Results) -> Look:
    # Late: pandas and scipy take seconds to import, and meanwhile the first trials train.
    from ablate.analyze.stopping import look

    return look(results)


def _first_seeds(results: Results, end: int) -> Results:
    return replace(results, trials=results.trials[results.trials["seed"] < end])
