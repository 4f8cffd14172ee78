"""The training loop: truncated back-propagation through time over one continuous stream, for one trial or a pack.

Batching, clipping, learning-rate rule and evaluation are those of oreilly-japan/deep-learning-from-scratch-2
(ch06/train_better_rnnlm.py, common/trainer.py). Shape suffixes: K trials of a pack, T time steps, B streams.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ablate.protocol import Outcome, Payload, Sink, Trial
from ablate.tasks.language_model.config import Config, seed_of
from ablate.tasks.language_model.data import Corpus, Windows
from ablate.tasks.language_model.data.corpus import Ids
from ablate.tasks.language_model.evaluate import autocast, evaluate, evaluate_by_token
from ablate.tasks.language_model.meter import Mean, Meter
from ablate.tasks.language_model.model.language_model import log_unigram, stream
from ablate.tasks.language_model.model.packed import States, make_program
from ablate.tasks.language_model.optim import clip_gradients
from ablate.tasks.language_model.schedule import budget_windows, validation_windows
from ablate.tasks.language_model.trial import Training
from ablate.train.checkpoint import Checkpoints
from ablate.train.examples import save_examples
from ablate.train.machine import choose_device, on_device
from ablate.train.preemption import is_asked, leave

LOG_EVERY = 20  # windows between two points of the train curve, as the book prints it
CHECKPOINT_SECONDS = 60.0  # at most so much training is lost to a kill, besides what a log interval takes


def text_start(knobs: Config, seed: int, train: Ids) -> int:
    """The place in the train text at which a trial starts to read.

    With order=seed it is as far into the text as the seed says, in every cell: a seed randomises the order of the text
    as well as the initial values (Bouthillier et al. 2021). `order_seed`, where it is set, is that seed.
    """
    if knobs.order == "text":
        return 0
    share = torch.rand((), generator=stream(seed_of(knobs.order_seed, seed), "order"), dtype=torch.float64).item()
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
        if validates or is_asked() or time.perf_counter() - saved > CHECKPOINT_SECONDS:
            p.save()
            saved = time.perf_counter()
            leave()
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
        test_nlls, by_token = [math.nan] * len(self.trainings), [np.empty(0)] * len(self.trainings)
        if self.running:
            test_nlls, nll_KN = evaluate_by_token(self.program, corpus.test, knobs, device, knobs.test_batch)
            by_token = list(nll_KN.cpu().numpy())
        for t, nll_N in zip(self.trainings, by_token, strict=True):
            if t.diverged_at is None:
                save_examples(self._checkpoints[t].folder, nll_N)
        self._read_clock()
        ends = zip(self.trainings, test_nlls, by_token, strict=True)
        return [t.outcome(test_nll, nll_N, corpus, device) for t, test_nll, nll_N in ends]

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
