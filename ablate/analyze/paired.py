"""What n paired differences say: an interval, two tests, a probability.

Pure functions of arrays. Differences are of scores (`ablate.metric`), one a seed; lower is better. Shapes: [..., n] has
seeds in its last axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

Array = NDArray[np.float64]
NAN = float("nan")
LEVEL = 0.95
# Below this differences do not differ: a loss that was summed in single precision has no such digit.
NO_SPREAD = 1e-12
# All 2^n signs are counted up to here, in two halves of 2^20; beyond, they are drawn.
EXACT_UP_TO = 40
_DRAWS = 100_000
# The noncentral t is computed up to here; every probability of interest is 0 or 1 long before.
FAR = 1e4


@dataclass(frozen=True)
class Difference:
    """What the differences between two cells say. NaN is what n does not allow.

    Attributes:
        n: differences (0: everything else is NaN; 1: `mean` and `wins` alone are known).
        mean: their mean.
        low, high: its 95 % interval (Student's t).
        p: two-sided, of the paired t test.
        p_sign_flip: two-sided, of the exact sign-flip test, which asks only for symmetry.
        better: probability that a new pair of seeds comes out below 0, Φ(−mean/sd): under normality.
        better_low, better_high: its 95 % interval, which excludes 0.5 exactly where p < 0.05.
        wins: the plain share of differences below 0; a difference of 0 is half a win.
        sd: standard deviation of the differences.
        deltas: the differences themselves; () where there are no pairs.

    Where differences do not vary at all (`sd` = 0), their spread was not seen and Student's t is not defined: `low`,
    `high`, `better_low` and `better_high` are NaN, `better` is 0, 0.5 or 1, and `p` is the sign-flip test's.
    """

    n: int
    mean: float = NAN
    low: float = NAN
    high: float = NAN
    p: float = NAN
    p_sign_flip: float = NAN
    better: float = NAN
    better_low: float = NAN
    better_high: float = NAN
    wins: float = NAN
    sd: float = NAN
    deltas: tuple[float, ...] = ()


def paired(delta: ArrayLike, rng: np.random.Generator | None = None) -> Difference:
    """Summarise paired differences.

    Args:
        delta: shape [n]; finite.
        rng: draws the sign flips of more than 40 differences; without it `p_sign_flip` is NaN there.

    Raises:
        ValueError: when a difference is no finite number: leave its seed out, and say so.
    """
    values = np.asarray(delta, float)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"differences must be finite numbers of shape [n], not {values!r}")
    n = values.size
    if n == 0:
        return Difference(0)
    mean, wins = float(values.mean()), share_of_wins(values)
    if n == 1:
        return Difference(1, mean=mean, wins=wins, deltas=(mean,))
    low, high, p = (float(x) for x in t_interval(values))
    sd = _sd(values)
    better, better_low, better_high = (float(x) for x in better_interval(mean, sd, n))
    p_sign_flip = sign_flip(values, rng)
    return Difference(
        n, mean, low, high, p_sign_flip if sd == 0 else p, p_sign_flip, better, better_low, better_high, wins,
        float(sd), tuple(values.tolist()),
    )  # fmt: skip


def unpaired(a: ArrayLike, b: ArrayLike) -> Difference:
    """Summarise a − b where the two share no seeds: Welch's t (unequal variances; Colas et al. 2019).

    Args:
        a, b: scores, shapes [n_a] and [n_b]; finite.

    Returns:
        `n` is the smaller of the two. `sd` is that of the difference between a new a and a new b; `better` is
        Φ(−mean/sd), and has no interval; there is no sign-flip test without pairs.
    """
    x, y = np.asarray(a, float), np.asarray(b, float)
    n = min(x.size, y.size)
    if n == 0:
        return Difference(0)
    mean = float(x.mean() - y.mean())
    apart = x[:, None] - y[None, :]
    if n == 1:
        return Difference(1, mean=mean, wins=share_of_wins(apart))
    parts = np.array([_sd(x) ** 2 / x.size, _sd(y) ** 2 / y.size])
    sd = math.hypot(_sd(x), _sd(y))
    better = float(better_interval(mean, sd, n)[0])
    if sd == 0:
        return Difference(n, mean, better=better, wins=share_of_wins(apart), sd=0.0)
    error = math.sqrt(parts.sum())
    df = parts.sum() ** 2 / (parts**2 / np.array([x.size - 1, y.size - 1])).sum()
    half = float(stats.t.ppf((1 + LEVEL) / 2, df)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, df))
    return Difference(n, mean, mean - half, mean + half, p, better=better, wins=share_of_wins(apart), sd=sd)


def share_of_wins(delta: Array) -> float:
    """Share of differences below 0; one of 0 is half a win."""
    return float((delta < 0).mean() + 0.5 * (delta == 0).mean())


def t_interval(delta: Array) -> tuple[Array, Array, Array]:
    """Student's t for the mean of differences.

    Args:
        delta: shape [..., n].

    Returns:
        (low, high, p), shape [...]: the 95 % interval of the mean and the two-sided p; NaN for n < 2, and where the
        differences do not vary.
    """
    n = delta.shape[-1]
    mean = delta.mean(-1)
    if n < 2:
        return (np.full(mean.shape, NAN),) * 3
    sd = _sd(delta)
    error = np.where(sd > 0, sd, NAN) / math.sqrt(n)
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * error
    return mean - half, mean + half, 2 * stats.t.sf(np.abs(mean) / error, n - 1)


def better_interval(mean: ArrayLike, sd: ArrayLike, n: int) -> tuple[Array, Array, Array]:
    """Probability that a new pair comes out below 0, Φ(−μ/σ), with its 95 % interval, under normality.

    √n·mean/sd is noncentral t with n − 1 degrees of freedom and noncentrality √n·μ/σ. The interval holds the
    noncentralities at which what was seen lies in neither tail of 2.5 % (Steiger & Fouladi 1997; Cumming & Finch
    2001): it is exact at any n, and excludes 0.5 exactly where the t test gives p < 0.05.

    Args:
        mean, sd: of n ≥ 2 differences, shape [...].

    Returns:
        (better, low, high), shape [...]; low and high are NaN where sd is 0.
    """
    mean, sd = np.broadcast_arrays(np.asarray(mean, float), np.asarray(sd, float))
    flat = sd == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.where(flat, np.where(np.abs(mean) < NO_SPREAD, 0.0, np.sign(mean) * np.inf), mean / sd)
    t = np.where(flat, NAN, np.clip(effect * math.sqrt(n), -FAR, FAR))
    tails = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    # The larger the noncentrality, the smaller P(T ≤ t): the lower tail gives its upper end.
    low, high = (special.ndtr(-special.nctdtrinc(n - 1, tail, t) / math.sqrt(n)) for tail in tails)
    return special.ndtr(-effect), low, high


def meaningful(better_low: float, better_high: float, gamma: float = 0.75) -> bool:
    """Whether one is better than the other in a way that matters (Bouthillier et al. 2021).

    Their rule for P(better): the interval lies above 0.5 (it is no chance) and reaches above γ (it may matter).
    """
    return better_low > 0.5 and better_high > gamma


def sign_flip(delta: Array, rng: np.random.Generator | None = None) -> float:
    """Two-sided p of the sign-flip permutation test of a mean of 0 (Fisher 1935).

    Args:
        delta: shape [n]. Up to n = 40 all 2^n sign patterns count, exactly: the sums of two halves are sorted and
            met in the middle (Horowitz & Sahni 1974). Beyond, 100,000 patterns are drawn from `rng`.

    Returns:
        The share of patterns whose sum is at least as far from 0 as what was seen; NaN for n = 0, and for n > 40
        without `rng`.
    """
    n = delta.size
    if n == 0:
        return NAN
    seen = abs(float(delta.sum()))
    tolerance = 1e-9 * float(np.abs(delta).sum()) + NO_SPREAD
    if seen <= tolerance:
        return 1.0
    if _sd(delta) == 0:
        return smallest_p(n)
    if n > EXACT_UP_TO:
        return NAN if rng is None else _drawn_flips(delta, seen - tolerance, rng)
    one, other = (_signed_sums(half) for half in (delta[: n // 2], delta[n // 2 :]))
    other.sort()
    # Patterns come in pairs of opposite sums: those above count twice.
    above = other.size - np.searchsorted(other, seen - tolerance - one, side="left")
    return min(1.0, float(2 * above.sum() / 2**n))


def _signed_sums(values: Array) -> Array:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _drawn_flips(delta: Array, at_least: float, rng: np.random.Generator) -> float:
    reached, batch = 0, 1000
    for _ in range(_DRAWS // batch):
        signs = rng.choice((-1.0, 1.0), size=(batch, delta.size))
        reached += int((np.abs(signs @ delta) >= at_least).sum())
    return (1 + reached) / (1 + _DRAWS)


def smallest_p(n: int) -> float:
    """The smallest p that the two-sided sign-flip test can give with n pairs, 2/2^n; NaN with none."""
    return 2.0 ** (1 - n) if n > 0 else NAN


def holm(p: Sequence[float] | Array) -> Array:
    """Holm's adjusted p (1979): under 5 % in all rows with a chance below 5 %, whatever their dependence.

    Args:
        p: shape [tests]; NaN is no test, and stays NaN.
    """
    values = np.asarray(p, float)
    adjusted = np.full(values.shape, NAN)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if order.size else steps
    return adjusted


def _sd(values: Array) -> Array:
    """Standard deviation over the last axis; exactly 0 where values do not vary."""
    sd = np.asarray(values.std(-1, ddof=1)) if values.shape[-1] > 1 else np.zeros(values.shape[:-1])
    return np.where(sd < NO_SPREAD, 0.0, sd)
