"""How long trials take: the windows of a few shapes of model, measured on this machine in a few seconds."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablate.protocol import Estimates, Trial
from ablate.tasks.language_model.config import Config
from ablate.tasks.language_model.data import Windows
from ablate.tasks.language_model.effort import Effort
from ablate.tasks.language_model.engine import Pack, train_window
from ablate.tasks.language_model.evaluate import evaluate, sample
from ablate.tasks.language_model.training import corpus_of, describe, effort_of
from ablate.train import Checkpoints
from ablate.train.machine import choose_device

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
    trial: Trial
    together: int
    effort: Effort
    parameters: int


def estimate(packs: Sequence[Sequence[Trial]]) -> Estimates:
    """Seconds of a trial of each pack: of at most 8 shapes measured, of others by their arithmetic from the nearest."""
    shapes: dict[Hashable, Sequence[Trial]] = {}
    for pack in packs:
        shapes.setdefault((_shape(pack[0]), len(pack)), pack)
    by_size = sorted(shapes.values(), key=lambda pack: effort_of(pack[0].config).window)
    step = max(1.0, (len(by_size) - 1) / (_SHAPES_MEASURED - 1))
    chosen = by_size if step == 1.0 else [by_size[round(i * step)] for i in range(_SHAPES_MEASURED)]
    measured = [_measured(pack) for pack in chosen]
    speeds = [_nearest(pack, measured) for pack in packs]
    count = f"{len(measured)} shape{'s' if len(measured) > 1 else ''} of model"
    return Estimates(
        start=[speed.start for speed in speeds],
        rest=[seconds_of(pack[0].config, speed) for pack, speed in zip(packs, speeds, strict=True)],
        how=f"{count} measured just now, as busy as this machine is",
    )


def _shape(trial: Trial) -> Hashable:
    """What the time of a window depends on."""
    c: Config = trial.config
    model = (c.rnn, c.depth, c.hidden, c.embedding, c.tie, c.dropout > 0, c.residual, c.projection is None)
    training = (c.batch, c.window, c.optimizer, c.eval_batch, c.eval_window, c.sample_words)
    return (*model, len(corpus_of(c).words), *training, c.precision, trial.device)


def _measured(trials: Sequence[Trial]) -> Speed:
    config, together = trials[0].config, len(trials)
    corpus, device = corpus_of(config), choose_device(trials[0].device)
    began = time.perf_counter()
    pack = Pack(trials, len(corpus.words), device)
    training = pack.trainings[0]
    start = (time.perf_counter() - began) / together
    train = Windows(corpus.train, config.batch, config.window)
    # item() waits for the device.
    window = _median_seconds(lambda i: train_window(pack, train, i, device)[0].sum().item()) / together
    windows = Windows(corpus.valid, config.eval_batch, config.eval_window).per_epoch
    tokens = config.eval_batch * config.eval_window * min(_EVAL_WINDOWS, windows)
    evaluation = _median_seconds(lambda _: evaluate(pack.program, corpus.valid[: tokens + 1], config, device))
    if config.sample_words > 0:
        word = _median_seconds(lambda _: sample(training.model, corpus, _SAMPLE_WORDS, 0, device)) / _SAMPLE_WORDS
        start += word * config.sample_words
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), "measured")
        began = time.perf_counter()
        checkpoints.save_best(1, {"model": training.model.state_dict(), "window": 1})
        checkpoints.save(1, training.state_dict())
        keep = time.perf_counter() - began
    return Speed(
        window=window,
        eval_window=evaluation / together * config.eval_batch * config.eval_window / tokens,
        keep=keep,
        start=start,
        trial=trials[0],
        together=together,
        effort=effort_of(config),
        parameters=describe(config).parameters or 1,
    )


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


def _nearest(pack: Sequence[Trial], measured: Sequence[Speed]) -> Speed:
    """The measured shape that is most alike: of the same recurrent layer where there is one, then by arithmetic."""
    trial, effort = pack[0], effort_of(pack[0].config)

    def distance(speed: Speed) -> tuple[bool, bool, float]:
        ratio = math.log(speed.effort.window / effort.window)
        together = math.log(speed.together / len(pack))
        other_layer = speed.trial.config.rnn != trial.config.rnn
        return _shape(speed.trial) != _shape(trial), other_layer, abs(ratio) + abs(together)

    return min(measured, key=distance)


def seconds_of(config: Config, speed: Speed) -> float:
    """How long a trial takes from its first window on, evaluations and checkpoints included."""
    effort, like = effort_of(config), speed.effort
    training = effort.windows * speed.window * effort.window / like.window
    evaluating = effort.eval_windows * speed.eval_window * effort.eval_window / like.eval_window
    keeping = effort.evaluations * speed.keep * (describe(config).parameters or 1) / speed.parameters
    return training + evaluating + keeping
