"""What the task does with torch: what is known of a trial before it trains, and its training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch

from ablate.knobs import KnobError
from ablate.protocol import Facts, Outcome, Payload, Sink, Trial
from ablate.tasks.language_model.config import Config, Data
from ablate.tasks.language_model.data import Corpus, Windows, check_fits, load_corpus
from ablate.tasks.language_model.effort import Effort
from ablate.tasks.language_model.engine import fit, text_start
from ablate.tasks.language_model.model import RecurrentLM
from ablate.tasks.language_model.model.packed import can_pack
from ablate.tasks.language_model.own_parts import check_layer, check_optimizer
from ablate.tasks.language_model.schedule import budget_windows, validation_windows
from ablate.train import Checkpoints
from ablate.train.machine import choose_device, has_bf16

__all__ = ["bytes_of", "can_pack", "corpus_of", "describe", "effort_of", "settle", "train", "trial_facts"]


def settle(config: Config, device: str) -> Config:
    """With what `precision=auto` is on this machine: bf16 where the processor multiplies it, else fp32.

    Raises:
        KnobError: for bf16 where there is none.
    """
    bf16 = has_bf16(choose_device(device))
    if config.precision == "bf16" and not bf16:
        raise KnobError(
            "precision=bf16: this processor has no bf16 arithmetic and would be many times slower; use precision=fp32"
        )
    if config.precision != "auto":
        return config
    return config.model_copy(update={"precision": "bf16" if bf16 else "fp32"})


def corpus_of(config: Config) -> Corpus:
    """The corpus that a cell trains on; each is loaded once a process. Raises KnobError when it cannot be."""
    return _sliced(config.data, config.train_tokens, config.vocabulary)


@cache
def _sliced(data: Data, train_tokens: int | None, vocabulary: str) -> Corpus:
    return _load(data).slice(train_tokens, vocabulary)


_load = cache(load_corpus)


def describe(config: Config) -> Facts:
    """What is known of a trial before it trains. Raises KnobError where the corpus cannot be used."""
    check_layer(config.rnn)
    check_optimizer(config.optimizer)
    corpus = corpus_of(config)
    check_fits(config, corpus)
    first_window = {name: getattr(config, name) for name in ("batch", "window", "output_bias", "order")}
    if config.order_seed is not None:  # such cells do not read the same text first
        first_window["order_seed"] = config.order_seed
    return Facts(
        data=corpus.name,
        digest=corpus.digest,
        sizes=corpus.counts(),
        evaluated=corpus.evaluated,
        alike=" ".join([corpus.digest, *(f"{name}={value}" for name, value in first_window.items())]),
        steps=effort_of(config).windows,
        parameters=_size(config, len(corpus.words))[0],
        chance=math.log(len(corpus.words)),
        floor=corpus.floor_nll,
        details={"vocabulary": len(corpus.words)},
        work=effort_of(config).total,
    )


def _size(config: Config, vocabulary: int) -> tuple[int, int]:
    return _size_of(
        vocabulary, config.rnn, config.depth, config.hidden, config.embedding, config.tie, config.residual,
        config.projection is not None,
    )  # fmt: skip


@cache
def _size_of(
    vocabulary: int, rnn: str, depth: int, hidden: int, embedding: int, tie: bool, residual: bool, projection: bool
) -> tuple[int, int]:
    """Trained numbers of a model, and how many of its numbers multiply something at every token.

    Found without allocating it. The latter are the recurrent layers' matrices and the output's; of the embedding one
    row is looked up.
    """
    with torch.device("meta"):
        model = RecurrentLM(
            vocabulary=vocabulary, rnn=rnn, depth=depth, hidden=hidden, embedding=embedding, dropout=0.0, tie=tie,
            residual=residual, projection=0.0 if projection else None,
        )  # fmt: skip
    matrices = [p for p in model.layers.parameters() if p.dim() > 1] + [model.output.weight]
    if model.projection is not None:
        matrices.append(model.projection.weight)
    return model.parameter_count(), sum(matrix.numel() for matrix in matrices)


def effort_of(config: Config) -> Effort:
    """2 operations a token for every matrix element that it meets, forwards; 4 more backwards."""
    corpus = corpus_of(config)
    _, matrices = _size(config, len(corpus.words))
    per_epoch = Windows(corpus.train, config.batch, config.window).per_epoch
    validations = len(validation_windows(config, per_epoch))
    valid = Windows(corpus.valid, config.eval_batch, config.eval_window).per_epoch
    # In windows of `eval_batch` streams, which a test of fewer takes longer for than this says.
    test = Windows(corpus.test, config.eval_batch, config.eval_window).per_epoch
    return Effort(
        window=6.0 * config.batch * config.window * matrices,
        windows=budget_windows(config, per_epoch),
        eval_window=2.0 * config.eval_batch * config.eval_window * matrices,
        eval_windows=validations * valid + test,
        evaluations=validations + 1,
    )


def bytes_of(config: Config, facts: Facts) -> float:
    """Memory of a trial: parameters, gradients, two moments, a copy in the products' type; what a window keeps, and an
    evaluation of each token.
    """
    tokens = max(config.batch * config.window, config.eval_batch * config.eval_window)
    # The logits, which become the gradient, and a copy; gates, cells and states of every layer.
    a_token = 2 * int(facts.details["vocabulary"]) + 40 * config.depth * config.hidden
    evaluated = 2 * max(facts.sizes["valid"], facts.sizes["test"])
    return 4.0 * (5 * (facts.parameters or 0) + tokens * a_token + evaluated)


def trial_facts(trial: Trial) -> dict[str, str]:
    """Its precision, and the place in the train text at which it starts to read."""
    start = text_start(trial.config, trial.seed, corpus_of(trial.config).train)
    return {"precision": trial.config.precision, "text_start": str(start)}


def train(
    pack: Sequence[Trial],
    sinks: Sequence[Sink],
    checkpoints: Sequence[Checkpoints],
    states: Sequence[Payload] | None,
) -> list[Outcome]:
    """Train a pack on its corpus."""
    return fit(pack, corpus_of(pack[0].config), sinks, checkpoints, states)
