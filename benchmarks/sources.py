"""Whether the intervals of variance components hold the truth: simulated studies of which it is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ablate.analyze.paired import Array
from ablate.analyze.sources import interval_of_difference, interval_of_square, mean_squares
from benchmarks.common import Table

Codes = NDArray[np.intp]
NOISES = ("normal", "Student's t, 5 df", "exponential")


def square(n: int) -> Codes:
    """A Latin square of three sources with n seeds each, shape [n², 3]."""
    return np.array([(i, j, (i + j) % n) for i, j in product(range(n), repeat=2)])


def crossing(*seeds: int) -> Codes:
    """Every combination of the sources' seeds, shape [trials, sources]."""
    return np.array([*product(*map(range, seeds))])


DESIGNS = {
    "square of 3": square(3),
    "square of 5": square(5),
    "square of 5, a trial lost": np.delete(square(5), 7, axis=0),
    "square of 7": square(7),
    "3 × 5": crossing(3, 5),
    "3 × 3 × 3": crossing(3, 3, 3),
}
# Standard deviations of the sources beside that of the residual, which is 1.
SIZES = ((1.0, 0.5, 0.0), (3.0, 1.0, 0.2))


@dataclass(frozen=True)
class Coverage:
    """Shares of simulated studies whose 95 % interval held the truth: of each source, the residual, all together.

    `bias`: of each source's estimate, the residual's and the total's, in its own standard errors.
    """

    sources: Sequence[float]
    residual: float
    total: float
    bias: Sequence[float]


def sources(studies: int = 20_000) -> Table:
    """Coverage by design, noise and size of the sources."""
    rows = []
    for name, codes in DESIGNS.items():
        for noise in NOISES:
            for sds in SIZES:
                found = measure(codes, sds[: codes.shape[1]], noise, studies, np.random.default_rng(0))
                sizes = " ".join(f"{sd:g}" for sd in sds[: codes.shape[1]])
                *told, residual, total = (
                    f"{100 * share:.1f}" for share in (*found.sources, found.residual, found.total)
                )
                told += ["–"] * (3 - len(told))
                rows.append([name, noise, sizes, *told, residual, total, f"{max(np.abs(found.bias)):.1f}"])
    return Table(
        title="Whether the 95 % interval of a source of noise holds the truth",
        command="python -m benchmarks sources",
        headings=[
            "design", "noise", "sd of the sources", "first", "second", "third", "residual", "all together", "bias",
        ],
        rows=rows,
        note=f"Per cent of {studies:,} simulated studies; standard deviations are multiples of the residual's. Bias: "
        "the largest of all estimates, in standard errors of the simulation. A source without any noise is below its "
        "interval in 2.5 % of the studies and never above it.",
    )  # fmt: skip


def measure(codes: Codes, sds: Sequence[float], noise: str, studies: int, rng: np.random.Generator) -> Coverage:
    """Simulate studies and count."""
    found = mean_squares(simulate(codes, sds, noise, studies, rng), codes)
    assert found is not None, "the designs above can be analysed"
    truth = np.square(sds)
    low, high = interval_of_difference(found.source, found.df, found.residual, found.residual_df)
    held = (np.maximum(low, 0) <= found.times * truth) & (found.times * truth <= np.maximum(high, 0))
    total, total_low, total_high = found.total
    estimates = [*found.variances.T, found.residual, total]
    off = [
        (e.mean() - t) / (e.std() / np.sqrt(studies))
        for e, t in zip(estimates, [*truth, 1, truth.sum() + 1], strict=True)
    ]
    return Coverage(
        sources=held.mean(0).tolist(),
        residual=_holds(interval_of_square(found.residual, found.residual_df), 1.0),
        total=_holds((total_low, total_high), truth.sum() + 1),
        bias=[float(each) for each in off],
    )


def simulate(codes: Codes, sds: Sequence[float], noise: str, studies: int, rng: np.random.Generator) -> Array:
    """Scores whose residual has a variance of 1, shape [studies, trials]."""
    y = _draw(noise, (studies, len(codes)), rng)
    for place, sd in enumerate(sds):
        y = y + sd * _draw(noise, (studies, codes[:, place].max() + 1), rng)[:, codes[:, place]]
    return y


def _draw(noise: str, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Mean 0, variance 1."""
    if noise == "normal":
        return rng.normal(size=shape)
    return rng.exponential(size=shape) - 1 if noise == "exponential" else rng.standard_t(5, size=shape) / np.sqrt(5 / 3)


def _holds(interval: tuple[Array, Array], truth: float) -> float:
    return float(((interval[0] <= truth) & (truth <= interval[1])).mean())
