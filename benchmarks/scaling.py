"""Tokens a second of the engine by size of the text, vocabulary and depth, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch

from ablate.protocol import Trial
from ablate.tasks.language_model.config import Config
from ablate.tasks.language_model.data import Windows
from ablate.tasks.language_model.engine import Pack, train_window
from benchmarks.common import Table, compose, precisions_of


def speed(knobs: Config, vocabulary: int, tokens: int, windows: int = 12) -> float:
    """Median tokens a second over windows of random words."""
    device = torch.device("cpu")
    ids = np.random.default_rng(0).integers(vocabulary, size=tokens).astype(np.int32)
    pack, text = Pack([Trial(knobs, 0)], vocabulary, device), Windows(ids, knobs.batch, knobs.window)
    seconds = []
    for number in range(windows):
        started = time.perf_counter()
        train_window(pack, text, number, device)
        seconds.append(time.perf_counter() - started)
    return knobs.batch * knobs.window / statistics.median(seconds[2:])


def scaling() -> Table:
    """One factor at a time from README's LSTM: 100 units, one layer, 10,000 words, a million tokens."""
    base = {"vocabulary": 10_000, "tokens": 1_000_000, "depth": 1, "hidden": 100}
    varied: dict[str, Sequence[int]] = {
        "vocabulary": (1_000, 10_000, 30_000, 100_000),
        "tokens": (100_000, 1_000_000, 100_000_000),
        "depth": (1, 2, 4, 8),
        "hidden": (100, 200, 400, 650, 1500),
    }
    rows = []
    for factor, levels in varied.items():
        for level in levels:
            at = {**base, factor: level}
            speeds = [
                speed(
                    compose(f"depth={at['depth']}", f"hidden={at['hidden']}", f"precision={precision}"),
                    at["vocabulary"],
                    at["tokens"],
                )
                for precision in precisions_of("cpu")
            ]
            rows.append([f"{factor}={level:,}", *(f"{s:,.0f}" for s in speeds)])
    return Table(
        title="How the speed scales",
        command="python -m benchmarks scaling",
        headings=["", *(f"tokens/s, {precision}" for precision in precisions_of("cpu"))],
        rows=rows,
        note="Updates alone, on random words; what is not named is as in the second row: an untied LSTM of 100 units.",
    )
