"""The training loop: truncated back-propagation through time over one continuous stream, for one trial or a pack.

Batching, clipping, learning-rate rule and evaluation are those of oreilly-japan/deep-learning-from-scratch-2
(ch06/train_better_rnnlm.py, common/trainer.py). Shape suffixes: K trials of a pack, T time steps, B streams.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from ablate.protocol import Outcome, Payload, Sink, Trial
from ablate.tasks.language_model.config import OPTIMIZERS, Config
from ablate.tasks.language_model.data import Corpus, Windows
from ablate.tasks.language_model.data.corpus import Ids
from ablate.tasks.language_model.evaluate import autocast, evaluate, sample
from ablate.tasks.language_model.model import RecurrentLM
from ablate.tasks.language_model.model.language_model import log_unigram, stream
from ablate.tasks.language_model.model.packed import States, make_program
from ablate.tasks.language_model.optim import clip_gradients
from ablate.tasks.language_model.schedule import budget_windows, lr_factor, validation_windows
from ablate.train.checkpoint import Checkpoints
from ablate.train.machine import choose_device, on_device

LOG_EVERY = 20  # windows between two points of the train curve, as the book prints it
CHECKPOINT_SECONDS = 60.0  # at most so much training is lost to a kill, besides what a log interval takes


def make_model(knobs: Config, vocabulary: int) -> RecurrentLM:
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
        projection=knobs.projection,
        input_scale=1.0 if (output_std := _output_std(knobs)) is None else (knobs.embedding_std or 0.0) / output_std,
    )


def _output_std(knobs: Config) -> float | None:
    """Standard deviation of the output's initial values in init=scaled; None where another scheme says it.

    So small that the first logits are near 0, and the first loss near ln V, whatever is below: a tanh layer's values
    may be as large as 1, dropout makes them larger, and residual connections add them up.
    """
    return 0.25 / math.sqrt(knobs.hidden) if knobs.init == "scaled" else None


def text_start(knobs: Config, seed: int, train: Ids) -> int:
    """The place in the train text at which a trial starts to read.

    With order=seed it is as far into the text as the seed says, in every cell: a seed randomises the order of the text
    as well as the initial values (Bouthillier et al. 2021).
    """
    if knobs.order == "text":
        return 0
    share = torch.rand((), generator=stream(seed, "order"), dtype=torch.float64).item()
    return int(share * (train.size - 1))


def fit(
    pack: Sequence[Trial],
    corpus: Corpus,
    sinks: Sequence[Sink],
    checkpoints: Sequence[Checkpoints],
    states: Sequence[Payload] | None = None,
) -> list[Outcome]:
    """Train a pack as one program, validate as it goes, and read the test text once at the end.

    A trial that diverges is over; the others go on. A trial ends as it does alone, in fp32 up to the
    rounding of the products: by its own dropout, clipping, learning rate and best weights.

    Args:
        pack: one trial, or several that differ in knobs alone that `packs` marks in `Config`.
        corpus: already cut to `train_tokens`.
        sinks: one a trial, take `log` events, of training every 20 windows and of every validation.
        checkpoints: one a trial, take the state at every validation and once a minute, and the best weights.
        states: what each trial's `checkpoints` held after the same window, to go on from; None: from the start. Either
            way ends with the same bits.

    Returns:
        One a trial. `seconds` and `train_seconds` are a trial's share of the time that the pack took.
    """
    knobs = pack[0].config  # of what all have in common
    device = choose_device(pack[0].device)
    starts = [text_start(trial.config, trial.seed, corpus.train) for trial in pack]
    train = Windows(corpus.train, knobs.batch, knobs.window, starts)
    last = budget_windows(knobs, train.per_epoch)
    validations = validation_windows(knobs, train.per_epoch)
    unigram = log_unigram(corpus.train, len(corpus.words))
    p = Pack(pack, len(corpus.words), device, sinks, checkpoints, unigram)
    p.start(states)
    saved = time.perf_counter()
    meter = Meter()
    while p.window < last and p.running:
        if not knobs.carry and p.window % train.per_epoch == 0:
            p.states = None
        place = p.window if knobs.carry else p.window % train.per_epoch
        p.set_rates(train.per_epoch)
        meter.add(*train_window(p, train, place, device))
        p.window += 1

        validates = p.window in validations
        if p.window % LOG_EVERY != 0 and not validates:
            continue
        p.log(meter.read(p.clips))
        if validates and p.running:
            p.take_in(evaluate(p.program, corpus.valid, knobs, device), p.window / train.per_epoch)
        if validates or time.perf_counter() - saved > CHECKPOINT_SECONDS:
            p.save()
            saved = time.perf_counter()
        meter.restart()  # the clock of the next windows starts after what was done here

    return p.finish(corpus, device)


class Pack:
    """Trials that train together, window by window."""

    def __init__(
        self,
        trials: Sequence[Trial],
        vocabulary: int,
        device: torch.device,
        sinks: Sequence[Sink] = (),
        checkpoints: Sequence[Checkpoints] = (),
        log_unigram_V: Tensor | None = None,
    ) -> None:
        self.trainings = [Training(trial, vocabulary, device, log_unigram_V) for trial in trials]
        self.program = make_program([t.model for t in self.trainings])
        self.clips = [math.inf if t.knobs.clip is None else t.knobs.clip for t in self.trainings]
        self.max_norm_K = torch.tensor(self.clips, dtype=torch.float64, device=device)
        self.states: States | None = None
        self.window = 0
        self._sinks = dict(zip(self.trainings, sinks, strict=bool(sinks)))
        self._checkpoints = dict(zip(self.trainings, checkpoints, strict=bool(checkpoints)))
        knobs = trials[0].config
        self._tokens_a_window = knobs.batch * knobs.window

    def start(self, states: Sequence[Payload] | None) -> None:
        """From the first window, or from where the states were saved."""
        if states is None:
            for kept in self._checkpoints.values():
                kept.clear()
        else:
            for t, state in zip(self.trainings, states, strict=True):
                t.load_state_dict(state)
            (self.window,) = {t.window for t in self.trainings}
            carried = [t.states for t in self.trainings if t.states is not None]
            self.states = self.program.join(carried) if carried else None
        self._clock = time.perf_counter()

    @property
    def running(self) -> list[Training]:
        """Those that have not diverged."""
        return [t for t in self.trainings if t.diverged_at is None]

    def set_rates(self, windows_per_epoch: int) -> None:
        """Set the learning rates of the next update."""
        for t in self.trainings:
            t.set_rate(self.window, windows_per_epoch)

    def log(self, means: Sequence[Mean]) -> None:
        """Tell the sinks of the windows since the last reading."""
        self._read_clock()
        for t, mean in zip(self.trainings, means, strict=True):
            if t.diverged_at is not None:
                continue
            share = mean.seconds / len(self.trainings)
            t.train_seconds += share
            t.clipped_windows += mean.clipped
            if t.first_nll is None:
                t.first_nll = mean.first_nll
            self._tell(
                t,
                train_nll=mean.nll,
                grad_norm=mean.grad_norm,
                lr=t.lr,
                tokens_per_s=mean.windows * self._tokens_a_window / share,
            )
            if mean.first_bad is not None:
                self._diverge(t, self.window - mean.windows + mean.first_bad)

    def take_in(self, valid_nlls: Sequence[float], epoch: float) -> None:
        """Tell the sinks of a validation, keep the weights that are the best so far, and cut rates."""
        self._read_clock()
        for t, valid_nll in zip(self.trainings, valid_nlls, strict=True):
            if t.diverged_at is not None:
                continue
            self._tell(t, epoch=epoch, valid_nll=valid_nll, lr=t.lr)
            if not math.isfinite(valid_nll):
                self._diverge(t, self.window)
            elif t.validated(valid_nll):
                self._checkpoints[t].save_best(t.window, {"model": t.model.state_dict(), "window": t.window})

    def save(self) -> None:
        """Keep the state of what is running."""
        self._read_clock()
        carried = [None] * len(self.trainings) if self.states is None else self.program.split(self.states)
        for t, states in zip(self.trainings, carried, strict=True):
            if t.diverged_at is None:
                t.states = states
                self._checkpoints[t].save(t.window, t.state_dict())

    def finish(self, corpus: Corpus, device: torch.device) -> list[Outcome]:
        """Keep the last weights, and read the test text with those that `test_weights` names."""
        knobs = self.trainings[0].knobs
        for t in self.running:
            self._save_last(t)
            if t.knobs.test_weights == "best":
                assert t.best_window is not None, "every trial validates at its end"
                t.model.load_state_dict(self._checkpoints[t].best(t.best_window)["model"])
        test_nlls = (
            evaluate(self.program, corpus.test, knobs, device, knobs.test_batch)
            if self.running
            else [math.nan] * len(self.trainings)
        )
        self._read_clock()
        return [t.outcome(nll, corpus, device) for t, nll in zip(self.trainings, test_nlls, strict=True)]

    def _tell(self, t: Training, **values: float) -> None:
        seen = t.window * self._tokens_a_window
        t.journal_bytes = self._sinks[t]("log", step=t.window, seen=seen, seconds=t.seconds, values=values)

    def _diverge(self, t: Training, window: int) -> None:
        t.diverged_at = window
        self._save_last(t)

    def _save_last(self, t: Training) -> None:
        self._checkpoints[t].save_last(t.window, {"model": t.model.state_dict(), "window": t.window})

    def _read_clock(self) -> None:
        """Give every running trial its share of the time since the last reading."""
        now = time.perf_counter()
        for t in self.running:
            t.window = self.window
            t.seconds += (now - self._clock) / len(self.trainings)
        self._clock = now


class Training:
    """Everything that changes while a trial trains, so that a checkpoint of it can go on to the same bits."""

    def __init__(
        self, trial: Trial, vocabulary: int, device: torch.device, log_unigram_V: Tensor | None = None
    ) -> None:
        knobs = self.knobs = trial.config
        self.seed = trial.seed
        # For what a user's own layer draws; our own layers have streams of their own.
        torch.manual_seed(stream(trial.seed, "torch").initial_seed())
        self.model = make_model(knobs, vocabulary)
        self.model.initialize(
            trial.seed,
            knobs.embedding_std,
            output_std=_output_std(knobs),
            init_range=knobs.init_range,
            forget_bias=knobs.forget_bias,
            output_bias_V=log_unigram_V if knobs.output_bias == "unigram" else None,
        )
        self.model.to(device)
        self.model.seed_dropout(trial.seed)
        self.optimizer: Optimizer = OPTIMIZERS.load(knobs.optimizer)(self.model.parameters(), knobs.lr)
        self.states: States | None = None
        self.window = 0
        self.cuts = 0
        self.first_nll: float | None = None
        self.clipped_windows = 0
        self.best_valid_nll: float | None = None
        self.best_window: int | None = None
        self.last_valid_nll: float | None = None
        self.seconds = 0.0
        self.train_seconds = 0.0
        self.journal_bytes = 0
        self.diverged_at: int | None = None

    @property
    def lr(self) -> float:
        """The learning rate as it was last set."""
        return float(self.optimizer.param_groups[0]["lr"])

    def set_rate(self, window: int, windows_per_epoch: int) -> None:
        """Set the learning rate of this window's update: the schedule's, and what plateau has cut it by."""
        knobs = self.knobs
        factor = lr_factor(knobs, window, windows_per_epoch)
        if knobs.schedule == "plateau":
            assert knobs.decay is not None, "config refuses it"
            factor = max(min(knobs.lr_floor, factor), factor * knobs.decay**-self.cuts)
        for group in self.optimizer.param_groups:
            group["lr"] = knobs.lr * factor

    def validated(self, valid_nll: float) -> bool:
        """Take in a validation: whether it is the best so far; where it is not, plateau divides the rate."""
        self.last_valid_nll = valid_nll
        if self.best_valid_nll is None or valid_nll < self.best_valid_nll:
            self.best_valid_nll, self.best_window = valid_nll, self.window
            return True
        self.cuts += 1
        return False

    def outcome(self, test_nll: float, corpus: Corpus, device: torch.device) -> Outcome:
        """What the trial came to, with the weights that it has now."""
        diverged, knobs = self.diverged_at is not None, self.knobs
        valid_nll = self.best_valid_nll if knobs.test_weights == "best" else self.last_valid_nll
        return Outcome(
            status="DIVERGED" if diverged else "FINISHED",
            steps=self.window,
            diverged_at=self.diverged_at,
            seen=self.window * knobs.batch * knobs.window,
            seconds=self.seconds,
            train_seconds=self.train_seconds,
            best_step=self.best_window,
            values={
                "first_nll": self.first_nll,
                "best_valid_nll": self.best_valid_nll,
                "valid_nll": None if diverged else valid_nll,
                "test_nll": None if diverged else test_nll,
                "clipped": self.clipped_windows / self.window,
            },
            sample="" if diverged else sample(self.model, corpus, knobs.sample_words, self.seed, device),
        )

    def state_dict(self) -> Payload:
        """Tensors and plain values; random streams by name."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "states": self.states,
            "streams": {name: generator.get_state() for name, generator in self._streams().items()},
        }

    def load_state_dict(self, state: Payload) -> None:
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
    "cuts",
    "first_nll",
    "clipped_windows",
    "best_valid_nll",
    "best_window",
    "last_valid_nll",
    "seconds",
    "train_seconds",
    "journal_bytes",
)


def train_window(pack: Pack, text: Windows, place: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """One update of all; each one's mean loss over the window and gradient norm before clipping, both [K]."""
    inputs_KTB, targets_KTB = (on_device(ids, device) for ids in text.at(place))
    with autocast(pack.trainings[0].knobs, device):
        loss_K, pack.states = pack.program.loss(inputs_KTB, targets_KTB, pack.states)
    gradients = pack.program.backward(loss_K)
    norm_K = clip_gradients(gradients, pack.max_norm_K)
    for t in pack.trainings:
        t.optimizer.step()
    return loss_K.detach(), norm_K


@dataclass(frozen=True)
class Mean:
    """Means over the windows since the last reading.

    Attributes:
        first_nll: of the first of these windows; clipped: how many had a gradient above the limit.
        first_bad: the first of these windows, counted from 1, whose loss is not a finite number; None: all are.
    """

    windows: int
    nll: float
    grad_norm: float
    seconds: float
    first_nll: float
    clipped: int
    first_bad: int | None


class Meter:
    """Losses and norms that stay on the device: a reading every 20 windows costs one synchronisation, not 20."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what was added, and start the clock."""
        self._added: list[Tensor] = []
        self._started = time.perf_counter()

    def add(self, loss_K: Tensor, grad_norm_K: Tensor) -> None:
        """Add a window's mean losses and gradient norms."""
        self._added.append(torch.stack((loss_K, grad_norm_K)))

    def read(self, max_norms: Sequence[float]) -> list[Mean]:
        """Each trial's means since the last reading; starts over. `max_norms`: each one's limit of the gradient."""
        windows = len(self._added)
        of_each = torch.stack(self._added).permute(2, 1, 0).tolist()  # trials × (loss, norm) × windows
        seconds = time.perf_counter() - self._started
        self.restart()
        return [
            _mean(losses, norms, limit, windows, seconds)
            for (losses, norms), limit in zip(of_each, max_norms, strict=True)
        ]


def _mean(losses: list[float], norms: list[float], limit: float, windows: int, seconds: float) -> Mean:
    first_bad = next((i for i, loss in enumerate(losses, 1) if not math.isfinite(loss)), None)
    clipped = sum(norm > limit for norm in norms)
    return Mean(windows, sum(losses) / windows, sum(norms) / windows, seconds, losses[0], clipped, first_bad)
