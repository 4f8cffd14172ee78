"""`plan=true`: what a study would train, and how long that would take."""

from __future__ import annotations

import heapq
import shutil
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from ablate.engines.cores import threads_of
from ablate.engines.engine import Engine
from ablate.output import make_console
from ablate.protocol import Estimates
from ablate.study.cells import Study
from ablate.study.plan import PlannedTrial
from ablate.study.stages import Stages, to_train
from ablate.study.view import describe_left_out, describe_look
from ablate.track.claims import attempt_folders, read_bytes, read_trial
from ablate.track.journal import last_attempt
from ablate.track.units import duration, how_many
from ablate.train import Checkpoints
from ablate.train.machine import set_threads


def show_plan(study: Study, stages: Stages, engine: Engine) -> None:
    """Print every cell with what is done, what is to do and how long it takes; train and write nothing.

    With seeds=auto: of the seeds that are trained in any case; then how much more it may come to.
    """
    console = make_console()
    least, *more = stages.in_order()
    plan = [planned for stage in (least, *more) for planned in stage]
    packs = [stages.packs(stage) for stage in (least, *more)]
    together = [pack for of_stage in packs for pack in of_stage]
    workers = engine.most(stages.largest())
    starts = {planned.fingerprint: goes_on_at(planned) for planned in to_train(plan)}
    set_threads(study.launch.threads or threads_of(engine.machine.device))
    estimates = _estimates(study, plan, together)
    seconds = _seconds(together, estimates, starts)
    console.print(_table(least, starts, seconds))
    walls = [_wall(of_stage, seconds, workers) for of_stage in packs]
    largest = max((len(pack) for pack in packs[0]), default=1)
    with_ = f"workers={workers}" + (f", up to {largest} trials as one program" if largest > 1 else "")
    lines = _totals(study, least, starts, walls[0] if seconds else None, with_, estimates)
    lines += _disk(study, least, workers * largest)
    if study.launch.seeds == "auto":
        lines.append(_at_most(study, stages, plan, sum(walls) if seconds else None))
    lines.append("nothing was trained; without plan=true it starts")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _disk(study: Study, plan: Sequence[PlannedTrial], at_a_time: int) -> list[str]:
    """What the weights of the trials that are left will take, kept in float32: the best and the last of each.

    While a trial trains there are two states of it as well, with what an optimizer knows of every weight.
    """
    sizes = sorted((4 * (planned.facts.parameters or 0) for planned in to_train(plan)), reverse=True)
    if not any(sizes):
        return []
    kept, meanwhile = 2 * sum(sizes), 2 * 3 * sum(sizes[:at_a_time])
    free = shutil.disk_usage(_existing(Path(study.launch.runs))).free
    said = f"on disk: up to {decimal(kept)} of weights to keep, and {decimal(meanwhile)} of states while they train"
    return [f"{said}; {decimal(free)} are free" + (", which is too little" if free < kept + meanwhile else "")]


def _existing(folder: Path) -> Path:
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


def _wall(packs: Sequence[Sequence[PlannedTrial]], seconds: Mapping[str, float], workers: int) -> float:
    return wall_seconds([sum(seconds.get(planned.fingerprint, 0.0) for planned in pack) for pack in packs], workers)


def _at_most(study: Study, stages: Stages, plan: Sequence[PlannedTrial], wall: float | None) -> str:
    """What seeds=auto may come to."""
    most = study.launch.most_seeds
    if not to_train(plan):
        return describe_look(stages.look(stages.seeds), most)
    about = "" if wall is None else f", about {_about(wall)}"
    return (
        f"seeds=auto: at least these {stages.seeds} seeds; at most {most}, then {len(plan)} trials with "
        f"{len(to_train(plan))} to train{about}"
    )


def goes_on_at(planned: PlannedTrial) -> int:
    """The step that training would go on from; 0: from the start."""
    if planned.status in ("FINISHED", "DIVERGED") or not planned.folder.exists():
        return 0
    left = Checkpoints(planned.folder, planned.fingerprint, attempt_folders(planned.folder))
    state, _ = left.newest(len(read_bytes(planned.folder)))
    return 0 if state is None else int(state["window"])


def _estimates(study: Study, plan: Sequence[PlannedTrial], packs: Sequence[Sequence[PlannedTrial]]) -> Estimates | None:
    """The task's own; else, where trials of this study have finished, what they took."""
    if not packs:
        return None
    if (measured := study.task.estimate([[each.trial for each in pack] for pack in packs])) is not None:
        return measured
    taken = [planned for planned in plan if planned.is_done]
    of_each = [float(last_attempt(read_trial(each.folder))[-1]["seconds"]) for each in taken]
    if not of_each:
        return None
    rest = [statistics.mean(of_each)] * len(packs)
    return Estimates([0.0] * len(packs), rest, f"the mean of {how_many(len(of_each), 'finished trial')} of this study")


def _seconds(
    packs: Sequence[Sequence[PlannedTrial]], estimates: Estimates | None, starts: Mapping[str, int]
) -> dict[str, float]:
    """Fingerprint → seconds that are left of it; {} where nobody knows."""
    if estimates is None:
        return {}
    return {
        planned.fingerprint: start + (1 - _share_done(planned, starts)) * rest
        for pack, start, rest in zip(packs, estimates.start, estimates.rest, strict=True)
        for planned in pack
    }


def _share_done(planned: PlannedTrial, starts: Mapping[str, int]) -> float:
    return starts[planned.fingerprint] / planned.steps if planned.steps else 0.0


def wall_seconds(seconds: Sequence[float], workers: int) -> float:
    """Until the last of the trials has ended, each taken by the first worker that is free."""
    free = [0.0] * workers
    for one in seconds:
        heapq.heappush(free, heapq.heappop(free) + one)
    return max(free)


def _table(plan: Sequence[PlannedTrial], starts: Mapping[str, int], seconds: Mapping[str, float]) -> Table:
    table = Table()
    for heading in ("cell", "seeds", "state"):
        table.add_column(heading)
    for heading in ("parameters", "operations to do", "about"):
        table.add_column(heading, justify="right")
    cells: dict[str, list[PlannedTrial]] = {}
    for planned in plan:
        cells.setdefault(planned.cell.label, []).append(planned)
    for label, trials in cells.items():
        left = [planned for planned in trials if not planned.is_done]
        parameters, work = trials[0].facts.parameters, sum(_work_left(planned, starts) for planned in left)
        table.add_row(
            Text(label),
            _runs([planned.trial.seed for planned in trials]),
            _counts(trials, starts),
            "" if parameters is None else f"{parameters:,}",
            f"{work:.2g}" if left and trials[0].facts.work > 1 else "",
            _about(sum(seconds[planned.fingerprint] for planned in left)) if left and seconds else "",
        )
    return table


def _about(seconds: float) -> str:
    return "< 1 s" if seconds < 1 else duration(seconds)


def _work_left(planned: PlannedTrial, starts: Mapping[str, int]) -> float:
    return planned.facts.work * (1 - _share_done(planned, starts))


def _runs(seeds: Sequence[int]) -> str:
    """0 to 4, or one by one where there are gaps."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds))


def _counts(trials: Sequence[PlannedTrial], starts: Mapping[str, int]) -> str:
    """For example: 2 done, 1 to go on, 3 to train."""
    done = sum(planned.is_done for planned in trials)
    going_on = sum(starts.get(planned.fingerprint, 0) > 0 for planned in trials)
    counts = {"done": done, "to go on": going_on, "to train": len(trials) - done - going_on}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _totals(
    study: Study,
    plan: Sequence[PlannedTrial],
    starts: Mapping[str, int],
    wall: float | None,
    with_: str,
    estimates: Estimates | None,
) -> list[str]:
    size = f"{how_many(len(study.cells), 'cell')}, {how_many(len(plan), 'trial')}"
    lines = [f"study {study.name}: {size}: {_counts(plan, starts)}"]
    again = Counter(planned.why for planned in to_train(plan) if planned.why)
    lines += [f"{how_many(count, 'trial')} again: {why}" for why, count in again.items()]
    lines += [f"note: {note}" for note in describe_left_out(study.left_out)]
    how = "" if estimates is None else estimates.how
    if wall is not None:
        work = sum(_work_left(planned, starts) for planned in plan if not planned.is_done)
        by = f"{work:.2g} operations and {how}" if any(p.facts.work > 1 for p in plan) else how
        lines.append(f"about {_about(wall)} with {with_}, by {by}")
    elif starts:
        lines.append("how long a trial takes is known once one of this study is finished")
    return lines
