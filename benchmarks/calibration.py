"""Whether the statistics keep their word: simulated studies of which the truth is known."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from ablate.analyze.paired import LEVEL, Array, holm, t_interval
from benchmarks.common import Table

Interval = tuple[Array, Array]
SEEDS = (3, 5, 10)
NOISES = ("normal", "exponential", "lognormal")
# Standard deviations of the noise, in nats, of six cells: three depths without tying, then with it. As unequal as
# real cells are; what all cells share by their seed (SHARED) makes two of them correlate by 0.2 at
# most, as real ones do.
SPREADS = np.array([0.01, 0.005, 0.02, 0.015, 0.01, 0.008])
SHARED = 0.005
_SUBSETS = [frozenset(some) for size in range(4) for some in combinations(range(3), size)]


@dataclass(frozen=True)
class Measured:
    """Shares of simulated studies. Coverage: the 95 % interval held the truth. False: a finding where there was none.

    Attributes:
        paired, marginal, shapley: coverage of what ablate reports.
        percentile, bca, bootstrap_t: coverage of three bootstraps of the same paired differences.
        endless: bootstrap-t intervals that are infinite (they hold the truth and say nothing).
        false_holm, false_each: studies of six cells without any effect in which some cell was found to differ, by
            p_holm and by p.
    """

    paired: float
    marginal: float
    shapley: float
    percentile: float
    bca: float
    bootstrap_t: float
    endless: float
    false_holm: float
    false_each: float


def calibration(studies: int = 2000, resamples: int = 999) -> Table:
    """Coverage and false findings at 3, 5 and 10 seeds, under normal noise and under two that are skewed."""
    rows = []
    for noise in NOISES:
        for n in SEEDS:
            m = measure(noise, n, studies, resamples, np.random.default_rng([n, NOISES.index(noise)]))
            ours = [f"{100 * share:.1f}" for share in (m.paired, m.marginal, m.shapley)]
            bootstraps = [f"{100 * m.percentile:.1f}", f"{100 * m.bca:.1f}"]
            last = f"{100 * m.bootstrap_t:.1f} ({100 * m.endless:.0f} % of them infinite)"
            false = [f"{100 * m.false_holm:.1f}", f"{100 * m.false_each:.1f}"]
            rows.append([noise, n, *ours, *bootstraps, last, *false])
    return Table(
        title="Whether a 95 % interval holds the truth 95 % of the time",
        command="python -m benchmarks calibration",
        headings=[
            "noise", "seeds", "paired t", "factor effect", "Shapley value", "percentile bootstrap", "BCa",
            "bootstrap-t", "false findings, Holm", "without Holm",
        ],
        rows=rows,
        note=f"Per cent of {studies:,} simulated studies. First the coverage of what `ablate` reports, then of what it "
        f"does not use ({resamples} resamples of the same paired differences), then the share of studies of six cells "
        "without any effect that find one. Exponential and lognormal: the paired differences themselves are skewed so "
        "(skewness 2 and 6; that of two cells with alike noise is near 0). The "
        "simulation's own error is about 1 percentage point (two standard errors).",
    )  # fmt: skip


def measure(noise: str, n: int, studies: int, resamples: int, rng: np.random.Generator) -> Measured:
    """Simulate studies of `n` seeds and count. `noise`: one of NOISES."""
    nll = simulate(noise, n, studies, rng)
    delta = nll[..., 1] - nll[..., 0]
    percentile, bootstrap_t, endless = resampled(delta, resamples, rng)
    p = np.stack([t_interval(nll[..., cell] - nll[..., 0])[2] for cell in range(1, SPREADS.size)], axis=-1)
    return Measured(
        paired=covers(t_interval(delta)[:2], 0.0),
        marginal=covers(t_interval(marginal(nll))[:2], 0.0),
        shapley=covers(t_interval(shapley(noise, n, studies, rng))[:2], 0.0),
        percentile=covers(percentile, 0.0),
        bca=covers(accelerated(delta, resamples, rng), 0.0),
        bootstrap_t=covers(bootstrap_t, 0.0),
        endless=endless,
        false_holm=float(np.mean([(holm(row) < 1 - LEVEL).any() for row in p])),
        false_each=float((p < 1 - LEVEL).any(axis=-1).mean()),
    )


def simulate(noise: str, n: int, studies: int, rng: np.random.Generator) -> Array:
    """test_nll of six cells without any effect, shape [studies, n, cells].

    The difference of two equally skewed noises is symmetric. So that the differences themselves are skewed, the cells
    at the reference depth (0 and 3) have none of their own then.
    """
    own = _draw(noise, (studies, n, SPREADS.size), rng) * SPREADS
    if noise != "normal":
        own[..., [0, 3]] = 0
    return np.asarray(5 + SHARED * rng.normal(size=(studies, n, 1)) + own)


def marginal(nll: Array) -> Array:
    """The second depth against the first, averaged over tying: shape [studies, n]."""
    return np.asarray((nll[..., [1, 4]] - nll[..., [0, 3]]).mean(axis=-1))


def shapley(noise: str, n: int, studies: int, rng: np.random.Generator) -> Array:
    """Shapley value, by seed, of the first of three components without any effect: shape [studies, n].

    Under skewed noise only cells that have the component have any.
    """
    own = {
        subset: 0.01 * _draw(noise, (studies, n), rng) * (1.0 if noise == "normal" else 0 in subset)
        for subset in _SUBSETS
    }
    weights = {0: 1 / 3, 1: 1 / 6, 2: 1 / 3}
    return np.asarray(sum(weights[len(s)] * (own[s | {0}] - own[s]) for s in _SUBSETS if 0 not in s))


def _draw(noise: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Mean 0, variance 1."""
    if noise == "exponential":
        return rng.exponential(size=shape) - 1
    z = rng.normal(size=shape)
    return z if noise == "normal" else (np.exp(z) - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e)


def covers(interval: Interval, truth: float) -> float:
    """Share of intervals that hold the truth; one that could not be computed holds nothing."""
    return float(((interval[0] <= truth) & (truth <= interval[1])).mean())


def resampled(
    delta: Array, resamples: int, rng: np.random.Generator
) -> tuple[tuple[Array, Array], tuple[Array, Array], float]:
    """Percentile bootstrap and bootstrap-t of the mean (Efron & Tibshirani 1993, ch. 12 and 13).

    Args:
        delta: shape [studies, n].

    Returns:
        (percentile interval, bootstrap-t interval, share of the latter that are infinite). A resample of one value
        n times has no spread, and so an infinite t.
    """
    n = delta.shape[-1]
    parts = [_resample(part, resamples, rng) for part in np.array_split(delta, max(1, len(delta) // 200))]
    means, t = (np.concatenate(values) for values in zip(*parts, strict=True))
    lower, upper = (_order_statistic(means, q) for q in _TAILS)
    t_lower, t_upper = (_order_statistic(t, q) for q in _TAILS)
    error = delta.std(-1, ddof=1) / math.sqrt(n)
    low, high = delta.mean(-1) - t_upper * error, delta.mean(-1) - t_lower * error
    return (lower, upper), (low, high), float((np.isinf(low) | np.isinf(high)).mean())


_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


def _resample(delta: Array, resamples: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Means and t of resamples, shape [studies, resamples]."""
    n = delta.shape[-1]
    chosen = rng.integers(n, size=(len(delta), resamples, n))
    drawn = np.take_along_axis(delta[:, None, :], chosen, axis=-1)
    mean = drawn.mean(-1)
    off = mean - delta.mean(-1, keepdims=True)
    sd = np.where((chosen == chosen[..., :1]).all(-1), 0.0, drawn.std(-1, ddof=1))
    with np.errstate(divide="ignore"):
        return mean, off / (sd / math.sqrt(n))


def _order_statistic(values: Array, quantile: float) -> Array:
    """Of the last axis; with infinities between which nothing can be interpolated."""
    return np.sort(values, axis=-1)[..., round(quantile * (values.shape[-1] - 1))]


def accelerated(delta: Array, resamples: int, rng: np.random.Generator) -> Interval:
    """BCa bootstrap of the mean, by scipy; NaN where it is degenerate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        parts = [
            stats.bootstrap((part,), np.mean, axis=-1, method="BCa", n_resamples=resamples, rng=rng).confidence_interval
            for part in np.array_split(delta, max(1, len(delta) // 200))
        ]
    low, high = (np.concatenate(ends) for ends in zip(*parts, strict=True))
    return low, high
