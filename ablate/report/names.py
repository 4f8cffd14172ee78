"""What rows of the analysis are called in tables, figures and sentences."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from ablate.analyze.comparison import BASELINE
from ablate.analyze.differs import Task
from ablate.analyze.families import BETTER, HELPS, HURTS, PRIMARY, WORSE
from ablate.analyze.study import Analysis
from ablate.analyze.variance import LEAST_SQUARES, MIXED_MODEL, MIXED_MODEL_FAILED

KINDS = {
    "removal": "taken from the full model",
    "addition": "added to the plainest",
    "cumulative": "added in turn",
    "shapley": "averaged over all orders",
}
METHODS = {
    LEAST_SQUARES: "least squares, seeds as blocks",
    MIXED_MODEL: "mixed model, seeds random",
    MIXED_MODEL_FAILED: "least squares, seeds as blocks (a mixed model did not converge)",
}
NOT_KNOWN = {
    "no result": "no trial has a result",
    "one seed": "no cell has two seeds with a result: add seeds=5",
    "no spread": "every seed of a cell gave the same result",
    "no pairs": "no cell shares two seeds with the baseline",
}

Row = Mapping[Hashable, Any]


def named_components(analysis: Analysis) -> pd.DataFrame:
    """`components` with a `name` for each row that says how it was measured where there are several ways."""
    ways = analysis.components["kind"].nunique()
    names = [
        str(row["component"])
        + (f" at {row['at']}" if row["at"] else "")
        + (f", {KINDS[row['kind']]}" if ways > 1 else "")
        for row in analysis.components.to_dict("records")
    ]
    return analysis.components.assign(name=names)


def named_factors(analysis: Analysis) -> pd.DataFrame:
    """The marginal effects of `factors` with a `name` each."""
    marginal = analysis.factors[analysis.factors["at"] == ""]
    return marginal.assign(name=[_level(row) for row in marginal.to_dict("records")])


def named_simple(analysis: Analysis) -> pd.DataFrame:
    """The effects of `factors` at single combinations of the other factors, with a `name` each."""
    simple = analysis.factors[analysis.factors["at"] != ""]
    return simple.assign(name=[f"{_level(row)}, at {row['at']}" for row in simple.to_dict("records")])


def named_interactions(analysis: Analysis) -> pd.DataFrame:
    """`interactions` with a `name` each."""
    names = [
        f"{_level(row)}, at {row['other']}={row['other_level']} against {row['other_reference']}"
        for row in analysis.interactions.to_dict("records")
    ]
    return analysis.interactions.assign(name=names)


def named_by_budget(analysis: Analysis) -> pd.DataFrame:
    """`by_budget` with a `name` for each part, the same at all budgets."""
    return analysis.by_budget.assign(name=[part_of(row) for row in analysis.by_budget.to_dict("records")])


def part_of(row: Row) -> str:
    """The part that a row of `by_budget` is about."""
    if row["level"]:
        return f"{row['part']}={row['level']} instead of {row['reference']}"
    return f"{row['part']}, {KINDS[row['kind']]}," if row["kind"] else str(row["part"])


def effects_to_draw(analysis: Analysis) -> tuple[pd.DataFrame, str]:
    """What a forest plot shows, and what has the effect: components, else factors, else cells by the baseline."""
    if len(analysis.components):
        return named_components(analysis), "having the part"
    if len(analysis.factors):
        return named_factors(analysis), "taking the second level"
    return _named_cells(analysis), "taking the cell instead of the baseline"


def asked(analysis: Analysis) -> pd.DataFrame:
    """The rows of the primary family with a `name` each: what the study was made for."""
    tables = {
        "components": [named_components],
        "factors": [named_factors, named_interactions],
        "by_budget": [named_at_budgets],
        "comparison": [_named_cells],
    }[analysis.primary]
    rows = pd.concat([make(analysis) for make in tables], ignore_index=True)
    return rows[rows["family"] == PRIMARY]


def named_at_budgets(analysis: Analysis) -> pd.DataFrame:
    """`by_budget` with a `name` for each part and budget."""
    knob, rows = analysis.task["budget"][0], named_by_budget(analysis)
    return rows.assign(name=[f"{row['name']}, at {knob}={row['budget']:g}" for row in rows.to_dict("records")])


def _named_cells(analysis: Analysis) -> pd.DataFrame:
    return _as_effects(analysis.comparison[analysis.comparison["verdict"] != BASELINE])


def _as_effects(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the comparison as effects of taking that cell."""
    verdicts = {BETTER: HELPS, WORSE: HURTS}
    said = [verdicts.get(verdict, verdict) for verdict in rows["verdict"]]
    return rows.rename(columns={"cell": "name"}).assign(verdict=pd.Series(said, index=rows.index, dtype=object))


def costs(analysis: Analysis) -> dict[str, str]:
    """Name of a component's row → parameters that having it adds, signed; averages over orders have none."""
    parameters = analysis.comparison.set_index("cell")["parameters"]
    found = {}
    for row in named_components(analysis).to_dict("records"):
        # Averaged over all orders it is no step between two cells.
        if row["kind"] != "shapley" and {row["without"], row["with_"]} <= set(parameters.index):
            added = parameters[row["with_"]] - parameters[row["without"]]
            found[str(row["name"])] = "" if pd.isna(added) else f"{added:+,.0f}".replace("-", "−")
    return found


def knob_or_fact(task: Task, name: str) -> str:
    """A row of `confounds` as readers know it."""
    if name.startswith("detail."):
        return f"{name.removeprefix('detail.')} of the data"
    return {"seen": task["unit"] or "seen", "train_seconds": "train time"}.get(name, name)


def _level(row: Row) -> str:
    return f"{row['factor']}: {row['reference']} → {row['level']}"
