"""`plan=true`: what a study would train, and how long that would take, measured on this machine in a few seconds."""

from __future__ import annotations

import heapq
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablate.study.cells import Study
from ablate.study.packs import make_packs
from ablate.study.plan import PlannedTrial, corpus_of
from ablate.study.view import FILE_WIDTH, describe_left_out
from ablate.study.workers import choose_workers, threads_of
from ablate.tasks.language_model.data import Windows
from ablate.tasks.language_model.engine import Pack, train_window
from ablate.tasks.language_model.evaluate import evaluate, sample
from ablate.track.journal import JOURNAL, Journal
from ablate.track.units import duration
from ablate.train import Checkpoints
from ablate.train.machine import prepare, set_default_threads

_SHAPES_MEASURED = 8
_SECONDS, _CALLS = 0.5, 40  # of each measurement, after warming up: whichever comes first
_SLOW = 0.3  # seconds of one window from which warming up is not worth a second one
_EVAL_WINDOWS = 4
_SAMPLE_WORDS = 5


@dataclass(frozen=True)
class Speed:
    """What a trial's parts take on this machine, in seconds; its share, where trials train together.

    Attributes:
        window, eval_window: one window of training, one of an evaluation.
        keep: one validation's checkpoint and best weights.
        start: making the model, and writing the sample.
        trial: it was measured on, one of `together`.
    """

    window: float
    eval_window: float
    keep: float
    start: float
    trial: PlannedTrial
    together: int


def show_plan(study: Study, plan: Sequence[PlannedTrial]) -> None:
    """Print every cell with what is done, what is to do and how long it takes; train and write nothing."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=FILE_WIDTH)
    to_train = [planned for planned in plan if not planned.is_done]
    packs = make_packs(to_train)
    workers = choose_workers(packs)
    starts = {planned.fingerprint: goes_on_at(planned) for planned in to_train}
    speeds = measure(packs, workers)
    seconds = {p.fingerprint: seconds_of(p, starts[p.fingerprint], speeds[p.fingerprint]) for p in to_train}
    console.print(_table(plan, starts, seconds))
    wall = wall_seconds([sum(seconds[p.fingerprint] for p in pack) for pack in packs], workers)
    measured = len({id(speed) for speed in speeds.values()})
    largest = max((len(pack) for pack in packs), default=1)
    how = f"workers={workers}" + (f", up to {largest} trials as one program" if largest > 1 else "")
    for line in _totals(study, plan, starts, wall, how, measured):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def goes_on_at(planned: PlannedTrial) -> int:
    """The window that training would go on from; 0: from the start."""
    if planned.status in ("FINISHED", "DIVERGED") or not planned.folder.exists():
        return 0
    journal = Journal(planned.folder / JOURNAL)
    state, _ = Checkpoints(planned.folder, planned.fingerprint).newest(journal.size())
    return 0 if state is None else int(state["window"])


def measure(packs: Sequence[Sequence[PlannedTrial]], workers: int) -> Mapping[str, Speed]:
    """Fingerprint → its speed: of at most 8 shapes measured, of others by their arithmetic from the nearest."""
    shapes: dict[Hashable, Sequence[PlannedTrial]] = {}
    for pack in packs:
        shapes.setdefault((_shape(pack[0]), len(pack)), pack)
    by_size = sorted(shapes.values(), key=lambda pack: pack[0].effort.window)
    step = max(1.0, (len(by_size) - 1) / (_SHAPES_MEASURED - 1))
    chosen = by_size if step == 1.0 else [by_size[round(i * step)] for i in range(_SHAPES_MEASURED)]
    set_default_threads(threads_of(workers))
    measured = [_measured(pack) for pack in chosen]
    of_shape = {shape: _nearest(pack, measured) for shape, pack in shapes.items()}
    return {planned.fingerprint: of_shape[_shape(pack[0]), len(pack)] for pack in packs for planned in pack}


def _shape(planned: PlannedTrial) -> Hashable:
    """What the time of a window depends on."""
    k = planned.trial.knobs
    model = (
        k.rnn,
        k.depth,
        k.hidden,
        k.embedding,
        k.tie,
        k.dropout > 0,
        k.residual,
        k.projection is None,
        planned.data["details"]["vocabulary"],
    )
    training = (k.batch, k.window, k.optimizer, k.eval_batch, k.eval_window, k.sample_words)
    return (*model, *training, k.precision, k.device, k.threads)


def _measured(trials: Sequence[PlannedTrial]) -> Speed:
    planned, together = trials[0], len(trials)
    knobs, corpus = planned.trial.knobs, corpus_of(planned.trial.knobs)
    device = prepare(knobs)
    began = time.perf_counter()
    pack = Pack([each.trial for each in trials], len(corpus.words), device)
    training = pack.trainings[0]
    start = (time.perf_counter() - began) / together
    train = Windows(corpus.train, knobs.batch, knobs.window)
    # item() waits for the device.
    window = _median_seconds(lambda i: train_window(pack, train, i, device)[0].sum().item()) / together
    tokens = knobs.eval_batch * knobs.eval_window * min(_EVAL_WINDOWS, _windows_of(planned))
    evaluation = _median_seconds(lambda _: evaluate(pack.program, corpus.valid[: tokens + 1], knobs, device)) / together
    if knobs.sample_words > 0:
        word = _median_seconds(lambda _: sample(training.model, corpus, _SAMPLE_WORDS, 0, device)) / _SAMPLE_WORDS
        start += word * knobs.sample_words
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), planned.fingerprint)
        began = time.perf_counter()
        checkpoints.save_best(1, {"model": training.model.state_dict(), "window": 1})
        checkpoints.save(1, training.state_dict())
        keep = time.perf_counter() - began
    return Speed(window, evaluation * knobs.eval_batch * knobs.eval_window / tokens, keep, start, planned, together)


def _windows_of(planned: PlannedTrial) -> int:
    """Evaluation windows in the valid text."""
    knobs = planned.trial.knobs
    return Windows(corpus_of(knobs).valid, knobs.eval_batch, knobs.eval_window).per_epoch


def _median_seconds(call: Callable[[int], object]) -> float:
    """Seconds of a call, after one or two that warm up."""
    taken = [_seconds(call, 0)]
    if taken[0] < _SLOW:
        taken = [_seconds(call, 1)]
    taken.clear()
    began = time.perf_counter()
    while len(taken) < 2 or (len(taken) < _CALLS and time.perf_counter() - began < _SECONDS):
        taken.append(_seconds(call, 2 + len(taken)))
    return statistics.median(taken)


def _seconds(call: Callable[[int], object], number: int) -> float:
    began = time.perf_counter()
    call(number)
    return time.perf_counter() - began


def _nearest(pack: Sequence[PlannedTrial], measured: Sequence[Speed]) -> Speed:
    """The measured shape that is most alike: of the same recurrent layer where there is one, then by arithmetic."""
    planned = pack[0]

    def distance(speed: Speed) -> tuple[bool, bool, float]:
        ratio = math.log(speed.trial.effort.window / planned.effort.window)
        together = math.log(speed.together / len(pack))
        other_layer = speed.trial.trial.knobs.rnn != planned.trial.knobs.rnn
        return _shape(speed.trial) != _shape(planned), other_layer, abs(ratio) + abs(together)

    return min(measured, key=distance)


def seconds_of(planned: PlannedTrial, window: int, speed: Speed) -> float:
    """How long a trial takes from this window on, evaluations and checkpoints included."""
    effort, like = planned.effort, speed.trial.effort
    training = effort.windows * speed.window * effort.window / like.window
    evaluating = effort.eval_windows * speed.eval_window * effort.eval_window / like.eval_window
    keeping = effort.evaluations * speed.keep * planned.parameters / speed.trial.parameters
    return speed.start + (1 - window / effort.windows) * (training + evaluating + keeping)


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
        table.add_row(
            Text(label),
            _runs([planned.trial.seed for planned in trials]),
            _counts(trials, starts),
            f"{trials[0].parameters:,}",
            f"{sum(_work_left(planned, starts) for planned in left):.2g}" if left else "",
            _about(sum(seconds[planned.fingerprint] for planned in left)) if left else "",
        )
    return table


def _about(seconds: float) -> str:
    return "< 1 s" if seconds < 1 else duration(seconds)


def _work_left(planned: PlannedTrial, starts: Mapping[str, int]) -> float:
    return planned.work * (1 - starts[planned.fingerprint] / planned.windows)


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
    wall: float,
    how: str,
    measured: int,
) -> list[str]:
    lines = [f"study {study.name}: {len(study.cells)} cells, {len(plan)} trials: {_counts(plan, starts)}"]
    lines += [f"note: {note}" for note in describe_left_out(study.left_out)]
    if measured:
        work = sum(_work_left(planned, starts) for planned in plan if not planned.is_done)
        shapes = f"{measured} shape{'s' if measured > 1 else ''} of model"
        measured_now = f"{shapes} measured just now, as busy as this machine is"
        lines.append(f"about {_about(wall)} with {how}, by {work:.2g} operations and {measured_now}")
    lines.append("nothing was trained; without plan=true it starts")
    return lines
