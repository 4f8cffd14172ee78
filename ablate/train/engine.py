"""The training loop: truncated back-propagation through time over one continuous stream.

Batching, clipping, learning-rate rule and evaluation are those of oreilly-japan/deep-learning-from-scratch-2
(ch06/train_better_rnnlm.py, common/trainer.py). Shape suffixes: T time steps, B streams.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from ablate.config import Knobs
from ablate.data import Corpus, Windows
from ablate.model import RecurrentLM
from ablate.model.language_model import stream
from ablate.model.layers import State
from ablate.registry import OPTIMIZERS
from ablate.train import checkpoint
from ablate.train.checkpoint import Checkpoints
from ablate.train.evaluate import autocast, evaluate, sample
from ablate.train.machine import prepare
from ablate.train.optim import clip_gradients

LOG_EVERY = 20  # windows between two points of the train curve, as the book prints it
CHECKPOINT_SECONDS = 60.0  # at most so much training is lost to a kill, besides what a log interval takes


@dataclass(frozen=True)
class Trial:
    """The training of one replicate: one cell, one seed."""

    knobs: Knobs
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What a trial came to. Cross-entropies in nats a token; None where there is none.

    Attributes:
        status: FINISHED, or DIVERGED when the loss stopped being a finite number.
        windows, tokens: trained on.
        diverged_at: the first window whose loss, or whose validation, was no finite number.
        seconds: wall time, evaluations included; train_seconds: without them.
        best_valid_nll: lowest of all validations; best_window: where it was.
        valid_nll, test_nll: with the weights that `test_weights` names.
        sample: text written by the same weights.
    """

    status: str
    windows: int
    diverged_at: int | None
    tokens: int
    seconds: float
    train_seconds: float
    best_valid_nll: float | None
    best_window: int | None
    valid_nll: float | None
    test_nll: float | None
    sample: str


class Sink(Protocol):
    """Takes a trial's measurements as they are made: one call an event, with plain numbers."""

    def __call__(self, event: str, /, **values: float | int | str | None) -> int:
        """Record an event; returns the length of the record so far, in bytes, which a checkpoint keeps."""
        ...


def make_model(knobs: Knobs, vocabulary: int) -> RecurrentLM:
    """The model that the knobs describe, its values not yet drawn."""
    return RecurrentLM(
        vocabulary=vocabulary,
        rnn=knobs.rnn,
        depth=knobs.depth,
        hidden=knobs.hidden,
        embedding=knobs.embedding,
        dropout=knobs.dropout,
        tie=knobs.tie,
        residual=knobs.residual,
    )


def budget(knobs: Knobs, windows_per_epoch: int) -> int:
    """Windows that a trial trains on."""
    if knobs.windows is not None:
        return knobs.windows
    assert knobs.epochs is not None, "config refuses a trial without a budget"
    return knobs.epochs * windows_per_epoch


def validation_windows(knobs: Knobs, windows_per_epoch: int) -> set[int]:
    """Windows after which a trial validates; the last is always one of them."""
    last = budget(knobs, windows_per_epoch)
    every = knobs.valid_every or windows_per_epoch
    if knobs.valid_spacing == "even":
        return {*range(every, last, every), last}
    return {*(every << i for i in range(last.bit_length()) if every << i < last), last}


def fit(
    trial: Trial, corpus: Corpus, sink: Sink, checkpoints: Checkpoints, state: checkpoint.Payload | None = None
) -> Outcome:
    """Train one trial, validate as it goes, and read the test text once at the end.

    Args:
        trial: what to train; its knobs are checked (`parse`, `check_fits`, `settle`).
        corpus: already cut to `train_tokens`.
        sink: takes `train` events every 20 windows, `valid` events at every validation.
        checkpoints: take the state at every validation and once a minute, and the best weights.
        state: what `checkpoints` held, to go on from; None: from the start. Either way ends with the same bits.
    """
    knobs = trial.knobs
    device = prepare(knobs)
    train = Windows(corpus.train, knobs.batch, knobs.window)
    last = budget(knobs, train.per_epoch)
    validations = validation_windows(knobs, train.per_epoch)
    tokens_a_window = knobs.batch * knobs.window
    t = Training(trial, len(corpus.words), device)
    if state is None:
        checkpoints.clear()
    else:
        t.load_state_dict(state)
    started = time.perf_counter() - t.seconds
    saved = time.perf_counter()
    meter = Meter()
    diverged_at = None
    while t.window < last and diverged_at is None:
        if not knobs.carry and t.window % train.per_epoch == 0:
            t.states = None
        place = t.window if knobs.carry else t.window % train.per_epoch
        meter.add(*train_window(t, train, place, device))
        t.window += 1

        validates = t.window in validations
        if t.window % LOG_EVERY != 0 and not validates:
            continue
        mean = meter.read()
        t.train_seconds += mean.seconds
        t.journal_bytes = sink(
            "train",
            step=t.window,
            tokens=t.window * tokens_a_window,
            seconds=time.perf_counter() - started,
            train_nll=mean.nll,
            grad_norm=mean.grad_norm,
            lr=t.lr,
            tokens_per_s=mean.windows * tokens_a_window / mean.seconds,
        )
        if mean.first_bad is not None:
            diverged_at = t.window - mean.windows + mean.first_bad
        elif validates:
            valid_nll = evaluate(t.model, corpus.valid, knobs, device)
            t.journal_bytes = sink(
                "valid",
                step=t.window,
                tokens=t.window * tokens_a_window,
                seconds=time.perf_counter() - started,
                epoch=t.window / train.per_epoch,
                valid_nll=valid_nll,
                lr=t.lr,
            )
            if not math.isfinite(valid_nll):
                diverged_at = t.window
            elif t.validated(valid_nll, knobs.decay):
                checkpoints.save_best(t.window, {"model": t.model.state_dict(), "window": t.window})
        if diverged_at is None and (validates or time.perf_counter() - saved > CHECKPOINT_SECONDS):
            t.seconds = time.perf_counter() - started
            checkpoints.save(t.window, t.state_dict())
            saved = time.perf_counter()
        meter.restart()  # the clock of the next windows starts after what was done here

    checkpoints.save_last(t.window, {"model": t.model.state_dict(), "window": t.window})
    if diverged_at is None and knobs.test_weights == "best":
        assert t.best_window is not None, "every trial validates at its end"
        t.model.load_state_dict(checkpoints.best(t.best_window)["model"])
    return Outcome(
        status="FINISHED" if diverged_at is None else "DIVERGED",
        windows=t.window,
        diverged_at=diverged_at,
        tokens=t.window * tokens_a_window,
        seconds=time.perf_counter() - started,
        train_seconds=t.train_seconds,
        best_valid_nll=t.best_valid_nll,
        best_window=t.best_window,
        valid_nll=None if diverged_at else t.best_valid_nll if knobs.test_weights == "best" else t.last_valid_nll,
        test_nll=None if diverged_at else evaluate(t.model, corpus.test, knobs, device),
        sample="" if diverged_at else sample(t.model, corpus, knobs.sample_words, trial.seed, device),
    )


class Training:
    """Everything that changes while a trial trains, so that a checkpoint of it can go on to the same bits."""

    def __init__(self, trial: Trial, vocabulary: int, device: torch.device) -> None:
        knobs = self.knobs = trial.knobs
        # For what a user's own layer draws; our own layers have streams of their own.
        torch.manual_seed(stream(trial.seed, "torch").initial_seed())
        self.model = make_model(knobs, vocabulary)
        self.model.initialize(trial.seed, knobs.embedding_std)
        self.model.to(device)
        self.model.seed_dropout(trial.seed)
        self.optimizer: Optimizer = OPTIMIZERS.load(knobs.optimizer)(self.model.parameters(), knobs.lr)
        self.states: list[State] | None = None
        self.window = 0
        self.best_valid_nll: float | None = None
        self.best_window: int | None = None
        self.last_valid_nll: float | None = None
        self.seconds = 0.0
        self.train_seconds = 0.0
        self.journal_bytes = 0

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return float(self.optimizer.param_groups[0]["lr"])

    def validated(self, valid_nll: float, decay: float | None) -> bool:
        """Take in a validation: whether it is the best so far; where it is not, the rate is divided by `decay`."""
        self.last_valid_nll = valid_nll
        if self.best_valid_nll is None or valid_nll < self.best_valid_nll:
            self.best_valid_nll, self.best_window = valid_nll, self.window
            return True
        if decay is not None:
            for group in self.optimizer.param_groups:
                group["lr"] /= decay
        return False

    def state_dict(self) -> checkpoint.Payload:
        """Tensors and plain values; random streams by name."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "states": self.states,
            "streams": {name: generator.get_state() for name, generator in self._streams().items()},
        }

    def load_state_dict(self, state: checkpoint.Payload) -> None:
        """Go on from what `state_dict` returned, on any device."""
        for name in _PLAIN:
            setattr(self, name, state[name])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        device = self.model.output.weight.device
        if state["states"] is not None:
            self.states = [tuple(tensor.to(device) for tensor in layer) for layer in state["states"]]
        for name, generator in self._streams().items():
            generator.set_state(state["streams"][name])

    def _streams(self) -> dict[str, torch.Generator]:
        streams = self.model.streams() | {"torch": torch.default_generator}
        device = self.model.output.weight.device
        return streams | ({"cuda": torch.cuda.default_generators[device.index or 0]} if device.type == "cuda" else {})


_PLAIN = (
    "window",
    "best_valid_nll",
    "best_window",
    "last_valid_nll",
    "seconds",
    "train_seconds",
    "journal_bytes",
)


def train_window(t: Training, text: Windows, place: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """One update; the window's mean loss and the gradient's norm before clipping, both of shape []."""
    inputs_TB, targets_TB = (torch.from_numpy(x).long().to(device) for x in text.at(place))
    with autocast(t.knobs, device):
        loss, t.states = t.model.loss(inputs_TB, targets_TB, t.states)
    t.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = clip_gradients(list(t.model.parameters()), t.knobs.clip)
    t.optimizer.step()
    return loss, norm


@dataclass(frozen=True)
class Mean:
    """Means over the windows since the last reading.

    Attributes:
        first_bad: the first of these windows, counted from 1, whose loss is not a finite number; None: all are.
    """

    windows: int
    nll: float
    grad_norm: float
    seconds: float
    first_bad: int | None


class Meter:
    """Losses and norms that stay on the device: a reading every 20 windows costs one synchronisation, not 20."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what was added, and start the clock."""
        self._added: list[Tensor] = []
        self._started = time.perf_counter()

    def add(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Add a window's mean loss and gradient norm, both of shape []."""
        self._added.append(torch.stack((loss.detach(), grad_norm)))

    def read(self) -> Mean:
        """The means since the last reading; starts over."""
        windows = len(self._added)
        losses, norms = zip(*torch.stack(self._added).tolist(), strict=True)
        first_bad = next((i for i, loss in enumerate(losses, 1) if not math.isfinite(loss)), None)
        mean = Mean(
            windows, sum(losses) / windows, sum(norms) / windows, time.perf_counter() - self._started, first_bad
        )
        self.restart()
        return mean
