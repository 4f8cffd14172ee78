"""What the seeds of a study, and its test data, say about each contrast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from ablate.analyze.contrast import Contrast, average
from ablate.analyze.paired import LEVEL, NAN, NO_SPREAD, Array, Difference, paired, unpaired
from ablate.analyze.power import detectable
from ablate.analyze.sequential import always_valid_p_of, critical_t
from ablate.analyze.table import cells_of, score_table, without_finite_score
from ablate.analyze.text import text_and_seeds
from ablate.metric import Metric

_FEW = 3  # seeds, below which a correlation is 1 or −1


@dataclass(frozen=True)
class Diverged:
    """How many of the trials asked for diverged on either side of a contrast: `with_` has the positive weights."""

    with_: int = 0
    of_with: int = 0
    without: int = 0
    of_without: int = 0

    @property
    def any(self) -> bool:
        """Whether any did."""
        return self.with_ + self.without > 0

    @property
    def more(self) -> int:
        """Which side diverged more often: 1, with; −1, without; 0, neither."""
        with_, without = (k / n if n else 0.0 for k, n in ((self.with_, self.of_with), (self.without, self.of_without)))
        return (with_ > without) - (with_ < without)


@dataclass(frozen=True)
class Evidence:
    """What contrasts are estimated from.

    Attributes:
        metric: whose scores are compared.
        trials: one row a trial, as `read_study` gives it.
        margin: differences of scores within ± it are as good as none; None: nobody said so.
        blocks: one row a block of test examples, as `read_study` gives it; None: not measured by example.
        looked: seeds were added until they were enough: p and intervals are those that hold at every look.
    """

    metric: Metric
    trials: pd.DataFrame
    margin: float | None = None
    blocks: pd.DataFrame | None = None
    looked: bool = False

    def of(self, trials: pd.DataFrame) -> Evidence:
        """The same of some of its trials; where these are all, with what is known of them."""
        return self if len(trials) == len(self.trials) else replace(self, trials=trials)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Shape [seeds, cells], as `score_table` gives it."""
        return score_table(self.metric, self.trials)

    @cached_property
    def cells(self) -> list[str]:
        """In the order of the study."""
        return cells_of(self.trials)

    @cached_property
    def ends(self) -> pd.DataFrame:
        """By cell: `asked` trials, and how many of them `diverged` or have a test score that is no number."""
        odd = self.trials.index.isin(without_finite_score(self.metric, self.trials).index)
        diverged = ((self.trials["status"] == "DIVERGED") | odd).groupby(self.trials["cell"], sort=False)
        return pd.DataFrame({"asked": diverged.size(), "diverged": diverged.sum()})

    @cached_property
    def _places(self) -> dict[str, int]:
        return {str(cell): place for place, cell in enumerate(self.scores.columns)}

    @cached_property
    def _numbers(self) -> Array:
        return self.scores.to_numpy(float)

    def of_cells(self, cells: Sequence[str]) -> Array:
        """Scores of some cells, shape [seeds, these]: NaN where there is no result."""
        return np.asarray(self._numbers[:, [self._places[cell] for cell in cells]], float)

    @cached_property
    def _by_block(self) -> dict[str, tuple[pd.DataFrame, Array]]:
        """Cell → totals of scores, shape [seeds, blocks], and examples of each block; without cells whose seeds differ
        in their blocks."""
        if self.blocks is None:
            return {}
        found = {}
        for cell, part in self.blocks.sort_values(["seed", "block"]).groupby("cell", sort=False):
            seeds = part["seed"].unique()
            if part.groupby("seed").size().nunique() == 1:
                sizes, totals = (part[name].to_numpy(float).reshape(len(seeds), -1) for name in ("examples", "total"))
                if (sizes == sizes[0]).all():
                    found[str(cell)] = pd.DataFrame(self.metric.sign * totals, index=seeds), sizes[0]
        return found

    def by_block(self, contrast: Contrast) -> tuple[Array, Array] | None:
        """The contrast summed over each block's examples, [seeds, blocks], and the blocks' sizes, [blocks].

        Over the seeds that all of its cells have a result of; None where a cell was not measured by example, or in
        other blocks than another.
        """
        if not contrast.weights or any(cell not in self._by_block for cell in contrast.cells):
            return None
        totals, sizes = zip(*(self._by_block[cell] for cell in contrast.cells), strict=True)
        if any(not np.array_equal(size, sizes[0]) for size in sizes):
            return None
        seeds = self.scores.index[np.isfinite(self.deltas(contrast))]
        parts = (its.reindex(seeds).to_numpy(float) for its in totals)
        total = np.sum([weight * part for part, weight in zip(parts, _weights(contrast), strict=True)], axis=0)
        return (total, sizes[0]) if np.isfinite(total).all() else None

    def deltas(self, contrast: Contrast) -> Array:
        """Shape [seeds]: NaN where a cell has no result."""
        return np.asarray(self.of_cells(contrast.cells) @ _weights(contrast), float)

    @cached_property
    def _ends(self) -> dict[str, tuple[int, int]]:
        columns = (self.ends[name].tolist() for name in ("diverged", "asked"))
        return dict(zip(map(str, self.ends.index), zip(*columns, strict=True), strict=True))

    def diverged(self, contrast: Contrast) -> Diverged:
        """How many trials diverged on either side."""
        sides = [[self._ends[cell] for cell in contrast.side(sign)] for sign in (1, -1)]
        return Diverged(*(sum(counts) for side in sides for counts in (zip(*side, strict=True) if side else ((), ()))))


# What `estimate` knows of every contrast.
ESTIMATED = (
    "n", "effect", "low", "high", "p", "p_sign_flip", "p_equivalent", "difference_kind", "sd", "wins", "losses",
    "wins_low", "wins_high", "correlation", "width_ratio", "detectable", "text_low", "text_high", "text_p", "diverged",
    "lost", "deltas", "delta_seeds", "contrast",
)  # fmt: skip


def estimate(contrast: Contrast, evidence: Evidence) -> dict[str, Any]:
    """All that is known of a contrast: `ESTIMATED`.

    `difference_kind`: "paired", over the seeds that all of its cells have; "unpaired", Welch's t, where two cells share
    fewer than two seeds and each has two; "" where there is nothing to compare. `n`: pairs, or the fewer of the two
    cells' seeds. `effect`, `low`, `high`: mean and 95 % interval. `p`: two-sided, of no difference. `p_equivalent`: of
    a difference of at least the margin (two one-sided tests; Schuirmann 1987); NaN without a margin. `wins`, `losses`:
    pairs below and above zero; `wins_low`, `wins_high`: 95 % interval of the chance that a new pair, if not tied, is a
    win (Clopper & Pearson 1934). `correlation`: mean correlation over seeds of the cells' scores; `width_ratio`: of
    the paired interval to the one that the same scores would have with seeds of their own (Welch), below 1 where
    pairing gained. `detectable`: the smallest difference that so many pairs show with a power of 80 %. `text_low`,
    `text_high`, `text_p`: as `low`, `high` and `p`, for other test data of the kind as well as for other seeds
    (`text_and_seeds`); NaN where it was not measured by example. `diverged`: a `Diverged`; `lost`:
    the same, with the contexts that had to be left out of an average. `deltas`: one number a pair, `delta_seeds`: whose
    it is.

    Where seeds were added until they were enough, `low`, `high`, `p` and `p_equivalent` of pairs are those that hold
    however often one looks (`ablate.analyze.sequential`); what has no pairs is then undecided, and test data are not
    taken into account. `width_ratio` and `detectable` are those of a fixed number of seeds in any case.
    """
    scores, weights = evidence.of_cells(contrast.cells), _weights(contrast)
    has_pair = np.flatnonzero(~np.isnan(scores).any(axis=1))
    whole = scores[has_pair]
    found, kind = paired(whole @ weights) if contrast.weights else Difference(0), "paired"
    if found.n < 2 and len(contrast.cells) == 2:
        mine, other = (column[~np.isnan(column)] for column in scores.T[np.argsort(-weights)])
        if min(mine.size, other.size) > 1:
            found, kind = unpaired(mine, other), "unpaired"
    known = asdict(found) | {"p_equivalent": p_equivalent(found, evidence.margin)}
    if evidence.looked and found.n > 1:
        known |= _at_any_look(found, evidence.margin, kind)
    return {
        **{name: known[name] for name in ESTIMATED if name in known},
        "effect": found.mean,
        "difference_kind": kind if found.n else "",
        "correlation": _correlation(whole) if kind == "paired" else NAN,
        "width_ratio": _width_ratio(whole, weights, found) if kind == "paired" else NAN,
        "detectable": detectable(found.sd, found.n) if kind == "paired" else NAN,
        **_over_text(contrast, evidence, kind == "paired" and found.n > 1 and not evidence.looked),
        "diverged": evidence.diverged(contrast),
        "lost": evidence.diverged(contrast),
        "delta_seeds": tuple(evidence.scores.index[has_pair].tolist()) if kind == "paired" else (),
        "contrast": contrast,
    }


def _at_any_look(found: Difference, margin: float | None, kind: str) -> dict[str, float]:
    if kind != "paired" or not found.error > 0:  # no pairs, or a spread that was not seen, decide nothing
        return {"low": NAN, "high": NAN, "p": 1.0, "p_equivalent": NAN}
    half = critical_t(found.n, 1 - LEVEL) * found.error
    inside = -1.0 if margin is None else margin - abs(found.mean)
    # The level at which the interval that holds at every look would just reach the margin.
    equivalent = always_valid_p_of(inside / found.error, found.n) if inside > 0 else 1.0
    return {
        "low": found.mean - half,
        "high": found.mean + half,
        "p": always_valid_p_of(found.mean / found.error, found.n),
        "p_equivalent": NAN if margin is None else equivalent,
    }


def _over_text(contrast: Contrast, evidence: Evidence, has_pairs: bool) -> dict[str, float]:
    blocks = evidence.by_block(contrast) if has_pairs else None
    if blocks is None:
        return {"text_low": NAN, "text_high": NAN, "text_p": NAN}
    found = text_and_seeds(*blocks)
    return {"text_low": float(found.low), "text_high": float(found.high), "text_p": float(found.p)}


def averaged(contexts: Mapping[str, Contrast], evidence: Evidence) -> dict[str, Any]:
    """The mean of contrasts over the contexts that have results, as `estimate` gives it.

    Returns:
        With `contexts` (how many are averaged), `where` (these, by name) and `dropped` (differences that were asked for
        and left out, because a trial has no result or so that every seed averages over the same contexts).
    """
    deltas = np.stack([evidence.deltas(contrast) for contrast in contexts.values()], axis=-1)
    seeds, chosen = complete(np.isfinite(deltas))
    used = [name for name, is_used in zip(contexts, chosen, strict=True) if is_used]
    found = estimate(average([contexts[name] for name in used or contexts]), evidence)
    used = used or ([*contexts] if found["n"] else [])  # two cells that share no seed have a difference too
    everything = evidence.diverged(average([*contexts.values()]))
    dropped = int(deltas.size - seeds.sum() * chosen.sum())
    return {**found, "lost": everything, "contexts": len(used), "where": tuple(used), "dropped": dropped}


def complete(known: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The seeds and contexts to average, so that every seed averages over the same contexts.

    Contexts are taken from the most to the least complete; among these choices, first those that leave two seeds,
    then the one that uses the most results. The choice looks at what is missing, never at a value.

    Args:
        known: shape [seeds, contexts].

    Returns:
        Masks of shape [seeds] and [contexts].
    """
    order = np.argsort(-known.sum(axis=0), kind="stable")
    best, seeds, contexts = (0, 0), np.zeros(known.shape[0], bool), np.zeros(known.shape[1], bool)
    for size in range(1, order.size + 1):
        with_all = np.asarray(known[:, order[:size]].all(axis=1), dtype=bool)
        score = (min(int(with_all.sum()), 2), int(with_all.sum()) * size)
        if score >= best and score[0] > 0:
            best, seeds, contexts = score, with_all, np.isin(np.arange(order.size), order[:size])
    return seeds, contexts


def p_equivalent(found: Difference, margin: float | None) -> float:
    """P of the two one-sided tests that a difference lies within ±margin (Schuirmann 1987; Lakens 2017).

    NaN without a margin, and where the spread of the difference was not seen.
    """
    if margin is None or not found.error > 0:
        return NAN
    above = stats.t.sf((found.mean + margin) / found.error, found.df)
    below = stats.t.cdf((found.mean - margin) / found.error, found.df)
    return float(max(above, below))


def _weights(contrast: Contrast) -> Array:
    return np.array([weight for _, weight in contrast.weights], float)


def _correlation(scores: Array) -> float:
    """Mean of the correlations between the columns of shape [seeds, cells]; NaN where one of them does not vary."""
    seeds, cells = scores.shape
    if seeds < _FEW or cells < 2 or (scores.std(axis=0) < NO_SPREAD).any():
        return NAN
    each = np.asarray(np.corrcoef(scores.T), float)
    return float(each[np.triu_indices(cells, 1)].mean())


def _width_ratio(scores: Array, weights: Array, found: Difference) -> float:
    if found.n < 2 or not found.error > 0:
        return NAN
    parts = weights**2 * scores.var(axis=0, ddof=1) / found.n
    df = parts.sum() ** 2 / (parts**2).sum() * (found.n - 1)  # Welch–Satterthwaite
    alone = stats.t.ppf((1 + LEVEL) / 2, df) * np.sqrt(parts.sum())
    return float((found.high - found.low) / 2 / alone)
