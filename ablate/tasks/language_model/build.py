"""A trial's model, of its knobs: made, and given its initial values."""

from __future__ import annotations

import math

from torch import Tensor

from ablate.tasks.language_model.config import Config
from ablate.tasks.language_model.model import RecurrentLM


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


def draw(model: RecurrentLM, knobs: Config, seed: int, log_unigram_V: Tensor | None) -> None:
    """Give a model its initial values."""
    model.initialize(
        seed,
        knobs.embedding_std,
        output_std=_output_std(knobs),
        init_range=knobs.init_range,
        forget_bias=knobs.forget_bias,
        output_bias_V=log_unigram_V if knobs.output_bias == "unigram" else None,
    )
