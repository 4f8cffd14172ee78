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

from ablate.analyze.components import rows_of_components, widest_kind
from ablate.analyze.effects import rows_of_factors
from ablate.analyze.evidence import ESTIMATED, Evidence
from ablate.analyze.families import SETTLED, judge_alone
from ablate.analyze.table import finished

PART = ["part", "kind", "level", "reference"]
_CONTEXTS = ["contexts", "where", "of_contexts"]
_COLUMNS = [*PART, "budget", "seen", *_CONTEXTS, *ESTIMATED]


@dataclass(frozen=True)
class Change:
    """Between two neighbouring budgets the mean effect of a part has another sign.

    Attributes:
        before, after: rows of `effects_by_budget`.
        budget, seen: where the line between the two means, over the logarithm of either, crosses zero; `seen` is NaN
            where it is not known.
    """

    before: Mapping[Hashable, Any]
    after: Mapping[Hashable, Any]
    budget: float
    seen: float


def effects_by_budget(evidence: Evidence, components: Sequence[str] | None, knob: str | None) -> pd.DataFrame:
    """The effects of components, or of the other factors, in the trials of each budget alone.

    Args:
        evidence: of one study, in which `factor.<knob>` has two levels or more.
        components: that the study's design varies; None or empty: its factors are looked at.
        knob: that scales a whole training; None: there is none.

    Returns:
        One row a (part, budget), budgets ascending: `part` (a component or a factor), `kind` (of a component's effect,
        "" where the study has one kind), `level`, `reference` (of a factor), `budget`, `seen` (mean), `contexts`,
        `where`, `of_contexts` (as `factor_effects` has them, of the other factors), what `estimate` gives, and what
        `judge` adds, with this table as a family of its own. Empty where the knob is no factor.
    """
    return judge_alone("by_budget", rows_by_budget(evidence, components, knob))


def rows_by_budget(evidence: Evidence, components: Sequence[str] | None, knob: str | None) -> pd.DataFrame:
    """`effects_by_budget` without verdicts."""
    trials = evidence.trials
    budgets = pd.to_numeric(trials.get(f"factor.{knob}", pd.Series(dtype=float)), errors="coerce")
    rows: list[dict[str, Any]] = []
    for budget in sorted(budgets.dropna().unique()):
        here = trials[budgets == budget].drop(columns=[f"factor.{knob}"])
        seen = finished(evidence.metric, here)["seen"].astype(float).mean()
        rows += [{**row, "budget": float(budget), "seen": seen} for row in _effects(evidence.of(here), components)]
    # Where everything diverged there is no effect, and that is what there is to tell.
    kept = [row for row in rows if pd.notna(row["effect"]) or row["diverged"].any]
    known = pd.DataFrame(kept, columns=_COLUMNS)
    # One budget of a part is no curve.
    several = known[known.groupby(PART)["budget"].transform("size") > 1] if len(known) else known
    if several.empty:
        return pd.DataFrame(columns=_COLUMNS)
    places = several.groupby(PART, sort=False).ngroup()
    ordered = several.assign(place=places).sort_values(["place", "budget"], kind="stable").drop(columns="place")
    return ordered.reset_index(drop=True)


def _effects(here: Evidence, components: Sequence[str] | None) -> list[dict[str, Any]]:
    if components:
        effects = rows_of_components(here, components)
        chosen = effects[(effects["kind"] == widest_kind(effects)) & (effects["at"] == "")]
        several = effects["kind"].nunique() > 1
        return [
            {"part": row["component"], "kind": row["kind"] if several else "", "level": "", "reference": ""}
            | dict(zip(_CONTEXTS, (1, (), 1), strict=True))
            | {name: row[name] for name in ESTIMATED}
            for row in chosen.to_dict("records")
        ]
    effects = rows_of_factors(here)
    return [
        {"part": row["factor"], "kind": "", "level": row["level"], "reference": row["reference"]}
        | {name: row[name] for name in (*_CONTEXTS, *ESTIMATED)}
        for row in effects[effects["at"] == ""].to_dict("records")
    ]


def changes_of_sign(effects: pd.DataFrame) -> list[Change]:
    """Where the effect of a part crosses zero between two budgets at which it is told from zero, in their order.

    Two means over other settings of the rest are no change: what differs may be the settings.
    """
    found = []
    for _, part in effects.groupby(PART, sort=False):
        for before, after in pairwise(part.to_dict("records")):
            a, b = float(before["effect"]), float(after["effect"])
            is_told = before["verdict"] in SETTLED and after["verdict"] in SETTLED
            if a * b < 0 and is_told and before["where"] == after["where"]:
                share = a / (a - b)
                budget, seen = (float(before[x]) ** (1 - share) * float(after[x]) ** share for x in ("budget", "seen"))
                found.append(Change(before, after, budget, seen))
    return found
