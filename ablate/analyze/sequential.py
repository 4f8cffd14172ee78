"""A test and an interval that stay valid however often one looks, for studies that add seeds until they know enough.

The paired t test with a normal prior on the standardised effect, of variance g: the likelihood ratio of the t statistic
is a test martingale, so that it reaches 1/α at any of the looks with a probability of at most α (Ville's inequality).
Like Student's t it assumes normal differences. Sources: Lai, "On confidence sequences", Annals of Statistics 4 (1976);
Wang & Ramdas, "Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance", arXiv
2310.03722.

Pure functions of arrays. Shapes: [..., n] has seeds in its last axis; n is the number of seeds at this look.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ablate.analyze.paired import LEVEL, NAN, NO_SPREAD, Array

G = 10.0  # variance of the prior: wide, for a study that stops early sees large effects


def e_value(delta: ArrayLike, g: float = G) -> Array:
    """The evidence against a mean of 0: its mean is at most 1 where that is true, at any stopping time.

    Args:
        delta: paired differences, shape [..., n].

    Returns:
        Shape [...]; NaN for n < 2, and where the differences do not vary.
    """
    return np.exp(_log_e(np.asarray(delta, float), g))


def always_valid_p(delta: ArrayLike, g: float = G) -> Array:
    """p = min(1, 1/e), two-sided: below α at any of the looks with a probability of at most α.

    Args:
        delta: paired differences, shape [..., n].

    Returns:
        Shape [...]; NaN as in `e_value`.
    """
    return np.exp(np.minimum(0.0, -_log_e(np.asarray(delta, float), g)))


def always_valid_p_of(t: float, n: int, g: float = G) -> float:
    """`always_valid_p` of n differences whose paired statistic is t."""
    return math.exp(min(0.0, -_log_e_of(t * t / (n - 1), n, g)))


def confidence_sequence(delta: ArrayLike, level: float = LEVEL, g: float = G) -> tuple[Array, Array]:
    """An interval of the mean that holds it at all looks at once, with the probability `level`.

    Args:
        delta: paired differences, shape [..., n].

    Returns:
        (low, high), shape [...]. It excludes 0 exactly where `always_valid_p` is below 1 − level. Infinite where n
        differences can exclude nothing; NaN as in `e_value`.
    """
    values = np.asarray(delta, float)
    n = values.shape[-1]
    if n < 2:
        return (np.full(values.shape[:-1], NAN),) * 2
    mean, half = values.mean(-1), critical_t(n, 1 - level, g) * _error(values)
    return mean - half, mean + half


def critical_t(n: int, alpha: float, g: float = G) -> float:
    """The |t| of n ≥ 2 differences at which the e-value is 1/α; infinite where no t reaches it."""
    log_prior = math.log1p(n * g)
    log_c = (log_prior - 2 * math.log(alpha)) / n
    if log_c >= log_prior:
        return math.inf
    return math.sqrt((n - 1) * math.expm1(log_c) / -math.expm1(log_c - log_prior))


def _log_e(delta: Array, g: float) -> Array:
    n = delta.shape[-1]
    if n < 2:
        return np.full(delta.shape[:-1], NAN)
    return np.asarray(_log_e_of((delta.mean(-1) / _error(delta)) ** 2 / (n - 1), n, g))


def _log_e_of(odds: Any, n: int, g: float) -> Any:
    """`odds`: t²/(n − 1)."""
    return (n * (np.log1p(odds) - np.log1p(odds / (1 + n * g))) - math.log1p(n * g)) / 2


def _error(delta: Array) -> Array:
    """Standard error of the mean; NaN where the differences do not vary."""
    sd = delta.std(-1, ddof=1)
    return np.asarray(np.where(sd < NO_SPREAD, NAN, sd) / math.sqrt(delta.shape[-1]))
