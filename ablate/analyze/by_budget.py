"""What each part does at every budget, and where its effect changes sign.

Every budget is a training of its own, with the schedule scaled to it: under a falling learning rate the beginning of a
long training is no short one.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd

from ablate.analyze.components import KINDS, component_effects, widest_kind
from ablate.analyze.effects import factor_effects
from ablate.analyze.table import finished, judge

_COLUMNS = ["name", "budget", "tokens", "n", "effect", "low", "high", "p", "deltas", "p_holm", "verdict"]


@dataclass(frozen=True)
class Change:
    """Between two neighbouring budgets the mean effect of a part has another sign.

    Attributes:
        before, after: rows of `effects_by_budget`.
        tokens: where the line between the two means, over the logarithm of tokens, crosses zero.
    """

    name: str
    before: Mapping[Hashable, Any]
    after: Mapping[Hashable, Any]
    tokens: float


def effects_by_budget(trials: pd.DataFrame, components: Sequence[str] | None) -> pd.DataFrame:
    """The effects of components, or of the other factors, in the trials of each budget alone.

    Args:
        trials: of one study, in which `factor.budget` has two levels or more.
        components: that the study's design varies; None or empty: its factors are looked at.

    Returns:
        One row a (part, budget), budgets ascending: `name`, `budget`, `tokens` (trained on, mean), `n`, `effect`,
        `low`, `high`, `p`, `deltas`, and `p_holm`, `verdict`, corrected over this table. Empty where budget is no
        factor.
    """
    if "factor.budget" not in trials:
        return pd.DataFrame(columns=_COLUMNS)
    budgets = pd.to_numeric(trials["factor.budget"])
    rows: list[dict[str, Any]] = []
    for budget in sorted(budgets.unique()):
        here = trials[budgets == budget].drop(columns=["factor.budget"])
        tokens = finished(here)["tokens"].astype(float).mean()
        rows += [{**row, "budget": float(budget), "tokens": tokens} for row in _effects(here, components)]
    known = [row for row in rows if pd.notna(row["effect"])]
    # One budget of a part is no curve.
    counts = pd.Series([row["name"] for row in known], dtype=object).value_counts()
    several = pd.DataFrame([row for row in known if counts[row["name"]] > 1], columns=_COLUMNS[:9])
    if several.empty:
        return pd.DataFrame(columns=_COLUMNS)
    order = {name: place for place, name in enumerate(dict.fromkeys(several["name"]))}
    places = several["name"].map(order)
    ordered = several.assign(place=places).sort_values(["place", "budget"], kind="stable").drop(columns="place")
    return judge(ordered.reset_index(drop=True), "helps", "hurts")[_COLUMNS]


def _effects(here: pd.DataFrame, components: Sequence[str] | None) -> list[dict[str, Any]]:
    names = ("n", "effect", "low", "high", "p", "deltas")
    if components:
        effects = component_effects(here, components)
        chosen = effects[(effects["kind"] == widest_kind(effects)) & (effects["at"] == "")]
        several = effects["kind"].nunique() > 1
        return [
            {
                "name": f"{row['component']}, {KINDS[row['kind']]}," if several else row["component"],
                **{k: row[k] for k in names},
            }
            for row in chosen.to_dict("records")
        ]
    effects = factor_effects(here)
    return [
        {"name": f"{row['factor']}={row['level']} instead of {row['reference']}", **{k: row[k] for k in names}}
        for row in effects[effects["at"] == ""].to_dict("records")
    ]


def changes_of_sign(effects: pd.DataFrame) -> list[Change]:
    """Where the mean effect of a part crosses zero between two budgets, in the order of `effects`."""
    found = []
    for name, part in effects.groupby("name", sort=False):
        rows = part.to_dict("records")
        for before, after in pairwise(rows):
            a, b = float(before["effect"]), float(after["effect"])
            if a * b >= 0:
                continue
            share = a / (a - b)
            tokens = float(before["tokens"]) ** (1 - share) * float(after["tokens"]) ** share
            found.append(Change(str(name), before, after, tokens))
    return found
