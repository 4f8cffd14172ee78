"""The training loop: truncated back-propagation through time over one continuous stream.

Batching, clipping, learning-rate rule and evaluation are those of oreilly-japan/deep-learning-from-scratch-2
(ch06/train_better_rnnlm.py, common/trainer.py). Shape suffixes: T time steps, B streams.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from ablate.config import Knobs
from ablate.data import Corpus, Windows
from ablate.model import RecurrentLM
from ablate.registry import OPTIMIZERS
from ablate.train import checkpoint
from ablate.train.evaluate import autocast, evaluate, sample
from ablate.train.machine import prepare
from ablate.train.optim import clip_gradients

LOG_EVERY = 20  # windows between two points of the train curve, as the book prints it


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
        seconds: wall time, evaluations included; train_seconds: without them.
        best_valid_nll: lowest of all validations; best_window: where it was.
        valid_nll, test_nll: with the weights that `test_weights` names.
        sample: text written by the same weights.
    """

    status: str
    windows: int
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

    def __call__(self, event: str, /, **values: float | int | str | None) -> None: ...


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
    )


def _start(trial: Trial, vocabulary: int, device: torch.device) -> RecurrentLM:
    model = make_model(trial.knobs, vocabulary)
    model.initialize(trial.seed, trial.knobs.embedding_std)
    model.to(device)
    model.seed_dropout(trial.seed)
    return model


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


def fit(trial: Trial, corpus: Corpus, sink: Sink, folder: Path) -> Outcome:
    """Train one trial, validate as it goes, and read the test text once at the end.

    Args:
        trial: what to train; its knobs are checked (`parse`, `check_fits`, `check_machine`).
        corpus: already cut to `train_tokens`.
        sink: takes `train` events every 20 windows, `valid` events at every validation.
        folder: takes best.pt and last.pt.
    """
    knobs = trial.knobs
    device = prepare(knobs)
    model = _start(trial, len(corpus.words), device)
    optimizer: Optimizer = OPTIMIZERS.load(knobs.optimizer)(model.parameters(), knobs.lr)
    train = Windows(corpus.train, knobs.batch, knobs.window)
    last = budget(knobs, train.per_epoch)
    validations = validation_windows(knobs, train.per_epoch)
    tokens_a_window = knobs.batch * knobs.window
    started = time.perf_counter()
    train_seconds = 0.0
    meter = Meter(device)
    best_valid_nll, best_window = math.inf, None
    states = None
    for number in range(last):
        if not knobs.carry and number % train.per_epoch == 0:
            states = None
        place = number if knobs.carry else number % train.per_epoch
        inputs_TB, targets_TB = (torch.from_numpy(x).long().to(device) for x in train.at(place))
        with autocast(knobs, device):
            loss, states = model.loss(inputs_TB, targets_TB, states)
        meter.add(loss, _update(model, optimizer, loss, knobs.clip))

        done = number + 1
        validates = done in validations
        if done % LOG_EVERY == 0 or validates:
            mean = meter.read()
            train_seconds += mean.seconds
            sink(
                "train",
                step=done,
                tokens=done * tokens_a_window,
                seconds=time.perf_counter() - started,
                train_nll=mean.nll,
                grad_norm=mean.grad_norm,
                lr=_lr(optimizer),
                tokens_per_s=mean.windows * tokens_a_window / mean.seconds,
            )
            diverged = not math.isfinite(mean.nll)
            if diverged:
                break
        if validates:
            valid_nll = evaluate(model, corpus.valid, knobs, device)
            sink(
                "valid",
                step=done,
                tokens=done * tokens_a_window,
                seconds=time.perf_counter() - started,
                epoch=done / train.per_epoch,
                valid_nll=valid_nll,
                lr=_lr(optimizer),
            )
            diverged = not math.isfinite(valid_nll)
            if diverged:
                break
            checkpoint.save(folder / "last.pt", {"model": model.state_dict(), "step": done})
            if valid_nll < best_valid_nll:
                best_valid_nll, best_window = valid_nll, done
                checkpoint.save(folder / "best.pt", {"model": model.state_dict(), "step": done})
            elif knobs.decay is not None:
                _set_lr(optimizer, _lr(optimizer) / knobs.decay)
            meter.restart()

    if knobs.test_weights == "best" and not diverged:
        model.load_state_dict(checkpoint.load(folder / "best.pt", device)["model"])
        valid_nll = best_valid_nll
    return Outcome(
        status="DIVERGED" if diverged else "FINISHED",
        windows=done,
        tokens=done * tokens_a_window,
        seconds=time.perf_counter() - started,
        train_seconds=train_seconds,
        best_valid_nll=None if best_window is None else best_valid_nll,
        best_window=best_window,
        valid_nll=None if diverged else valid_nll,
        test_nll=None if diverged else evaluate(model, corpus.test, knobs, device),
        sample="" if diverged else sample(model, corpus, knobs.sample_words, trial.seed, device),
    )


def _update(model: RecurrentLM, optimizer: Optimizer, loss: Tensor, clip: float | None) -> Tensor:
    """One step down the gradient; its norm before clipping, shape []."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = clip_gradients(list(model.parameters()), clip)
    optimizer.step()
    return norm


@dataclass(frozen=True)
class Mean:
    """Means over the windows since the last reading."""

    windows: int
    nll: float
    grad_norm: float
    seconds: float


class Meter:
    """Running sums that stay on the device: a reading every 20 windows costs one synchronisation, not 20."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, device=device, dtype=torch.float64)
        self.restart()

    def restart(self) -> None:
        """Forget what was added, and start the clock."""
        self._sums.zero_()
        self._windows = 0
        self._started = time.perf_counter()

    def add(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Add a window's mean loss and gradient norm, both of shape []."""
        self._sums += torch.stack((loss.detach(), grad_norm))
        self._windows += 1

    def read(self) -> Mean:
        """The means since the last reading; starts over."""
        nll, grad_norm = (self._sums / self._windows).tolist()
        mean = Mean(self._windows, nll, grad_norm, time.perf_counter() - self._started)
        self.restart()
        return mean


def _lr(optimizer: Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


def _set_lr(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
