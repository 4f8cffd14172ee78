"""What n paired differences say: an interval, two tests, how many go which way.

Pure functions of arrays. Differences are of scores (`ablate.metric`), one a seed; lower is better. Shapes: [..., n] has
seeds in its last axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
NAN = float("nan")
LEVEL = 0.95
# Below this differences do not differ: a loss that was summed in single precision has no such digit.
NO_SPREAD = 1e-12
# All 2^n signs are counted up to here, in two halves of 2^20; beyond, they are drawn.
EXACT_UP_TO = 40
_DRAWS = 100_000


@dataclass(frozen=True)
class Difference:
    """What the differences between two cells say. NaN is what n does not allow.

    Attributes:
        n: differences (0: everything else is NaN; 1: `mean`, `wins` and `losses` alone are known).
        mean: their mean; error: its standard error, with df degrees of freedom.
        low, high: its 95 % interval (Student's t).
        p: two-sided, of the paired t test.
        p_sign_flip: two-sided, of the exact sign-flip test, which asks only for symmetry.
        wins, losses: differences below and above 0.
        wins_low, wins_high: 95 % interval of the chance that a new difference, if it is not 0, lies below
            (Clopper & Pearson 1934): exact at any n, whatever the differences' distribution.
        sd: standard deviation of the differences.
        deltas: the differences themselves; () where there are no pairs.

    Where differences do not vary at all (`sd` = 0), their spread was not seen and Student's t is not defined: `low`
    and `high` are NaN, and `p` is the sign-flip test's.
    """

    n: int
    mean: float = NAN
    low: float = NAN
    high: float = NAN
    p: float = NAN
    p_sign_flip: float = NAN
    error: float = NAN
    df: float = NAN
    wins: int = 0
    losses: int = 0
    wins_low: float = NAN
    wins_high: float = NAN
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
    mean, signs = float(values.mean()), _signs(values)
    if n == 1:
        return Difference(1, mean=mean, **signs, deltas=(mean,))
    low, high, p = (float(x) for x in t_interval(values))
    sd, flipped = float(_sd(values)), sign_flip(values, rng)
    return Difference(
        n, mean, low, high, flipped if sd == 0 else p, flipped, sd / math.sqrt(n), n - 1, **signs, sd=sd,
        deltas=tuple(values.tolist()),
    )  # fmt: skip


def unpaired(a: ArrayLike, b: ArrayLike) -> Difference:
    """Summarise a − b where the two share no seeds: Welch's t (unequal variances; Colas et al. 2019).

    Args:
        a, b: scores, shapes [n_a] and [n_b]; finite.

    Returns:
        `n` is the smaller of the two. `sd` is that of the difference between a new a and a new b; there are no wins and
        no sign-flip test without pairs. Where neither varies, `p` is that of the exact permutation test.
    """
    x, y = np.asarray(a, float), np.asarray(b, float)
    n = min(x.size, y.size)
    if n == 0:
        return Difference(0)
    mean = float(x.mean() - y.mean())
    if n == 1:
        return Difference(1, mean=mean)
    parts = np.array([_sd(x) ** 2 / x.size, _sd(y) ** 2 / y.size])
    sd = math.hypot(_sd(x), _sd(y))
    if sd == 0:
        # Of all ways to deal out the values, these two are as far apart; a mean of the other sign is as far in size.
        p = 1.0 if abs(mean) < NO_SPREAD else (2 if x.size == y.size else 1) / math.comb(x.size + y.size, x.size)
        return Difference(n, mean, p=p, error=0.0, sd=0.0)
    error = math.sqrt(parts.sum())
    df = float(parts.sum() ** 2 / (parts**2 / np.array([x.size - 1, y.size - 1])).sum())
    half = float(stats.t.ppf((1 + LEVEL) / 2, df)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, df))
    return Difference(n, mean, mean - half, mean + half, p, error=error, df=df, sd=sd)


def _signs(delta: Array) -> dict[str, Any]:
    wins, losses = int((delta < 0).sum()), int((delta > 0).sum())
    low, high = clopper_pearson(wins, wins + losses)
    return {"wins": wins, "losses": losses, "wins_low": low, "wins_high": high}


def clopper_pearson(wins: int, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a probability of which `wins` of `n` came true; NaN for n = 0."""
    if n == 0:
        return NAN, NAN
    tail = (1 - LEVEL) / 2
    low = float(stats.beta.ppf(tail, wins, n - wins + 1)) if wins else 0.0
    high = float(stats.beta.ppf(1 - tail, wins + 1, n - wins)) if wins < n else 1.0
    return low, high


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
    """Standard deviation over the last axis; exactly 0 where values do not vary, but by how they are rounded."""
    if values.shape[-1] < 2:
        return np.zeros(values.shape[:-1])
    sd, largest = values.std(-1, ddof=1), np.abs(values).max(-1)
    return np.where(sd < NO_SPREAD * np.maximum(1.0, largest), 0.0, sd)
