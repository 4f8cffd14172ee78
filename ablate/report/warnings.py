"""What to know before a comparison is believed, in sentences."""

from __future__ import annotations

from ablate.analyze.caveats import Caveats
from ablate.analyze.differs import Task
from ablate.analyze.study import Analysis
from ablate.metric import Metric
from ablate.names import some
from ablate.report.guards import guards_told
from ablate.report.names import knob_or_fact
from ablate.report.told import by_value
from ablate.rules import show
from ablate.track.read import Results


def warnings_of(results: Results, analysis: Analysis) -> list[str]:
    """Everything to know, a sentence or two each."""
    return [
        *_of_same(results),
        *_of_worths(results),
        *caveats_told(analysis.metric, analysis.task, analysis.caveats),
        *guards_told(analysis.metric, analysis.task, analysis.guards, results.trials),
    ]


def _of_same(results: Results) -> list[str]:
    """Which cells of several studies are one, and stand in the table under the name that the first gave them."""
    if not results.same:
        return []
    told = some([f"{cell} of {study} is {label}" for study, cell, label in results.same])
    return [f"Cells that several studies share stand here once: {told}."]


def _of_worths(results: Results) -> list[str]:
    """What several studies think worth a difference, and which of it counts here."""
    if not results.worths:
        return []
    said = by_value({study: "nothing" if worth is None else show(worth) for study, worth in results.worths.items()})
    counts = "none is called equivalent" if results.worth is None else f"the least, {show(results.worth)}, counts here"
    return [f"What difference is worth something was not said alike ({said}): {counts}. --worth sets it for all."]


def caveats_told(metric: Metric, task: Task, found: Caveats) -> list[str]:
    """What is missing, and what else differs between the rows."""
    sentences = [
        _of_seeds(found),
        _of_missing(found),
        _of_losses(metric, found),
        _of_data(metric, found),
        _of_seen(task, found),
        _of_code(found),
        _of_machines(found),
        _of_settings(task, found),
        *_of_presets(found),
    ]
    return [sentence for sentence in sentences if sentence]


def _of_seeds(found: Caveats) -> str:
    counts = {*found.seeds.values()}
    if max(counts, default=0) == 1:
        every = "Every row that has a result" if 0 in counts else "Every row"
        return (
            f"{every} is a single run (n = 1): how far seeds alone move these numbers was not measured. "
            "Add seeds=5 to the command to know."
        )
    if len(counts) > 1:
        by_n = by_value({cell: f"n = {n}" for cell, n in found.seeds.items()})
        return f"The rows do not all have the same number of finished runs: {by_n}."
    return ""


def _of_missing(found: Caveats) -> str:
    if not found.missing:
        return ""
    told = {cell: ", ".join(f"{n} {status.lower()}" for status, n in by.items()) for cell, by in found.missing.items()}
    which = some([f"{cell} ({what})" for cell, what in told.items()])
    why = (
        "The means of these rows will change with them."
        if all({*by} == {"UNFINISHED"} for by in found.missing.values())
        else "What diverges or fails may be just what would have been worse: the means of these rows leave it out."
    )
    missing = sum(sum(by.values()) for by in found.missing.values())
    return f"{missing} of {found.trials} trials {'has' if missing == 1 else 'have'} no result: {which}. {why}"


def _of_losses(metric: Metric, found: Caveats) -> str:
    if not found.not_finite:
        return ""
    which = some([f"{cell} (seed {seed})" for cell, seed in found.not_finite])
    what = "loss" if metric.logged is not None else metric.name
    return f"A test {what} that is no finite number counts as no result: {which}."


def _of_data(metric: Metric, found: Caveats) -> str:
    if not found.evaluated:
        return ""
    details = {
        cell: "".join(f", {name} {values[cell]}" for name, values in found.details.items()) for cell in found.evaluated
    }
    data = {cell: f"data {digest}{details[cell]}" for cell, digest in found.evaluated.items()}
    return (
        f"The rows were not evaluated on the same data: their values of {metric.name} measure different things and "
        f"must not be compared ({by_value(data)})."
    )


def _of_seen(task: Task, found: Caveats) -> str:
    if not found.seen:
        return ""
    many = f"equally many {task['unit']}" if task["unit"] else "equally much"
    return f"The rows were not trained on {many}: {by_value(found.seen)}."


def _of_code(found: Caveats) -> str:
    if not found.code:
        return ""
    code = by_value({cell: f"version {digest}" for cell, digest in found.code.items()})
    return (
        f"The rows were not trained by the same code: {code}. What the change of the code did and what the "
        "factors did cannot be told apart; force=true trains all of them anew."
    )


def _of_machines(found: Caveats) -> str:
    if not found.machines:
        return ""
    told = "; ".join(f"{fact} {by_value(values)}" for fact, values in found.machines.items())
    change = "Results change with the precision" if "precision" in found.machines else "Last digits differ"
    return f"The rows were not computed alike: {told}. {change}, and times cannot be compared."


def _of_settings(task: Task, found: Caveats) -> str:
    if not found.settings:
        return ""
    told = ", ".join(f"{knob_or_fact(task, name)} ({by_value(values)})" for name, values in found.settings.items())
    return (
        f"The rows differ in more than the factors of the study: {told}. "
        "A difference between two rows cannot be put down to one part alone."
    )


def _of_presets(found: Caveats) -> list[str]:
    return [
        f"The presets of {preset}= differ in several parts at once ({', '.join(parts)}): what one of them does cannot "
        "be told from these rows. design=leave_one_out and design=cumulative vary one part at a time."
        for preset, parts in found.presets.items()
    ]
