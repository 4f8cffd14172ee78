"""What n paired differences could have shown, and how many more are needed."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import optimize, special, stats

from ablate.analyze.paired import LEVEL, NAN

POWER = 0.8
# The noncentral t is computed up to here; every probability of interest is 0 or 1 long before.
_FAR = 1e4


def detectable(sd: float, n: int, power: float = POWER, level: float = LEVEL) -> float:
    """The smallest difference that a paired t test of n seeds shows with this power.

    Args:
        sd: of the differences.

    Returns:
        Its absolute value, solved from the noncentral t; NaN for n < 2 and where sd is 0 or NaN: a spread that was
        not seen promises nothing.
    """
    if n < 2 or not sd > 0:
        return NAN
    return _noncentrality(n, power, level) * sd / math.sqrt(n)


def seeds_needed(difference: float, sd: float, power: float = POWER, level: float = LEVEL) -> float:
    """The fewest pairs, at least 2, with which a paired t test shows a difference with this power.

    Args:
        difference, sd: of scores.

    Returns:
        A whole number; NaN where there is no difference to show, or sd is 0 or NaN.
    """
    effect = abs(difference) / sd if sd > 0 else NAN
    if not effect > 0:
        return NAN
    z = special.ndtri((1 + level) / 2) + special.ndtri(power)
    normal = (z / effect) ** 2
    if normal > 10_000:  # Student's t and the normal distribution then agree to a seed in ten thousand
        return float(math.ceil(normal))
    n = max(2, math.ceil(normal))  # Student's t needs a few more than the normal distribution
    while _power(effect * math.sqrt(n), n, level) < power - 1e-9:  # what n seeds can just show needs n
        n += 1
    return float(n)


@lru_cache(maxsize=1024)
def seeds_for_half(n: int, power: float = POWER, level: float = LEVEL) -> float:
    """Pairs that show half of what n pairs can show, both with this power; NaN for n < 2. No sd enters: it cancels."""
    return seeds_needed(detectable(1.0, n, power, level) / 2, 1.0, power, level)


def _power(noncentrality: float, n: int, level: float) -> float:
    """Of the two-sided t test of n pairs."""
    edge = stats.t.ppf((1 + level) / 2, n - 1)
    # scipy gives NaN for some tails too thin for a float.
    upper, lower = np.nan_to_num(special.nctdtr(n - 1, min(noncentrality, _FAR), [edge, -edge]))
    return float(1 - upper + lower)


@lru_cache(maxsize=1024)
def _noncentrality(n: int, power: float, level: float) -> float:
    return float(optimize.brentq(lambda shift: _power(shift, n, level) - power, 0.0, 1000.0, xtol=1e-10))
