"""Which tests count together, and what may be said of each: verdicts.

What a design was made for is its primary family: there the chance of any false difference is below 5 %, and so is that
of any false equivalence. Everything else on the page is exploratory, and counts among itself. A contrast that stands in
several tables is tested once, and has one verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ablate.analyze.evidence import Diverged
from ablate.analyze.paired import LEVEL, holm

PRIMARY, EXPLORATORY = "primary", "exploratory"
JUDGED = ("family", "p_holm", "p_equivalent_holm", "verdict")

# Of a difference, by the sign of the effect where it is told from zero.
HELPS, HURTS = "helps", "hurts"
BETTER, WORSE = "better", "worse"
BETTER_TOGETHER, WORSE_TOGETHER = "better together", "worse together"
EQUIVALENT = "equivalent"  # within ± the margin, whatever its sign
UNDECIDED = "undecided"
ONE_SEED, NO_RESULT, DIVERGES = "one seed", "no result", "diverges"
SETTLED = (HELPS, HURTS)


@dataclass(frozen=True)
class Words:
    """The verdict on an effect below zero, and on one above."""

    lower: str = HELPS
    higher: str = HURTS


def judge(tables: Mapping[str, pd.DataFrame], primary: Mapping[str, pd.Series[bool]]) -> dict[str, pd.DataFrame]:
    """Add `JUDGED` to rows that have what `estimate` knows.

    Args:
        tables: by name; empty ones stay so.
        primary: name of a table → which of its rows are what the design was made for; tables that are not named have
            none.

    Returns:
        The same tables with `family`, `p_holm` and `p_equivalent_holm` (Holm's correction over the contrasts of the
        family, each counted once) and `verdict`: that of `WORDS` where p_holm < 0.05; "equivalent" where
        p_equivalent_holm < 0.05, which comes first; "undecided"; "one seed" (an effect without a test); "no result";
        "diverges" (there is none because every trial of one side diverged).
    """
    rows = [
        (contrast.key, p, p_equivalent, is_primary)
        for name, table in tables.items()
        for contrast, p, p_equivalent, is_primary in zip(
            *(table[column].tolist() for column in ("contrast", "p", "p_equivalent")),
            primary[name].tolist() if name in primary else [False] * len(table),
            strict=True,
        )
    ]
    family = {key: PRIMARY for key, _, _, is_primary in rows if is_primary}
    tests = {key: (p, p_equivalent) for key, p, p_equivalent, _ in rows}
    corrected: dict[Any, tuple[float, float]] = {}
    for which in (PRIMARY, EXPLORATORY):
        keys = [key for key in tests if family.get(key, EXPLORATORY) == which]
        both = (holm([tests[key][place] for key in keys]) for place in (0, 1))
        corrected.update(zip(keys, zip(*both, strict=True), strict=True))
    return {name: _judged(table, WORDS.get(name, Words()), family, corrected) for name, table in tables.items()}


WORDS = {"comparison": Words(BETTER, WORSE), "interactions": Words(BETTER_TOGETHER, WORSE_TOGETHER)}


def judge_alone(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """One table as a family of its own: the rows of a page count together instead."""
    return judge({name: table}, {name: pd.Series(True, index=table.index)})[name]


def is_claim(verdict: str) -> bool:
    """Whether a verdict says that something is so."""
    return verdict in (HELPS, HURTS, BETTER, WORSE, BETTER_TOGETHER, WORSE_TOGETHER, EQUIVALENT)


def size_of_family(tables: Mapping[str, pd.DataFrame]) -> int:
    """How many contrasts of the primary family are tested."""
    return len({
        contrast.key
        for table in tables.values()
        for contrast in table.loc[(table["family"] == PRIMARY) & table["p"].notna(), "contrast"]
    })  # fmt: skip


def _judged(
    table: pd.DataFrame, words: Words, family: Mapping[Any, str], corrected: Mapping[Any, tuple[float, float]]
) -> pd.DataFrame:
    keys = [contrast.key for contrast in table["contrast"]]
    p = [corrected[key][0] for key in keys]
    p_equivalent = [corrected[key][1] for key in keys]
    verdicts = [
        verdict(row, one, other, words)
        for row, one, other in zip(table[["effect", "p", "diverged"]].to_dict("records"), p, p_equivalent, strict=True)
    ]
    return table.assign(
        family=pd.Series([family.get(key, EXPLORATORY) for key in keys], index=table.index, dtype=object),
        p_holm=pd.Series(p, index=table.index, dtype=float),
        p_equivalent_holm=pd.Series(p_equivalent, index=table.index, dtype=float),
        verdict=pd.Series(verdicts, index=table.index, dtype=object),
    )


def is_flattered(row: Mapping[Any, Any]) -> bool:
    """Whether the side that looks better is the one of which more trials diverged: who is left may flatter it."""
    return bool(row["diverged"].more == (1 if row["effect"] < 0 else -1))


def verdict(row: Mapping[Any, Any], p_holm: float, p_equivalent: float, words: Words) -> str:
    """What may be said of a contrast, in a word or two.

    Those that are left where one side diverged more often are the better of it: that side is never called better.
    """
    diverged: Diverged = row["diverged"]
    if np.isnan(row["effect"]):
        everything = (diverged.with_ == diverged.of_with > 0) or (diverged.without == diverged.of_without > 0)
        return DIVERGES if everything else NO_RESULT
    if np.isnan(row["p"]):
        return ONE_SEED
    if is_flattered(row):
        return UNDECIDED
    if p_equivalent < 1 - LEVEL and not diverged.more:
        return EQUIVALENT
    if p_holm < 1 - LEVEL:
        return words.lower if row["effect"] < 0 else words.higher
    return UNDECIDED
