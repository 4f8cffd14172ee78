"""What each factor does: its effect, how factors act together, and how much of the variance is whose.

Everything is computed per seed first and tested over seeds after: for each seed, the paired differences are averaged
over the combinations of the other factors, which leaves one number a seed, independent of each other; the t interval
over these is exact whatever the cells' variances and correlations (randomised blocks; Montgomery, Design and Analysis
of Experiments, ch. 4). Effects are differences of scores: below 0 a level helps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analyze.paired import Array, paired
from ablate.analyze.table import factors_of, judge, score_table
from ablate.metric import Metric

Levels = tuple[str, ...]
_TESTED = ["n", "contexts", "effect", "low", "high", "p", "deltas"]
_JUDGED = ["p_holm", "verdict", "dropped"]
_EFFECT = ["factor", "reference", "level", "at", *_TESTED, *_JUDGED]
_INTERACTION = ["factor", "reference", "level", "other", "other_reference", "other_level", *_TESTED, *_JUDGED]


def factor_effects(metric: Metric, trials: pd.DataFrame) -> pd.DataFrame:
    """The effect of every level against its factor's reference, the level of the study's first cell.

    Args:
        metric: whose scores are compared.
        trials: one row a trial, as `read_study` gives it.

    Returns:
        One row a factor, level and context: `factor`, `reference`, `level`; `at`: "" for the marginal effect, the
        average over all combinations of the other factors that have both levels, or one such combination (only where
        there are several); `n` (seeds), `contexts` (combinations averaged), `effect`, `low`, `high` (95 % t interval
        over seeds), `p`, `deltas` (one a seed), `p_holm` (corrected over the marginal rows, and over the
        others), `verdict` ("helps",
        "hurts", "not distinguishable", "one seed", "no result") and `dropped`: paired differences that the study
        asked for and that had to be left out, because a trial has no result or so that every seed averages over the
        same combinations. Cells that share all levels count as one: the first.
    """
    scores, levels = score_table(metric, trials), factors_of(trials)
    cells = _cell_by_levels(levels)
    rows = []
    for place, factor in enumerate(levels.columns):
        reference, *others = dict.fromkeys(levels[factor])
        for level in others:
            pairs = {
                _context(levels, combination, {place}): (cells[_with(combination, place, level)], cell)
                for combination, cell in cells.items()
                if combination[place] == reference and _with(combination, place, level) in cells
            }
            deltas = _stack([scores[a] - scores[b] for a, b in pairs.values()], scores)
            named = {"factor": factor, "reference": reference, "level": level}
            if pairs:
                rows.append({**named, "at": "", **_averaged(deltas)})
            if len(pairs) > 1:
                rows += [{**named, "at": at, **_averaged(deltas[:, [i]])} for i, at in enumerate(pairs)]
    table = pd.DataFrame(rows, columns=[c for c in _EFFECT if c not in ("p_holm", "verdict")])
    judged = judge(table.assign(simple=table["at"] != ""), "helps", "hurts", family="simple")
    return judged[_EFFECT]


def interactions(metric: Metric, trials: pd.DataFrame) -> pd.DataFrame:
    """For every two factors, how the effect of one changes with the other: a difference of differences.

    Returns:
        One row for two factors and a level of each against its reference: `factor`, `reference`, `level`, `other`,
        `other_reference`, `other_level`, and the columns of `factor_effects` from `n` on. `effect` is the
        difference of two effects: below 0 the two together do better than their separate effects added up.
        `verdict`: "better together", "worse together", or as there; `p_holm` is corrected over all rows. Only where
        the study has the four cells, averaged over the combinations of all other factors that have them.
    """
    scores, levels = score_table(metric, trials), factors_of(trials)
    cells = _cell_by_levels(levels)
    rows = []
    for i, j in combinations(range(levels.shape[1]), 2):
        (reference, *others), (second, *seconds) = (dict.fromkeys(levels.iloc[:, place]) for place in (i, j))
        for level, second_level in ((a, b) for a in others for b in seconds):
            fours = list(_fours(cells, i, j, (reference, level), (second, second_level)))
            if fours:
                deltas = _stack([(scores[a] - scores[b]) - (scores[c] - scores[d]) for a, b, c, d in fours], scores)
                rows.append(
                    {
                        "factor": levels.columns[i],
                        "reference": reference,
                        "level": level,
                        "other": levels.columns[j],
                        "other_reference": second,
                        "other_level": second_level,
                        **_averaged(deltas),
                    }
                )
    table = pd.DataFrame(rows, columns=[c for c in _INTERACTION if c not in ("p_holm", "verdict")])
    return judge(table, "better together", "worse together")[_INTERACTION]


def _fours(
    cells: dict[Levels, str], i: int, j: int, mine: tuple[str, str], other: tuple[str, str]
) -> Iterator[tuple[str, str, str, str]]:
    """(both changed, the other changed, the one changed, neither) for every context that has all four."""
    for combination, cell in cells.items():
        if (combination[i], combination[j]) == (mine[0], other[0]):
            one, two = _with(combination, i, mine[1]), _with(combination, j, other[1])
            both = _with(one, j, other[1])
            if one in cells and two in cells and both in cells:
                yield cells[both], cells[two], cells[one], cell


def _cell_by_levels(levels: pd.DataFrame) -> dict[Levels, str]:
    """Levels ↦ the first cell that has them."""
    cells: dict[Levels, str] = {}
    for cell, combination in zip(levels.index, levels.itertuples(index=False, name=None), strict=True):
        cells.setdefault(combination, str(cell))
    return cells


def _with(combination: Levels, place: int, level: str) -> Levels:
    return (*combination[:place], level, *combination[place + 1 :])


def _context(levels: pd.DataFrame, combination: Levels, without: set[int]) -> str:
    return " ".join(f"{levels.columns[i]}={level}" for i, level in enumerate(combination) if i not in without)


def _stack(deltas: list[pd.Series[float]], scores: pd.DataFrame) -> Array:
    """Shape [seeds, contexts]."""
    return np.array([delta.to_numpy(float) for delta in deltas]).reshape(len(deltas), len(scores)).T


def _averaged(deltas: Array) -> dict[str, object]:
    """Average over contexts, then what the seeds say. `deltas`: shape [seeds, contexts], NaN where a result misses."""
    seeds, contexts = complete(np.isfinite(deltas))
    used = deltas[np.ix_(seeds, contexts)]
    found = asdict(paired(used.mean(axis=1) if used.size else []))
    tested = {name: found[name] for name in ("n", "low", "high", "p", "deltas")}
    return {**tested, "effect": found["mean"], "contexts": int(contexts.sum()), "dropped": int(deltas.size - used.size)}


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


@dataclass(frozen=True)
class VarianceShares:
    """How much of the variance of scores is whose.

    Attributes:
        table: one row a term (factors, `a × b` for two of them, `seed`, `residual`): `term`, `df`, `share` (eta²: of
            the sum of squares; in an unbalanced table they need not add up to 1), `partial_omega2` (of the variance
            of the term and the residual, corrected for chance; may be below 0), `p`. Empty where nothing can be said.
        method: how p was computed: LEAST_SQUARES, MIXED_MODEL, or MIXED_MODEL_FAILED, where it was tried in vain.
            Shares are of least squares in any case.
        reason: why the table is empty: "no factor", "one seed", "one cell", "all equal", "no degrees of freedom",
            "no residual"; "" where it is not.
    """

    table: pd.DataFrame
    method: str
    reason: str


_SHARES = ["term", "df", "share", "partial_omega2", "p"]
LEAST_SQUARES = "least squares"
MIXED_MODEL = "mixed model"
MIXED_MODEL_FAILED = "least squares after a mixed model"
# Its tests are right only with many seeds (they take the estimated variances for known).
_MIXED_SEEDS, _MIXED_RESULTS = 10, 40


def variance_shares(metric: Metric, trials: pd.DataFrame) -> VarianceShares:
    """Analysis of variance of scores over factors, their two-way interactions, and seeds.

    Sums of squares are of type II: a term's is what it adds to all terms that do not contain it. Terms of which the
    study holds no information of their own (as an interaction where each factor is varied alone) are left out. An
    unbalanced study with at least 10 seeds and 40 results takes its p from a mixed model (statsmodels), where that
    converges.
    """
    from scipy import stats

    scores = score_table(metric, trials)
    index = pd.MultiIndex.from_product([scores.index, scores.columns])
    long = pd.Series(scores.to_numpy(float).ravel(), index).dropna()
    levels = factors_of(trials)
    if reason := _too_little(long, levels):
        return VarianceShares(pd.DataFrame(columns=_SHARES), LEAST_SQUARES, reason)
    y = long.to_numpy(float)
    terms = _terms(long, levels)
    fit = cache(lambda chosen: _fit(y, [terms[term] for term in terms if term in chosen]))
    residual, rank = fit(frozenset(terms))
    df_residual = y.size - rank
    total = float(((y - y.mean()) ** 2).sum())
    if df_residual == 0:
        return VarianceShares(pd.DataFrame(columns=_SHARES), LEAST_SQUARES, "no degrees of freedom")
    if residual <= 1e-12 * total:
        return VarianceShares(pd.DataFrame(columns=_SHARES), LEAST_SQUARES, "no residual")
    mean_square = residual / df_residual
    rows = []
    for term in [*(t for t in terms if t != "seed"), "seed"]:
        others = _without(terms, term)
        (less, its_rank), (more, their_rank) = fit(others), fit(others | {term})
        added, df = max(0.0, less - more), their_rank - its_rank
        if df > 0:
            f = added / df / mean_square
            omega = df * (f - 1) / (df * (f - 1) + y.size)
            rows.append((term, df, added / total, omega, float(stats.f.sf(f, df, df_residual))))
    rows.append(("residual", df_residual, residual / total, np.nan, np.nan))
    table = pd.DataFrame(rows, columns=_SHARES)
    return _mixed(table, long, terms) if _wants_mixed_model(long) else VarianceShares(table, LEAST_SQUARES, "")


def _too_little(long: pd.Series[float], levels: pd.DataFrame) -> str:
    if levels.shape[1] == 0:
        return "no factor"
    if long.index.get_level_values("seed").nunique() < 2:
        return "one seed"
    if long.index.get_level_values("cell").nunique() < 2:
        return "one cell"
    if float(long.max() - long.min()) < 1e-12:
        return "all equal"
    return ""


def _terms(long: pd.Series[float], levels: pd.DataFrame) -> dict[str, Array]:
    """Term ↦ its indicator columns, shape [results, levels − 1] or the products of two."""
    at = levels.loc[long.index.get_level_values("cell")]
    columns = {str(name): _indicators(at[name]) for name in at.columns}
    for a, b in combinations(list(columns), 2):
        columns[f"{a} × {b}"] = (columns[a][:, :, None] * columns[b][:, None, :]).reshape(len(long), -1)
    return {**columns, "seed": _indicators(long.index.get_level_values("seed").to_series())}


def _indicators(values: pd.Series[str]) -> Array:
    codes = pd.factorize(values)[0]
    return np.asarray(codes[:, None] == np.arange(1, codes.max() + 1), dtype=float)


def _fit(y: Array, columns: list[Array]) -> tuple[float, int]:
    """Residual sum of squares of y on columns and a constant, and the rank of these."""
    x = np.column_stack([np.ones(y.size), *columns])
    centred = y - y.mean()
    # Columns of 0 and 1: their products are exact, and much smaller than they are where there are many cells.
    values, vectors = np.linalg.eigh(x.T @ x)
    kept = values > 1e-9 * values[-1]
    basis = vectors[:, kept]
    fitted = x @ (basis @ (basis.T @ (x.T @ centred) / values[kept]))
    return float(((centred - fitted) ** 2).sum()), int(kept.sum())


def _without(terms: Iterable[str], term: str) -> frozenset[str]:
    """All terms that do not contain this one."""
    return frozenset(other for other in terms if term not in (other, *other.split(" × ")))


def _wants_mixed_model(long: pd.Series[float]) -> bool:
    seeds, cells = (long.index.get_level_values(name).nunique() for name in ("seed", "cell"))
    return len(long) < seeds * cells and seeds >= _MIXED_SEEDS and len(long) >= _MIXED_RESULTS


def _mixed(table: pd.DataFrame, long: pd.Series[float], terms: dict[str, Array]) -> VarianceShares:
    """p by likelihood ratio between mixed models with and without each term; as it was where one does not converge."""
    from scipy import stats

    y: Array = np.asarray((long - long.mean()) / long.std(), dtype=np.float64)  # statsmodels expects a variance near 1
    seeds = pd.factorize(long.index.get_level_values("seed"))[0]
    fixed = {term: columns for term, columns in terms.items() if term != "seed"}
    found = dict(zip(table["term"], table["p"], strict=True))
    for term in table.loc[~table["term"].isin(["seed", "residual"]), "term"]:
        others = [fixed[other] for other in fixed if other in _without(fixed, term)]
        less, more = (_likelihood(y, part, seeds) for part in (others, [*others, fixed[term]]))
        if less is None or more is None:
            return VarianceShares(table, MIXED_MODEL_FAILED, "")
        df = table.loc[table["term"] == term, "df"].item()
        found[term] = float(stats.chi2.sf(max(0.0, 2 * (more - less)), df))
    return VarianceShares(table.assign(p=table["term"].map(found)), MIXED_MODEL, "")


def _likelihood(y: Array, columns: list[Array], seeds: NDArray[np.intp]) -> float | None:
    """Log-likelihood of a mixed model with a random intercept a seed; None when statsmodels has any doubt."""
    import warnings

    from statsmodels.regression.mixed_linear_model import MixedLM

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            fitted = MixedLM(y, _independent(np.column_stack([np.ones(y.size), *columns])), groups=seeds).fit(
                reml=False
            )
        except (Warning, np.linalg.LinAlgError, ValueError):
            return None
    return float(fitted.llf) if fitted.converged else None


def _independent(x: Array) -> Array:
    """The columns of x that are no combination of those before."""
    kept: list[int] = []
    for column in range(x.shape[1]):
        if np.linalg.matrix_rank(x[:, [*kept, column]]) > len(kept):
            kept.append(column)
    return x[:, kept]
