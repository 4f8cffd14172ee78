"""Whether intervals over test data and seeds together hold the truth: simulated studies of which it is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ablate.analyze.paired import Array, t_interval
from ablate.analyze.text import text_and_seeds
from benchmarks.calibration import covers
from benchmarks.common import Table

SEEDS = (3, 5, 10)
BLOCKS = (20, 50, 200)
NOISES = ("normal", "exponential")
# Share of the test data in the variance of the mean that is not of single cells, and what those add to it.
TEXT = {"seeds matter most": 0.1, "alike": 0.5, "text matters most": 0.9}
CELLS = 0.1


@dataclass(frozen=True)
class Measured:
    """Shares of simulated studies whose 95 % interval held the truth: over both, and over the seeds alone."""

    both: float
    seeds: float


def calibration(studies: int = 2000) -> Table:
    """Coverage by seeds and blocks, for normal block effects and skewed ones, and for blocks of unequal sizes."""
    rows = []
    for noise in NOISES:
        for seeds in SEEDS:
            for blocks in BLOCKS:
                found = [
                    measure(noise, seeds, blocks, text, studies, is_unequal)
                    for is_unequal in (False, True)
                    for text in TEXT.values()
                ]
                both = [f"{100 * each.both:.1f}" for each in found]
                alone = [f"{100 * each.seeds:.1f}" for each in found[1:3]]
                rows.append([noise, seeds, blocks, *both, *alone])
    unequal = [f"{name}, unequal blocks" for name in TEXT]
    alone = [f"seeds alone, {name}" for name in [*TEXT][1:]]
    return Table(
        title="Whether a 95 % interval over test data and seeds holds the truth",
        command="python -m benchmarks calibration",
        headings=["block effects", "seeds", "blocks", *TEXT, *unequal, *alone],
        rows=rows,
        note=f"Per cent of {studies:,} simulated studies. A difference is θ + seed + block + cell, with normal effects "
        "of seeds and cells. Of the variance of the mean the test data make 10, 50 or 90 % beside the seeds; single "
        f"blocks of single seeds add {100 * CELLS:.0f} %. Unequal blocks differ in size up to tenfold. The last two "
        "columns are Student's interval over the seeds alone, which speaks of the test data at hand and not of others. "
        "The simulation's own error is about 1 percentage point (two standard errors).",
    )


def measure(noise: str, seeds: int, blocks: int, text: float, studies: int, is_unequal: bool = False) -> Measured:
    """Simulate studies and count.

    Args:
        noise: of the block effects, one of NOISES.
        text: share of the test data in the variance of the mean, besides that of single cells.
    """
    rng = np.random.default_rng([NOISES.index(noise), seeds, blocks, round(1000 * text), is_unequal])
    size_J = rng.integers(30, 300, blocks).astype(float) if is_unequal else np.full(blocks, 100.0)
    total_SJ = simulate(noise, seeds, size_J, text, studies, rng)
    found = text_and_seeds(total_SJ, size_J)
    alone = t_interval(total_SJ.sum(-1) / size_J.sum())
    return Measured(covers((found.low, found.high), 0.0), covers(alone[:2], 0.0))


def simulate(noise: str, seeds: int, size_J: Array, text: float, studies: int, rng: np.random.Generator) -> Array:
    """Differences without any effect, summed over each block, shape [studies, seeds, blocks]."""
    blocks = size_J.size
    alike = size_J.sum() ** 2 / np.square(size_J).sum()  # blocks of equal size that would vary as much
    own_J = (
        rng.normal(size=(studies, 1, blocks)) if noise == "normal" else rng.exponential(size=(studies, 1, blocks)) - 1
    )
    by_seed = rng.normal(size=(studies, seeds, 1)) * np.sqrt((1 - text) * seeds)
    by_cell = rng.normal(size=(studies, seeds, blocks)) * np.sqrt(CELLS * seeds * alike)
    return np.asarray(size_J * (by_seed + own_J * np.sqrt(text * alike) + by_cell))
