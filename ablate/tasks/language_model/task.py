"""The language model as the core sees it. What needs torch is in `training`, and imported when it is called."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.code import by_name, digests
from ablate.knobs import deciding, flat, named
from ablate.metric import Metric
from ablate.tasks.language_model import config as rules
from ablate.tasks.language_model.config import OPTIMIZERS, RECURRENT_LAYERS
from ablate.tasks.language_model.config import Config as Knobs

if TYPE_CHECKING:
    from ablate.protocol import Estimates, Facts, Outcome, Payload, Sink, Trial
    from ablate.tasks.language_model.trained import TrainedModel
    from ablate.train import Checkpoints

METRICS = (Metric("perplexity", better="lower", scale="log", logged="nll"),)
_PACKAGE = Path(__file__).resolve().parent
_ROOT = _PACKAGE.parent.parent  # the package `ablate`


class LanguageModel:
    """Implements `ablate.protocol.Task`."""

    name = "language_model"
    reference = name
    folder = _PACKAGE
    leaves_no_trace = True
    step = "window"
    unit = "tokens"
    metrics = METRICS
    Config = Knobs
    components: Mapping[str, Any] = {}  # conf/config.yaml declares them
    budget = ("budget", "epochs", "windows", "train_tokens")

    @property
    def presets(self) -> Path:
        """conf/ of the checkout, or the copy inside an installed wheel."""
        installed = _PACKAGE / "conf"
        return installed if installed.is_dir() else _ROOT.parent / "conf"

    def check(self, config: Knobs) -> None:
        """See `ablate.protocol.Task`, as for all below."""
        rules.check(config)

    def settle(self, config: Knobs, device: str) -> Knobs:
        settled: Knobs = _training().settle(config, device)
        return settled

    def describe(self, config: Knobs) -> Facts:
        facts: Facts = _training().describe(config)
        return facts

    def files(self, config: Knobs) -> Mapping[str, Path]:
        return _files(config.rnn, config.optimizer)

    def sources(self, config: Knobs) -> Mapping[str, str]:
        return _sources(config.rnn, config.optimizer)

    def shape(self, config: Knobs) -> Hashable | None:
        if not _training().can_pack(config.rnn):
            return None
        may_differ = set(named(Knobs, "packs"))
        same = [(name, value) for name, value in deciding(config).items() if name not in may_differ]
        return (*same, *((name, value) for name, value in flat(config.data).items()), config.sample_words)

    def bytes_of(self, config: Knobs, facts: Facts) -> float:
        needed: float = _training().bytes_of(config, facts)
        return needed

    def trial_facts(self, trial: Trial) -> Mapping[str, str]:
        facts: dict[str, str] = _training().trial_facts(trial)
        return facts

    def estimate(self, packs: Sequence[Sequence[Trial]]) -> Estimates:
        estimates: Estimates = import_module("ablate.tasks.language_model.estimate").estimate(packs)
        return estimates

    def load(self, config: Knobs, weights: Payload) -> TrainedModel:
        model: TrainedModel = import_module("ablate.tasks.language_model.trained").trained_model(config, weights)
        return model

    def fit(
        self,
        pack: Sequence[Trial],
        sinks: Sequence[Sink],
        checkpoints: Sequence[Checkpoints],
        states: Sequence[Payload] | None,
    ) -> list[Outcome]:
        outcomes: list[Outcome] = _training().train(pack, sinks, checkpoints, states)
        return outcomes


def _training() -> Any:
    return import_module("ablate.tasks.language_model.training")


@cache
def _files(rnn: str, optimizer: str) -> dict[str, Path]:
    """Of this package, of `train`, and of the packages that a user's own layer and optimiser come from."""
    files = {path for folder in (_PACKAGE, _ROOT / "train") for path in folder.rglob("*.py")}
    return by_name(files, _ROOT) | RECURRENT_LAYERS.files(rnn) | OPTIMIZERS.files(optimizer)


@cache
def _sources(rnn: str, optimizer: str) -> dict[str, str]:
    return digests(_files(rnn, optimizer))


LANGUAGE_MODEL = LanguageModel()
