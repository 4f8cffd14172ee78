"""Valid perplexity after one epoch of Penn Treebank, beside pytorch/examples' word_language_model.

Speeds can be compared only where both learn the same. The peer's program runs unmodified. Ours trains the peer's
model, with its two biases a gate and from the very values that its program starts with; and its own model, with one
bias and its own initial values, but for word vectors as wide as the peer's. Besides the engines, these differ: the peer
trains a last, shorter window (33 tokens a stream) and reads the valid text's last tokens too, and dropout's masks.
"""

from __future__ import annotations

import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import fmean, geometric_mean, stdev

import torch
from scipy.stats import t

from ablate.protocol import Trial
from ablate.tasks.language_model.config import PTB
from ablate.tasks.language_model.data import Corpus, Windows, load_corpus
from ablate.tasks.language_model.engine import Pack, train_window
from ablate.tasks.language_model.evaluate import evaluate
from ablate.tasks.language_model.model import RecurrentLM
from ablate.train.machine import choose_device
from benchmarks.common import Table, precisions_of, run
from benchmarks.packs import knobs_of
from benchmarks.throughput import DEVICE, EMBEDDING_STD, SIZES, Size, commit, peer_arguments, write_text

Start = Callable[[RecurrentLM], None]


def one_epoch(peer: Path) -> Table:
    """Perplexities of both programs, and their ratios seed by seed."""
    corpus = load_corpus(PTB(name="ptb"))
    rows: list[list[object]] = []
    for size in SIZES:
        seeds = range(1, size.seeds + 1)
        theirs = [_told(_peer_perplexity(peer, size, seed), "word_language_model") for seed in seeds]
        measured = [f"{geometric_mean(theirs):.2f}", "1", ""]
        rows.append([size.name, "word_language_model", "the peer's", size.seeds, *measured])
        for precision, name, start in _contestants(peer, size):
            ours = [_told(_our_perplexity(size, precision, seed, corpus, start(seed)), name) for seed in seeds]
            ratios = [math.log(mine / its) for mine, its in zip(ours, theirs, strict=True)]
            measured = [f"{geometric_mean(ours):.2f}", f"{math.exp(fmean(ratios)):.3f}", _interval(ratios)]
            rows.append([size.name, f"ablate, {precision}", name, size.seeds, *measured])
    return Table(
        title="The same perplexity after one epoch",
        command="python -m benchmarks one_epoch --peer PATH",
        headings=["size", "program", "model", "seeds", "valid perplexity", "ratio", "95 % interval"],
        rows=rows,
        note=f"word_language_model of {commit(peer)}, learning rate 20; perplexities and ratios are geometric means "
        "over the seeds, the interval is Student's t on the logarithms of the ratios. The peer's model has two biases "
        "a gate and starts with what the peer's program draws from its seed; ours has one bias and starts with its own "
        "values, its word vectors as wide as the peer's. Masks of dropout differ, and the tails of the texts.",
    )


def _contestants(peer: Path, size: Size) -> list[tuple[str, str, Callable[[int], Start]]]:
    """Precision, whose model, and how it starts; the peer's model in fp32 alone, in which its program computes too."""
    ours = [(precision, "its own", _as_ours) for precision in precisions_of(DEVICE)]
    return [("fp32", "the peer's", partial(_as_peer, peer, size)), *ours]


def _told(perplexity: float, name: str) -> float:
    """Say it at once: the next takes minutes."""
    print(f"{name}: {perplexity:.2f}", file=sys.stderr, flush=True)
    return perplexity


def _interval(logarithms: list[float]) -> str:
    """Of a mean ratio, from the logarithms of the ratios; empty for one of them."""
    if len(logarithms) < 2:
        return ""
    half = t.ppf(0.975, len(logarithms) - 1) * stdev(logarithms) / math.sqrt(len(logarithms))
    low, high = (math.exp(fmean(logarithms) + sign * half) for sign in (-1, 1))
    return f"{low:.3f}–{high:.3f}"


def _peer_perplexity(peer: Path, size: Size, seed: int) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_text(folder)
        _, output = run([*peer_arguments(peer, size, folder, folder / "model.pt"), "--seed", str(seed)], folder)
    found = re.search(r"valid ppl\s+(\S+)", output)
    assert found is not None, output
    return float(found[1])


def _our_perplexity(size: Size, precision: str, seed: int, corpus: Corpus, start: Start) -> float:
    knobs = knobs_of(size, precision).model_copy(update={"embedding_std": EMBEDDING_STD})
    device = choose_device("auto")
    pack = Pack([Trial(knobs, seed)], len(corpus.words), device)
    start(pack.trainings[0].model)
    text = Windows(corpus.train, knobs.batch, knobs.window)
    for place in range(text.per_epoch):
        train_window(pack, text, place, device)
    return math.exp(evaluate(pack.program, corpus.valid, knobs, device)[0])


def _as_ours(seed: int) -> Start:
    return lambda model: None


def _as_peer(peer: Path, size: Size, seed: int) -> Start:
    """Makes a model of ours the one that the peer's program has right after it has set its seed."""
    with _importable(peer):
        make = import_module("model").RNNModel
    torch.manual_seed(seed)
    model = make("LSTM", 10_000, size.hidden, size.hidden, size.depth, size.dropout, size.tie)

    def copy(ours: RecurrentLM) -> None:
        with torch.no_grad():
            ours.embedding.weight.copy_(model.encoder.weight)
            ours.output.weight.copy_(model.decoder.weight)
            for i in range(size.depth):
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    value = ours.get_parameter(f"layers.{i}.kernel.{name}_l0").requires_grad_(True)
                    value.copy_(getattr(model.rnn, f"{name}_l{i}"))

    return copy


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
