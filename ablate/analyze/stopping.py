"""Whether a study has seeds enough: with seeds=auto it is asked after every seed that all cells have trained.

The primary family is what the study was made to tell. Each of its K comparisons is decided where it differs from 0
(always-valid p below α/K) or is equivalent (the confidence sequence at the level 1 − α/K lies within ±worth): with a
probability of at least 1 − α no decision is wrong, however often one looks. Bonferroni and not Holm, so that p and
interval agree and no decision rests on another; Holm over the same p-values can only decide more.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from ablate.analyze.comparison import comparable, compare
from ablate.analyze.components import component_effects, widest_kind
from ablate.analyze.effects import factor_effects, interactions
from ablate.analyze.paired import LEVEL, Array
from ablate.analyze.sequential import always_valid_p, confidence_sequence
from ablate.analyze.table import cells_of, factors_of
from ablate.track.read import Results
from ablate.worth import margin

Rows = list[dict[Hashable, Any]]


@dataclass(frozen=True)
class Look:
    """What a look at the primary family found.

    Attributes:
        seeds: that every cell had trained, with or without a result.
        decided, undecided: names of the comparisons that have a result, in the order of the report.
    """

    seeds: int
    decided: tuple[str, ...]
    undecided: tuple[str, ...]

    @property
    def comparisons(self) -> int:
        """K, for which the level is corrected."""
        return len(self.decided) + len(self.undecided)

    def record(self) -> dict[str, Any]:
        """As a launch writes it down: `seeds`, `comparisons` (K), `decided` and `undecided` (names)."""
        return {**asdict(self), "comparisons": self.comparisons}


def look(results: Results) -> Look:
    """Which comparisons of a study are decided by the seeds that it has."""
    family = primary_family(results)
    smallest = margin(results.worth, results.metrics[0])
    alpha = (1 - LEVEL) / max(1, len(family))
    decided = [name for name, deltas in family.items() if is_decided(deltas, alpha, smallest)]
    seeds = int(results.trials["seed"].nunique())
    return Look(seeds, tuple(decided), tuple(name for name in family if name not in decided))


def is_decided(deltas: Array, alpha: float, smallest: float | None) -> bool:
    """Whether differences, one a seed, are other than 0, or less than `smallest` (None: nothing is too small)."""
    if always_valid_p(deltas) < alpha:
        return True
    low, high = confidence_sequence(deltas, 1 - alpha)
    return smallest is not None and bool(-smallest < low and high < smallest)


def primary_family(results: Results) -> dict[str, Array]:
    """What the study was made to tell: name → differences of scores, one a seed; without those that have no result.

    Of a design of components their effects, by the kind that covers the most of them; else, of two factors or more,
    their effects and their interactions; else the comparison of every cell with the first.
    """
    rows = _components(results) or _factors(results) or _cells(results)
    return {row["name"]: np.array(row["deltas"]) for row in rows if len(row["deltas"])}


def _components(results: Results) -> Rows:
    components = results.design.get("components")
    if not components:
        return []
    effects = component_effects(results.metrics[0], _alike(results), components)
    widest = effects[effects["kind"] == widest_kind(effects)]
    return [{**row, "name": f"{row['component']} {row['at']}".strip()} for row in widest.to_dict("records")]


def _factors(results: Results) -> Rows:
    metric, trials = results.metrics[0], _alike(results)
    if factors_of(trials).shape[1] < 2:
        return []
    effects = factor_effects(metric, trials)
    marginal = [
        {**row, "name": f"{row['factor']}={row['level']}"} for row in effects[effects["at"] == ""].to_dict("records")
    ]
    together = [
        {**row, "name": f"{row['factor']}={row['level']} × {row['other']}={row['other_level']}"}
        for row in interactions(metric, trials).to_dict("records")
    ]
    return marginal + together


def _cells(results: Results) -> Rows:
    rows = compare(results.metrics[0], results.trials).to_dict("records")
    return [{**row, "name": row["cell"]} for row in rows if row["verdict"] != "baseline"]


def _alike(results: Results) -> pd.DataFrame:
    """The trials of the cells that are evaluated on what the first is."""
    trials = results.trials
    return trials[trials["cell"].isin(comparable(trials, cells_of(trials)[0]))]
