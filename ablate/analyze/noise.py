"""How much seeds alone move a result, what pairing gains, and what so many seeds can show."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from ablate.analyze import paired as pairs
from ablate.analyze.evidence import Evidence
from ablate.analyze.paired import LEVEL, NAN
from ablate.analyze.power import detectable, seeds_for_half


@dataclass(frozen=True)
class Noise:
    """NaN where the seeds do not allow it.

    Attributes:
        sd: standard deviation of scores over the seeds of a cell, pooled over cells.
        sd_low, sd_high: its 95 % chi² interval.
        df: degrees of freedom of that interval, of which cells that share their seeds have fewer than the sum of
            n − 1 over cells: that sum / (1 + (cells − 1)·r²) (Satterthwaite 1946), where r is the upper end of a 75 %
            interval of `correlation`, so that a poor estimate of it does not promise too much.
        correlation: of results of the same seed in two cells, over the seeds that all have: the share of the variance
            of a difference that pairing removed. 0: pairing gained nothing.
        paired_sd: median over cells of the standard deviation of the differences to the baseline.
        n: the fewest pairs of a cell with the baseline that has any.
        smallest_p: the smallest p that a sign-flip test of n pairs can give.
        detectable: the smallest difference of scores that n pairs show with a power of 80 %, at paired_sd, where it is
            the only one that is tested; in_family: a typical comparison of the primary family, which is one of `tests`.
        seeds_for_half: pairs that show half of it.
        reason: why some of these are NaN: "no result" (of any trial), "one seed" (no cell has two with a result), "no
            spread" (every seed of a cell gave the same), "no pairs" (no cell shares two seeds with the baseline); "".
    """

    n: int
    sd: float = NAN
    sd_low: float = NAN
    sd_high: float = NAN
    df: float = NAN
    correlation: float = NAN
    paired_sd: float = NAN
    smallest_p: float = NAN
    detectable: float = NAN
    in_family: float = NAN
    tests: int = 1
    seeds_for_half: float = NAN
    reason: str = ""


def noise(evidence: Evidence, baseline: str | None = None) -> Noise:
    """What the seeds of a study say about chance. `baseline`: label of a cell; None: the first."""
    scores = evidence.scores
    first = evidence.cells[0] if baseline is None else baseline
    deltas = scores.drop(columns=first).sub(scores[first], axis=0)
    shared = deltas.count()
    n = int(shared[shared > 0].min()) if (shared > 0).any() else 0
    several = scores.loc[:, scores.count() > 1]
    if several.empty:
        return Noise(n, smallest_p=pairs.smallest_p(n), reason="no result" if scores.empty else "one seed")
    free = several.count() - 1
    sd = float(np.sqrt((several.var(ddof=1) * free).sum() / free.sum()))
    if sd < pairs.NO_SPREAD:
        return Noise(n, 0.0, smallest_p=pairs.smallest_p(n), reason="no spread")
    correlation, at_most = _correlation(several)
    df = float(free.sum() / (1 + (several.shape[1] - 1) * at_most**2))
    low, high = sd * np.sqrt(df / stats.chi2.ppf([(1 + LEVEL) / 2, (1 - LEVEL) / 2], df))
    known = Noise(n, sd, float(low), float(high), df, correlation, smallest_p=pairs.smallest_p(n))
    spreads = deltas.loc[:, shared > 1].std(ddof=1)
    if spreads.empty:
        return replace(known, reason="no pairs")
    paired_sd = float(spreads.median())
    return replace(
        known,
        paired_sd=paired_sd,
        detectable=detectable(paired_sd, n),
        seeds_for_half=seeds_for_half(n),
    )


def _correlation(scores: pd.DataFrame) -> tuple[float, float]:
    """Correlation within seeds, from the mean squares between and within seeds, and the upper end of its 75 % interval.

    (NaN, 1) where no two seeds are in all cells, or there is one cell. McGraw & Wong 1996, ICC(C,1).
    """
    together = scores.dropna().to_numpy(float)
    n, cells = together.shape
    if n < 2 or cells < 2:
        return NAN, 1.0
    of_seed, of_cell = together.mean(axis=1, keepdims=True), together.mean(axis=0, keepdims=True)
    between = cells * float(of_seed.var(ddof=1))
    within = float(((together - of_seed - of_cell + together.mean()) ** 2).sum()) / ((n - 1) * (cells - 1))
    if within < pairs.NO_SPREAD**2:
        return 1.0, 1.0
    f = between / within
    upper = max(1.0, f / float(stats.f.ppf(0.25, n - 1, (n - 1) * (cells - 1))))
    return (f - 1) / (f - 1 + cells), (upper - 1) / (upper - 1 + cells)
