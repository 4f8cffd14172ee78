"""Guards against a comparison that is no comparison: what a table of results does not show of itself.

Each guard looks for one thing in what was recorded. The limits are constants at the top. They are differences of scores
on a logarithmic scale; on a linear one they are shares of the value that is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablate.analyze.differs import Task
from ablate.analyze.table import finished, numbers, scores
from ablate.metric import Metric

STARTS_ALIKE = 0.1  # first results that differ by more come from different initial values
CONVERGED = 0.02  # what the last doubling of the budget may still have brought
READS_ALIKE = 0.1  # how far the difference of valid and test score may lie from the other trials'
SAME_SIZE = 1.1  # ratio of parameters
CLIPPED = 0.9  # share of steps
HOPELESS = 0.1  # how far from a model that knows nothing: worse by more, nothing was learned; better by less, hardly
JUMP = 0.5  # that the train score may rise above its lowest so far, between two points of its curve
_FEW = 3  # trials, below which nothing is far from the others

ByCell = Mapping[str, float]


@dataclass(frozen=True)
class Disagreement:
    """A trial whose valid and test results differ more than those of the others."""

    cell: str
    seed: int
    valid: float
    test: float


@dataclass(frozen=True)
class Sizes:
    """The smallest and the largest model, in parameters, with the cells that have it."""

    smallest: float
    small: Sequence[str]
    largest: float
    large: Sequence[str]


@dataclass(frozen=True)
class Guards:
    """What was found; empty or None where there is nothing.

    Attributes:
        hopeless: of the cells that have learned nothing, the metric of a model that knows nothing; hardly: the same of
            those that have hardly learned anything.
        starts: how much worse the first score of a cell is than the lowest that begins alike.
        falling: of the cells that were best at their last step and gained more than `CONVERGED` over the last half of
            their steps, how much; longest: the largest level of the task's first budget knob, to which these belong;
            NaN where it is not on record.
        disagreements: trials whose valid and test results do not go together.
        sizes: where the cells differ by more than a tenth.
        clipped: share of the steps with a clipped gradient, where it is more than `CLIPPED`.
        jumps: how far the train score rose above its lowest so far, where that is more than `JUMP`.
    """

    hopeless: ByCell
    hardly: ByCell
    starts: ByCell
    falling: ByCell
    longest: float
    disagreements: Sequence[Disagreement]
    sizes: Sizes | None
    clipped: ByCell
    jumps: ByCell


def guards(metric: Metric, task: Task, trials: pd.DataFrame, curves: pd.DataFrame) -> Guards:
    """Look for everything at once.

    Args:
        task: as a launch records it.
        trials, curves: as `read_study` gives them.
    """
    done = finished(metric, trials)
    longest, of_longest = longest_budget(task, done)
    return Guards(
        *learned(metric, done),
        starts(metric, done),
        falling(metric, of_longest, curves),
        longest,
        disagreements(metric, done),
        sizes(done),
        clipped(done),
        jumps(metric, done, curves),
    )


def learned(metric: Metric, done: pd.DataFrame) -> tuple[ByCell, ByCell]:
    """Cells whose mean test score is more than `HOPELESS` above that of a model that knows nothing, and those that are
    no more than that below it."""
    known = f"chance_{metric.recorded}"
    if known not in done or done[known].isna().all():
        return {}, {}
    chance = pd.Series(scores(metric, done[known]), done.index)
    above = pd.Series(scores(metric, done[f"test_{metric.recorded}"]), done.index) - chance
    limit = HOPELESS * chance.map(lambda score: _unit(metric, score))
    by_cell = (above / limit).groupby(done["cell"], sort=False).mean()
    nothing = chance.groupby(done["cell"], sort=False).first().map(metric.of_score)
    return _by_cell(nothing[by_cell > 1]), _by_cell(nothing[by_cell.between(-1, 1)])


def starts(metric: Metric, done: pd.DataFrame) -> ByCell:
    """Cells whose first score is more than `STARTS_ALIKE` above the lowest of those with the same `alike`."""
    first, known = f"first_{metric.recorded}", done[done["alike"].notna()] if "alike" in done else done.iloc[:0]
    if known.empty or first not in known:
        return {}
    by_cell = pd.Series(scores(metric, known[first]), known.index).groupby(known["cell"], sort=False).mean()
    alike = known.drop_duplicates("cell").set_index("cell")["alike"]
    lowest = by_cell.groupby(alike).transform("min")
    above = by_cell - lowest
    return _by_cell(above[above > STARTS_ALIKE * lowest.map(lambda score: _unit(metric, score))])


def longest_budget(task: Task, done: pd.DataFrame) -> tuple[float, pd.DataFrame]:
    """The largest level of the task's first budget knob and the trials that have it; NaN and all where none is known.

    Shorter ones are there to be compared with the longest.
    """
    knob = f"knob.{task['budget'][0]}" if task["budget"] else ""
    budgets = pd.to_numeric(done[knob], errors="coerce") if knob in done else pd.Series(math.nan, done.index)
    longest = float(budgets.max()) if len(budgets) else math.nan
    return longest, done if math.isnan(longest) else done[budgets == longest]


def falling(metric: Metric, done: pd.DataFrame, curves: pd.DataFrame) -> ByCell:
    """Cells of which most trials were best at their last step, and these gained more than `CONVERGED` over the last
    half of the budget."""
    at_end = pd.Series(numbers(done["best_step"]) == numbers(done["steps"]), done.index)
    best_last = done[at_end & (at_end.groupby(done["cell"]).transform("mean") > 0.5)]
    gains: dict[str, list[tuple[float, float]]] = {}
    valid = dict(iter(curves[curves["split"] == "valid"].groupby(["cell", "seed"], sort=False)))
    for cell, seed, steps in zip(best_last["cell"], best_last["seed"], best_last["steps"], strict=True):
        curve = valid.get((cell, seed))
        if curve is not None and (gain := _last_doubling(metric, curve, float(steps))) is not None:
            gains.setdefault(str(cell), []).append(gain)
    means = {cell: np.mean(values, axis=0) for cell, values in gains.items()}
    return {cell: float(gain) for cell, (gain, end) in means.items() if gain > CONVERGED * _unit(metric, float(end))}


def _last_doubling(metric: Metric, curve: pd.DataFrame, budget: float) -> tuple[float, float] | None:
    """The valid score at half the steps minus that at the end, and the latter; None where half was not measured."""
    ordered = curve.sort_values("step")
    steps, score = ordered["step"].to_numpy(float), scores(metric, ordered[metric.recorded])
    counted = np.isfinite(score) & (steps > 0)  # a task may measure before its first step, or have none
    steps, score = steps[counted], score[counted]
    if not len(steps) or steps[0] > budget / 2:
        return None
    at_half = float(np.interp(np.log(budget / 2), np.log(steps), score))  # where no validation fell on it
    return at_half - float(score[-1]), float(score[-1])


def disagreements(metric: Metric, done: pd.DataFrame) -> list[Disagreement]:
    """Trials whose valid and test scores differ otherwise than the median of those that are evaluated on the same; of
    two in the middle, the one that differs less.

    On a logarithmic scale alone: what chance does to the errors in a few hundred examples is more than any such limit.
    """
    if metric.scale != "log":
        return []
    names = [f"valid_{metric.recorded}", f"test_{metric.recorded}"]
    valid, test = (pd.Series(scores(metric, done[name]), done.index) for name in names)
    data = done["evaluated"].fillna("") if "evaluated" in done else pd.Series("", done.index)
    apart = valid - test
    off = (apart - apart.groupby(data).transform(_middle)).abs()
    limit = READS_ALIKE * test.map(lambda score: _unit(metric, score))
    odd = done[(off > limit) & (apart.groupby(data).transform("size") >= _FEW)]
    columns = (odd[name] for name in ("cell", "seed", f"valid_{metric.name}", f"test_{metric.name}"))
    return [Disagreement(str(c), int(s), float(v), float(t)) for c, s, v, t in zip(*columns, strict=True)]


def _middle(values: pd.Series[float]) -> float:
    low, high = (float(values.quantile(0.5, interpolation=which)) for which in ("lower", "higher"))
    return min(low, high, key=abs)


def sizes(done: pd.DataFrame) -> Sizes | None:
    """The smallest and the largest cell, where they differ by more than a tenth."""
    by_cell = done.drop_duplicates("cell").set_index("cell")["parameters"].dropna().astype(float)
    if by_cell.empty or by_cell.max() <= SAME_SIZE * by_cell.min():
        return None
    small, large = ([str(cell) for cell in by_cell.index[by_cell == end]] for end in (by_cell.min(), by_cell.max()))
    return Sizes(float(by_cell.min()), small, float(by_cell.max()), large)


def clipped(done: pd.DataFrame) -> ByCell:
    """Cells whose gradient was clipped in more than `CLIPPED` of their steps."""
    if "clipped" not in done:
        return {}
    shares = done["clipped"].astype(float).groupby(done["cell"], sort=False).mean()
    return _by_cell(shares[shares > CLIPPED])


def jumps(metric: Metric, done: pd.DataFrame, curves: pd.DataFrame) -> ByCell:
    """Cells whose train score rose by more than `JUMP` above its lowest so far, which a rate that is too high does."""
    train = curves[curves["split"] == "train"]
    heights: dict[str, float] = {}
    known = dict.fromkeys(map(str, done["cell"]))
    for (cell, _), curve in train.groupby(["cell", "seed"], sort=False):
        score = scores(metric, curve.sort_values("step")[metric.recorded])
        score = score[np.isfinite(score)]  # a score that is no number is told as divergence
        lowest = np.minimum.accumulate(score)
        units = np.array([_unit(metric, each) for each in lowest.tolist()])
        rises = (score - lowest)[score - lowest > JUMP * units]
        if str(cell) in known and len(rises):
            heights[str(cell)] = max(float(rises.max()), heights.get(str(cell), 0.0))
    return heights


def _unit(metric: Metric, score: float) -> float:
    """What the limits are multiples of."""
    return 1.0 if metric.scale == "log" else abs(score) or math.inf


def _by_cell(values: pd.Series[float]) -> dict[str, float]:
    return {str(cell): float(value) for cell, value in values.items()}
