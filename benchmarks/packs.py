"""Trials an hour of packs of K, over K trials one after the other; on the GPU where there is one.

Needs torch and numpy alone: python -m benchmarks packs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from ablate.protocol import Trial
from ablate.tasks.language_model.config import PTB, Config
from ablate.tasks.language_model.data import Windows
from ablate.tasks.language_model.engine import Pack, train_window
from ablate.train.machine import keep_memory
from benchmarks.common import Table, alternate, precisions_of, roofline, seconds, spread
from benchmarks.throughput import SIZES, Size

_WORDS, _WINDOW = 10_000, 20 * 35
_WINDOWS = 5  # a turn


def knobs_of(size: Size, precision: str) -> Config:
    """The book's recipe for a size, without Hydra."""
    return Config(
        model="lstm", rnn="lstm", depth=size.depth, dropout=size.dropout, tie=size.tie, residual=False,
        hidden=size.hidden, embedding=size.hidden, embedding_std=0.01, init="fan_in", init_range=None,
        output_bias="zero", forget_bias=0.0, projection=None, schedule="constant", warmup=0.0, decay_from=0.0,
        lr_floor=0.0, budget=1.0, order="text", test_batch=None, recipe="book", optimizer="sgd", lr=20.0, decay=None,
        clip=0.25, batch=20, window=35, epochs=None, windows=100, carry=True, valid_every=100, valid_spacing="even",
        eval_batch=10, eval_window=35, test_weights="last", train_tokens=None, vocabulary="full",
        precision="bf16" if precision == "bf16" else "fp32", sample_words=0, data=PTB(name="ptb"),
    )  # fmt: skip


def packs(rounds: int) -> Table:
    """Packs of 2, 4, 8 and on a GPU 16 and 32, beside one trial."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    many = [1, 2, 4, 8, 16, 32] if device == "cuda" else [1, 2, 4, 8]
    keep_memory()
    rows = []
    for size in SIZES:
        for precision in precisions_of(device):
            rows += _rows(size, precision, device, many, rounds)
    return Table(
        title="Trials together",
        command="python -m benchmarks packs",
        headings=[
            "model",
            "precision",
            "trials together",
            "ms a window of each",
            "trials/hour over one by one (range)",
            "of the matrix product's speed",
        ],
        rows=rows,
        note=f"Updates alone, on {device}, {_WINDOWS} windows a turn, {rounds} rounds in turn, medians; each trial has "
        "its own initial values and dropout.",
    )


def _rows(size: Size, precision: str, device: str, many: list[int], rounds: int) -> list[list[object]]:
    knobs = knobs_of(size, precision)
    ids = np.random.default_rng(0).integers(_WORDS, size=929_589).astype(np.int32)
    text = Windows(ids, knobs.batch, knobs.window)
    turns: dict[str, Callable[[], float]] = {}
    for k in many:
        pack = Pack([Trial(knobs, seed) for seed in range(k)], _WORDS, torch.device(device))
        turns[str(k)] = partial(_turn, pack, text, device)
    for turn in turns.values():
        turn()
    times = alternate(turns, rounds)
    peak = roofline(torch.bfloat16 if precision == "bf16" else torch.float32, device)
    rows: list[list[object]] = []
    for k in many:
        ratios = [one / each for one, each in zip(times["1"], times[str(k)], strict=True)]
        window = statistics.median(times[str(k)])
        share = size.operations() * _WINDOW / window / peak
        rows.append([size.name, precision, k, f"{1000 * window:.1f}", spread(ratios), f"{share:.0%}"])
    return rows


def _turn(pack: Pack, text: Windows, device: str) -> float:
    """Seconds a window of each trial."""

    def windows() -> None:
        for _ in range(_WINDOWS):
            train_window(pack, text, pack.window, torch.device(device))
            pack.window += 1

    return seconds(windows, device) / _WINDOWS / len(pack.trainings)
