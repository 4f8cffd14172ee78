"""Where the noise of a seed comes from: the variance of scores, source by source.

A task may have knobs that are the seed of one source of noise each (`noise` in its record). Where a study varies these
and nothing else, a score is a mean, a random effect of every source, and a residual: the interactions of sources, and
what no seed decides. Their variances are estimated by the method of moments from the mean squares of a main-effects fit
(Searle, Casella & McCulloch 1992, Variance Components, ch. 5; Bouthillier et al. 2021 on why all sources count).

In a Latin square, and in a crossing of two sources, every trial has an interaction of its own, which belongs to the
residual. In a full crossing of three or more, trials share the interactions of two: there these are taken to be 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, stats

from ablate.analyze.differs import Task
from ablate.analyze.paired import LEVEL, NAN, NO_SPREAD, Array
from ablate.analyze.table import factors_of, finished, numbers, scores
from ablate.metric import Metric

RESIDUAL, TOTAL = "residual", "total"
_COLUMNS = ["source", "kind", "seeds", "df", "variance", "sd", "low", "high", "share"]
_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
# Sums of squares are chi² where all seeds of a source have as many trials; a lost trial in a square is near enough.
_EVEN = 2.0


@dataclass(frozen=True)
class Sources:
    """How much of the noise is whose.

    Attributes:
        asked: whether the study varies sources of noise and nothing else; elsewhere nothing is computed.
        table: one row a source, then the residual, then all together: `source` (what it is called), `kind` ("source",
            "residual", "total"), `seeds` (that it drew from), `df`, `variance` of scores (unbiased; may be below 0),
            `sd` (its root; 0 where it is below 0), `low`, `high` (95 % interval of the standard deviation), `share` of
            the sum of the variances, with 0 for one below. NaN where there is no such thing. Empty where `reason`
            says why.
        trials: with a result; missing: without one.
        idle: sources that were varied in vain: the knob that they need is 0.
        reason: why the table is empty: "no result", "not crossed" (the sources cannot be told apart, or nothing is
            left for the residual), "no spread"; "" where it is not.
    """

    asked: bool
    table: pd.DataFrame
    trials: int = 0
    missing: int = 0
    idle: Sequence[str] = ()
    reason: str = ""


@dataclass(frozen=True)
class MeanSquares:
    """Of a main-effects fit: E(source[s]) = σ² + times[s]·σ_s², and E(residual) = σ².

    Attributes:
        source: shape [..., sources]; df, times: shape [sources].
        residual: shape [...].
    """

    source: Array
    df: Array
    times: Array
    residual: Array
    residual_df: int

    @property
    def variances(self) -> Array:
        """Unbiased estimates of σ_s², shape [..., sources]."""
        return np.asarray((self.source - self.residual[..., None]) / self.times)

    @property
    def total(self) -> tuple[Array, Array, Array]:
        """Estimate and interval of the sum of all variances, shape [...]."""
        weights = np.append(1 / self.times, 1 - (1 / self.times).sum())
        squares = np.concatenate([self.source, self.residual[..., None]], axis=-1)
        return ((weights * squares).sum(-1), *interval_of_sum(weights, squares, np.append(self.df, self.residual_df)))


def varies_noise_alone(task: Task, trials: pd.DataFrame) -> bool:
    """Whether every factor of a study is the seed of a source of noise: its levels then mean nothing by themselves."""
    factors = factors_of(trials).columns
    return len(factors) > 0 and all(factor in task.get("noise", {}) for factor in factors)


def sources_of_noise(metric: Metric, task: Task, trials: pd.DataFrame) -> Sources:
    """The variance of each source of noise that a study varies.

    Args:
        task: as a launch records it.
        trials: one row a trial, as `read_study` gives it. A source draws from its own seed, or from the trial's where
            that is null. Sources whose seeds always change together are one; trials of the same seeds are averaged.
    """
    nothing = pd.DataFrame(columns=_COLUMNS)
    if not varies_noise_alone(task, trials):
        return Sources(False, nothing)
    done = finished(metric, trials)
    codes, idle = _codes_by_source(task, done)
    counted = Sources(True, nothing, len(done), len(trials) - len(done), idle)
    if done.empty:
        return replace(counted, reason="no result")
    known = pd.Series(scores(metric, done[f"test_{metric.recorded}"]))
    if float(known.max() - known.min()) < NO_SPREAD:
        return replace(counted, reason="no spread")
    means = known.groupby(list(codes.values()), sort=False).mean() if codes else known
    y = np.asarray(means, dtype=np.float64)
    found = mean_squares(y, means.index.to_frame().to_numpy(int)) if codes else None
    if found is None:
        return replace(counted, reason="not crossed")
    return replace(counted, table=_table([*codes], found))


def _codes_by_source(task: Task, done: pd.DataFrame) -> tuple[dict[str, NDArray[np.intp]], list[str]]:
    """Source ↦ which of its seeds a trial drew from, counted from 0, shape [trials]; and the sources that are idle."""
    together: dict[tuple[int, ...], list[str]] = {}
    idle = []
    for name, noise in task["noise"].items():
        if noise["needs"] and _is_off(done, f"knob.{noise['needs']}"):
            idle += [noise["source"]] if f"factor.{name}" in done else []
            continue
        own = numbers(done[f"knob.{name}"]) if f"knob.{name}" in done else np.full(len(done), NAN)
        codes = pd.factorize(np.where(np.isnan(own), done["seed"].to_numpy(float), own))[0]
        if codes.size and codes.max() > 0:
            together.setdefault(tuple(codes.tolist()), []).append(noise["source"])
    return {" and ".join(sources): np.array(codes) for codes, sources in together.items()}, idle


def _is_off(done: pd.DataFrame, column: str) -> bool:
    return column in done and len(done) > 0 and all(value is None or value == 0 for value in done[column])


def _table(sources: Sequence[str], found: MeanSquares) -> pd.DataFrame:
    variances = found.variances
    low, high = interval_of_difference(found.source, found.df, found.residual, found.residual_df)
    rows = [
        (source, "source", df + 1, df, variance, low / times, high / times)
        for source, df, times, variance, low, high in zip(
            sources, found.df.tolist(), found.times, variances, low, high, strict=True
        )
    ]
    residual, its_df = found.residual, found.residual_df
    rows.append((RESIDUAL, "residual", NAN, its_df, residual, *interval_of_square(residual, its_df)))
    rows.append((TOTAL, "total", NAN, NAN, *found.total))
    numbers_of = ["seeds", "df", "variance", "low", "high"]
    table = pd.DataFrame(rows, columns=["source", "kind", *numbers_of]).astype(dict.fromkeys(numbers_of, float))
    positive = table["variance"].clip(lower=0)
    shares = positive / positive[table["kind"] != "total"].sum()
    ends = {name: np.sqrt(table[name].clip(lower=0)) for name in ("low", "high")}
    return table.assign(sd=np.sqrt(positive), share=shares.where(table["kind"] != "total", 1.0), **ends)[_COLUMNS]


def mean_squares(y: Array, codes: NDArray[np.intp]) -> MeanSquares | None:
    """Mean squares of a least-squares fit of main effects, each beside all others.

    Args:
        y: scores, shape [..., n].
        codes: which level of each source a score has, shape [n, sources].

    Returns:
        None where a source cannot be told from the others, where its levels are too uneven for its sum of squares to be
        near chi², and where no degree of freedom is left for the residual.
    """
    columns = [np.equal.outer(own, np.unique(own)).astype(float) for own in codes.T]
    constant = np.ones((len(codes), 1))
    squares, degrees, times = [], [], []
    for place, own in enumerate(columns):
        others = linalg.orth(np.hstack([constant, *columns[:place], *columns[place + 1 :]]))
        directions, lengths, _ = linalg.svd(own - others @ (others.T @ own), full_matrices=False)
        kept = lengths > 1e-9
        if kept.sum() < own.shape[1] - 1 or lengths[kept].max() ** 2 > _EVEN * lengths[kept].min() ** 2:
            return None
        squares.append(((y @ directions[:, kept]) ** 2).mean(-1))
        degrees.append(kept.sum())
        times.append((lengths[kept] ** 2).mean())
    fitted = linalg.orth(np.hstack([constant, *columns]))
    residual_df = len(codes) - fitted.shape[1]
    if residual_df < 1:
        return None
    off = y - (y @ fitted) @ fitted.T
    residual = (off**2).sum(-1) / residual_df
    return MeanSquares(
        np.stack(squares, axis=-1), np.array(degrees), np.array(times), np.asarray(residual), residual_df
    )


def interval_of_square(square: ArrayLike, df: ArrayLike) -> tuple[Array, Array]:
    """The 95 % chi² interval of the expectation of a mean square, shape [...]."""
    below, above = _relative(df)
    return np.asarray(square) * (1 - below), np.asarray(square) * (1 + above)


def interval_of_difference(first: Array, df: Array, second: Array, second_df: int) -> tuple[Array, Array]:
    """The 95 % interval of the expectation of first − second, two independent mean squares.

    Modified large-sample (Ting et al. 1990; Burdick & Graybill 1992, Confidence Intervals on Variance Components,
    section 3.3.2): it excludes 0 exactly where the F test does.

    Args:
        first: shape [..., sources], with df of shape [sources]; second: shape [...].
    """
    other = second[..., None]
    (below, above), (other_below, other_above) = _relative(df), _relative(second_df)
    f_low, f_high = (stats.f.ppf(tail, df, second_df) for tail in _TAILS)
    to_low = ((f_high - 1) ** 2 - (below * f_high) ** 2 - other_above**2) / f_high
    to_high = ((1 - f_low) ** 2 - (above * f_low) ** 2 - other_below**2) / f_low
    low = (below * first) ** 2 + (other_above * other) ** 2 + to_low * first * other
    high = (above * first) ** 2 + (other_below * other) ** 2 + to_high * first * other
    difference = first - other
    return difference - np.sqrt(np.maximum(low, 0)), difference + np.sqrt(np.maximum(high, 0))


def interval_of_sum(weights: Array, squares: Array, df: Array) -> tuple[Array, Array]:
    """The 95 % interval of the expectation of a weighted sum of independent mean squares (Graybill & Wang 1980).

    Args:
        weights, df: shape [terms]; squares: shape [..., terms].

    Returns:
        (low, high), shape [...]; NaN where a weight is below 0, for which the method is not made.
    """
    middle = (weights * squares).sum(-1)
    if (weights < -1e-9).any():
        return np.full_like(middle, NAN), np.full_like(middle, NAN)
    off = [np.sqrt(((part * weights * squares) ** 2).sum(-1)) for part in _relative(df)]
    return middle - off[0], middle + off[1]


def _relative(df: ArrayLike) -> tuple[Array, Array]:
    """How far the chi² interval of a mean square reaches below and above it, as shares of it."""
    n = np.asarray(df, float)
    low, high = (n / stats.chi2.ppf(tail, n) for tail in reversed(_TAILS))
    return 1 - low, high - 1
