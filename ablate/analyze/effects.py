"""What each factor does: its effect, and how factors act together.

Everything is computed per seed first and tested over seeds after: for each seed, the paired differences are averaged
over the combinations of the other factors, which leaves one number a seed, independent of each other; the t interval
over these is exact whatever the cells' variances and correlations (randomised blocks; Montgomery, Design and Analysis
of Experiments, ch. 4). Effects are differences of scores: below 0 a level helps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
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
