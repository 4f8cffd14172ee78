"""What others have published, beside the cells that follow the same recipe on the same data."""

from __future__ import annotations

import tomllib
from collections.abc import Hashable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd

from ablate.metric import Metric

_COLUMNS = ["cell", "n", "ours", "published", "published_sd", "effect", "name", "cite", "source"]


@cache
def figures(task: str) -> list[dict[str, Any]]:
    """All published figures of a task that comes with some; `match` of one whose recipe a cell can follow: every knob
    that such a cell has."""
    path = files("ablate").joinpath("tasks", task, "published.toml")
    if not task.isidentifier() or not path.is_file():
        return []
    known = tomllib.loads(path.read_text(encoding="utf-8"))
    recipes: dict[str, dict[str, Any]] = known["recipe"]
    found = []
    for figure in known["figure"]:
        match = recipes["all"] | recipes[figure["recipe"]] | figure.get("but", {}) if "recipe" in figure else None
        found.append({**figure, "match": match})
    return found


def published(metric: Metric, task: str, trials: pd.DataFrame, comparison: pd.DataFrame) -> pd.DataFrame:
    """The published test results of the recipes that cells of this study follow.

    Args:
        metric: that is compared; task: its name.
        trials: one row a trial, with its knobs.
        comparison: one row a cell, with `n` and `test_mean`.

    Returns:
        One row a (cell, figure): `cell, n, ours, published, published_sd, effect, name, cite, source`; `effect` is the
        difference of the two scores. A cell matches where every knob that decides its result has the
        recipe's value.
    """
    started = trials[trials["data"].notna()]
    first = started.drop_duplicates("cell").set_index("cell")
    knobs = first[[name for name in first if str(name).startswith("knob.")]].to_dict("index")
    rows = [
        {
            "cell": row["cell"],
            "n": row["n"],
            "ours": row["test_mean"],
            "published": figure["test"],
            "published_sd": figure.get("test_sd", float("nan")),
            "effect": metric.score_of(row["test_mean"]) - metric.score_of(figure["test"]),
            **{name: figure[name] for name in ("name", "cite", "source")},
        }
        for row in comparison.loc[comparison["n"] > 0, ["cell", "n", "test_mean"]].to_dict("records")
        for figure in figures(task)
        if figure["match"] is not None and _matches(knobs[row["cell"]], figure["match"])
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def on_the_same_data(task: str, trials: pd.DataFrame) -> pd.DataFrame:
    """Published figures on the data of this study by other recipes, for orientation: `name, valid, test, cite`."""
    data = set(trials["data"].dropna()) if "data" in trials else set()
    rows = [figure for figure in figures(task) if figure.get("data") in data]
    return pd.DataFrame(rows, columns=["name", "valid", "test", "cite", "source"])


def _matches(knobs: Mapping[Hashable, Any], wanted: dict[str, object]) -> bool:
    return all(
        _same(knobs.get(f"knob.{name}", "absent"), None if value == "null" else value) for name, value in wanted.items()
    )


def _same(found: Any, wanted: object) -> bool:
    if wanted is None or pd.isna(found):
        return wanted is None and bool(pd.isna(found))
    if isinstance(wanted, bool) or isinstance(found, (bool, str)):
        return bool(found == wanted)
    return bool(abs(float(found) - float(wanted)) < 1e-12) if isinstance(wanted, (int, float)) else False
