"""How much of the variance of scores is whose: factors', their interactions', the seeds'."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analyze.paired import Array
from ablate.analyze.table import factors_of, score_table
from ablate.metric import Metric


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
