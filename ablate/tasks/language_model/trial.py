"""One trial while it trains: its model and all that changes with it."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from ablate.protocol import Outcome, Payload, Trial
from ablate.tasks.language_model.build import draw, make_model
from ablate.tasks.language_model.config import OPTIMIZERS, seed_of
from ablate.tasks.language_model.data import Corpus
from ablate.tasks.language_model.evaluate import sample
from ablate.tasks.language_model.model.language_model import stream
from ablate.tasks.language_model.model.packed import States
from ablate.tasks.language_model.schedule import lr_factor
from ablate.train.examples import blocks_of


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
        draw(self.model, knobs, seed_of(knobs.init_seed, trial.seed), log_unigram_V)
        self.model.to(device)
        self.model.seed_dropout(seed_of(knobs.dropout_seed, trial.seed))
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

    def outcome(self, test_nll: float, by_token_N: NDArray[Any], corpus: Corpus, device: torch.device) -> Outcome:
        """What the trial came to, with the weights that it has now.

        Args:
            by_token_N: what `test_nll` is the mean of, in the order of the text.
        """
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
            blocks=None if diverged else blocks_of(by_token_N),
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
