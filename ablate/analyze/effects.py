"""What each factor does: its effect, and how factors act together.

Everything is computed per seed first and tested over seeds after: for each seed, the paired differences are averaged
over the combinations of the other factors, which leaves one number a seed, independent of each other; the t interval
over these is exact whatever the cells' variances and correlations (randomised blocks; Montgomery, Design and Analysis
of Experiments, ch. 4). Effects are differences of scores: below 0 a level helps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from ablate.analyze.contrast import Contrast, average, between, combined
from ablate.analyze.evidence import ESTIMATED, Evidence, averaged, estimate
from ablate.analyze.families import judge_alone
from ablate.analyze.table import factors_of

Levels = tuple[str, ...]
_AVERAGED = (*ESTIMATED, "contexts", "where", "dropped")
_EFFECT = ["factor", "reference", "level", "at", "of_contexts", *_AVERAGED]
_AT = tuple(f"{what}_at_{which}" for which in ("reference", "level") for what in ("effect", "low", "high"))
_INTERACTION = [
    "factor", "reference", "level", "other", "other_reference", "other_level", "of_contexts", *_AT, *_AVERAGED,
]  # fmt: skip


def factor_effects(evidence: Evidence, baseline: str | None = None) -> pd.DataFrame:
    """The effect of every level against its factor's reference.

    Args:
        baseline: the cell whose levels are the references; None: the study's first.

    Returns:
        One row a factor, level and context: `factor`, `reference`, `level`; `at`: "" for the marginal effect, the
        average over all combinations of the other factors that have both levels, or one such combination (only where
        there are several); `of_contexts`: how many combinations of the other factors the study has; what `averaged`
        gives; and what `judge` adds, with this table as a family of its own. Cells that share all levels count as one:
        the first.
    """
    return judge_alone("factors", rows_of_factors(evidence, baseline))


def rows_of_factors(evidence: Evidence, baseline: str | None = None) -> pd.DataFrame:
    """`factor_effects` without verdicts."""
    levels = factors_of(evidence.trials)
    cells = _cell_by_levels(levels)
    rows = []
    for place, factor in enumerate(levels.columns):
        reference = levels[factor].iloc[0] if baseline is None else levels.at[baseline, factor]
        possible = len({_with(combination, place, "") for combination in cells})
        for level in (level for level in dict.fromkeys(levels[factor]) if level != reference):
            contexts = {
                _context(levels, combination, {place}): between(cells[_with(combination, place, level)], cell)
                for combination, cell in cells.items()
                if combination[place] == reference and _with(combination, place, level) in cells
            }
            named = {"factor": factor, "reference": reference, "level": level, "of_contexts": possible}
            if contexts:
                rows.append({**named, "at": "", **averaged(contexts, evidence)})
            if len(contexts) > 1:
                rows += [{**named, "at": at, **averaged({at: one}, evidence)} for at, one in contexts.items()]
    return pd.DataFrame(rows, columns=_EFFECT)


def interactions(evidence: Evidence) -> pd.DataFrame:
    """For every two factors, how the effect of one changes with the other: a difference of differences.

    Returns:
        One row for two factors and a level of each against its reference: `factor`, `reference`, `level`, `other`,
        `other_reference`, `other_level`; `effect_at_reference`, `low_at_reference`, `high_at_reference`, and the same
        `_at_level`: the effect of the factor with the other at its reference, and at its level; and the columns of
        `factor_effects` from `of_contexts` on. `effect` is the difference of these two effects: below 0 the two
        factors together do better than their separate effects added up.
        `verdict`: "better together", "worse together", or as there. Only where the study has the four cells, averaged
        over the combinations of all other factors that have them.
    """
    return judge_alone("interactions", rows_of_interactions(evidence))


def rows_of_interactions(evidence: Evidence) -> pd.DataFrame:
    """`interactions` without verdicts."""
    levels = factors_of(evidence.trials)
    cells = _cell_by_levels(levels)
    rows = []
    for i, j in combinations(range(levels.shape[1]), 2):
        (reference, *others), (second, *seconds) = (dict.fromkeys(levels.iloc[:, place]) for place in (i, j))
        for level, second_level in ((a, b) for a in others for b in seconds):
            fours = {
                _context(levels, at, {i, j}): contrasts
                for at, contrasts in _fours(cells, i, j, (reference, level), (second, second_level))
            }
            if fours:
                together = {at: combined([(one, 1.0), (other, -1.0)]) for at, (one, other) in fours.items()}
                found = averaged(together, evidence)
                named = {
                    "factor": levels.columns[i],
                    "reference": reference,
                    "level": level,
                    "other": levels.columns[j],
                    "other_reference": second,
                    "other_level": second_level,
                    "of_contexts": len({_with(_with(combination, i, ""), j, "") for combination in cells}),
                }
                used = [fours[at] for at in found["where"] or fours]
                rows.append({**named, **_simple(used, found["contrast"], evidence), **found})
    return pd.DataFrame(rows, columns=_INTERACTION)


def _simple(used: Sequence[tuple[Contrast, Contrast]], interaction: Contrast, evidence: Evidence) -> dict[str, float]:
    """The effect with the other factor at its level, and at its reference, over the seeds of their difference."""
    seeds = evidence.scores.index[np.isfinite(evidence.deltas(interaction))]
    same = evidence.of(evidence.trials[evidence.trials["seed"].isin(seeds)]) if len(seeds) else evidence
    found = {
        which: estimate(average(side), same)
        for which, side in zip(("level", "reference"), zip(*used, strict=True), strict=True)
    }
    return {f"{what}_at_{which}": row[what] for which, row in found.items() for what in ("effect", "low", "high")}


def _fours(
    cells: dict[Levels, str], i: int, j: int, mine: tuple[str, str], other: tuple[str, str]
) -> Iterator[tuple[Levels, tuple[Contrast, Contrast]]]:
    """For every context that has all four cells: its levels, and the effect with the other changed and unchanged."""
    for combination, cell in cells.items():
        if (combination[i], combination[j]) == (mine[0], other[0]):
            one, two = _with(combination, i, mine[1]), _with(combination, j, other[1])
            both = _with(one, j, other[1])
            if one in cells and two in cells and both in cells:
                yield combination, (between(cells[both], cells[two]), between(cells[one], cell))


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
