"""What the guards found, in sentences that name the rows. Knobs are named where a study has them on record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from ablate.analyze.differs import Task
from ablate.analyze.guards import HOPELESS, Disagreement, Guards, Sizes
from ablate.metric import Metric
from ablate.names import some
from ablate.report import told


def guards_told(metric: Metric, task: Task, found: Guards, trials: pd.DataFrame) -> list[str]:
    """A sentence or two for each guard that found something. `trials`: for their knobs."""
    sentences = [
        _of_hopeless(metric, found.hopeless),
        _of_hardly(metric, found.hardly),
        _of_starts(metric, task, found.starts, trials),
        _of_falling(metric, task, found, trials),
        _of_disagreements(metric, task, list(found.disagreements), trials),
        _of_sizes(found.sizes),
        _of_clipping(found.clipped, trials),
        _of_jumps(metric, found.jumps),
    ]
    return [sentence for sentence in sentences if sentence]


def _of_hopeless(metric: Metric, hopeless: Mapping[str, float]) -> str:
    if not hopeless:
        return ""
    return (
        f"Nothing was learned in {some(list(hopeless))}: the test {metric.name} is worse than "
        f"{_chance(metric, hopeless)}. A comparison with these rows says nothing about parts; a lower learning rate or "
        "a longer training may help."
    )


def _of_hardly(metric: Metric, hardly: Mapping[str, float]) -> str:
    if not hardly:
        return ""
    apart = told.size(metric, HOPELESS) if metric.scale == "log" else f"{100 * HOPELESS:.0f} %"
    return (
        f"Hardly anything was learned in {some(list(hardly))}: the test {metric.name} is within {apart} of "
        f"{_chance(metric, hardly)}. That these rows differ, or are equivalent, says nothing about parts; train longer."
    )


def _chance(metric: Metric, cells: Mapping[str, float]) -> str:
    values = dict.fromkeys(told.value(metric, value) for value in cells.values())
    return f"the {' or '.join(values)} of a model that knows nothing"


def _of_starts(metric: Metric, task: Task, starts: Mapping[str, float], trials: pd.DataFrame) -> str:
    if not starts:
        return ""
    what, than = (
        (f"the loss of the first {task['step']} is higher, in nats, in", "starts lowest")
        if metric.logged is not None
        else (f"the {metric.name} of the first {task['step']} is worse in", "starts best")
    )
    which = some([f"{cell} (by {_apart(metric, above)})" for cell, above in starts.items()])
    schemes = _knob(trials, "init", starts)
    return (
        f"The models do not start alike: {what} {which} than in the row that {than}. "
        "Part of the difference between these rows may come from their initial values"
        + ("." if not schemes or schemes == {"scaled"} else "; init=scaled starts all alike.")
    )


def _of_falling(metric: Metric, task: Task, found: Guards, trials: pd.DataFrame) -> str:
    if not found.falling:
        return ""
    schedules = _knob(trials, "schedule", found.falling)
    falls = schedules and not schedules <= {"constant", "plateau"}
    why = " (of which the falling learning rate has its part)" if falls else ""
    which = some([f"{cell} ({told.change(metric, -gain)})" for cell, gain in found.falling.items()])
    longer = (
        f" {task['budget'][0]}={found.longest:g},{2 * found.longest:g} shows whether a longer one changes the order."
        if pd.notna(found.longest)
        else ""
    )
    return (
        f"Not converged: {which}. These rows had their {told.best(metric)} valid {metric.name} at the end and gained "
        f"so much over the last half of their {told.steps(task)}{why}: the table ranks what was learnt within this "
        f"budget.{longer}"
    )


def _of_disagreements(metric: Metric, task: Task, found: list[Disagreement], trials: pd.DataFrame) -> str:
    if not found:
        return ""
    which = some([f"{each.cell} seed {each.seed} ({_both(metric, each)})" for each in found])
    step = task["step"]
    carried = (
        f"A state that is carried from {step} to {step} may have gone astray in one of the two: more "
        if True in _knob(trials, "carry", [each.cell for each in found])
        else "More "
    )
    return (
        f"Valid and test data disagree about {which}, more than about the other trials. {carried}seeds show whether it "
        "is chance."
    )


def _both(metric: Metric, trial: Disagreement) -> str:
    return f"valid {told.value(metric, trial.valid)}, test {told.value(metric, trial.test)}"


def _of_sizes(sizes: Sizes | None) -> str:
    if sizes is None:
        return ""
    small, large = some(sizes.small, 3), some(sizes.large, 3)
    return (
        f"The rows differ in size, from {sizes.smallest:,.0f} parameters ({small}) to {sizes.largest:,.0f} ({large}): "
        "where a part adds or removes parameters, its effect includes theirs."
    )


def _of_clipping(clipped: Mapping[str, float], trials: pd.DataFrame) -> str:
    """Adam divides the gradient by its size: there a limit that always acts changes little."""
    told_of = {cell: share for cell, share in clipped.items() if _knob(trials, "optimizer", [cell]) <= {"sgd"}}
    if not told_of:
        return ""
    which = some([f"{cell} ({100 * share:.0f} %)" for cell, share in told_of.items()])
    return (
        f"The gradient was clipped nearly always in {which}: there the limit `clip`, rather than the gradient, sets "
        "the length of a step, and lr and clip may suit some rows better than others."
    )


def _of_jumps(metric: Metric, jumps: Mapping[str, float]) -> str:
    if not jumps:
        return ""
    if metric.logged is not None:
        what, which = "The train loss jumped", [f"{cell} (by {rise:.1f} nats)" for cell, rise in jumps.items()]
    else:
        what = f"The train {metric.name} became much worse for a while"
        which = [f"{cell} (by {told.size(metric, rise)})" for cell, rise in jumps.items()]
    return (
        f"{what} in {some(which)}: the learning rate is near the highest that these rows bear, and may favour the "
        "others."
    )


def _apart(metric: Metric, difference: float) -> str:
    return f"{difference:.2f}" if metric.logged is not None else told.size(metric, difference)


def _knob(trials: pd.DataFrame, name: str, cells: Iterable[str]) -> set[object]:
    """The values that a knob has in these cells; empty where it is not on record."""
    if f"knob.{name}" not in trials:
        return set()
    rows = trials[trials["cell"].isin(list(cells)) & trials["data"].notna()]
    return set(rows[f"knob.{name}"].dropna())
