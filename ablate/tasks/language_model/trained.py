"""A trained language model, as a user gets it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.protocol import Payload
from ablate.tasks.language_model.build import make_model
from ablate.tasks.language_model.config import Config
from ablate.tasks.language_model.model import RecurrentLM
from ablate.tasks.language_model.training import corpus_of


@dataclass(frozen=True)
class TrainedModel:
    """A model with the weights that validated best.

    Attributes:
        model: in evaluation mode, on the CPU; `model(inputs_TB, None)` gives logits_TBV and the layers' states.
        words: the vocabulary: word id → word.
        config: the knobs of its trial.
    """

    model: RecurrentLM
    words: Sequence[str]
    config: Config


def trained_model(config: Config, weights: Payload) -> TrainedModel:
    """The model of a trial. Raises KnobError where its corpus, which has the words, cannot be loaded."""
    words = corpus_of(config).words
    model = make_model(config, len(words))
    model.load_state_dict(weights["model"])
    return TrainedModel(model.eval(), words, config)
