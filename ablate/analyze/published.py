"""What others have published, beside the cells that follow the same recipe on the same text."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd

_COLUMNS = ["cell", "n", "ours", "published", "published_sd", "difference", "name", "cite", "source"]


@cache
def _figures() -> list[dict[str, Any]]:
    text = files("ablate.analyze").joinpath("published.toml").read_text(encoding="utf-8")
    figures: list[dict[str, Any]] = tomllib.loads(text)["figure"]
    return figures


def published(trials: pd.DataFrame, comparison: pd.DataFrame) -> pd.DataFrame:
    """The published test perplexities of the recipes that cells of this study follow.

    Args:
        trials: one row a trial, with its knobs.
        comparison: one row a cell, with `n` and `test_mean`.

    Returns:
        One row a (cell, figure): `cell, n, ours, published, published_sd, difference, name, cite, source`; `difference`
        is ours over theirs, minus 1. A cell matches where every knob that the figure names has the same value and it
        was trained on all of the text with the whole vocabulary.
    """
    started = trials[trials["parameters"].notna()] if "parameters" in trials else trials
    first = started.drop_duplicates("cell").set_index("cell")
    rows = [
        {
            "cell": row["cell"],
            "n": row["n"],
            "ours": row["test_mean"],
            "published": figure["test"],
            "published_sd": figure.get("test_sd", float("nan")),
            "difference": row["test_mean"] / figure["test"] - 1,
            **{name: figure[name] for name in ("name", "cite", "source")},
        }
        for row in comparison[comparison["n"] > 0].to_dict("records")
        for figure in _figures()
        if "match" in figure and _matches(first.loc[row["cell"]], figure["match"])
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def on_the_same_text(trials: pd.DataFrame) -> pd.DataFrame:
    """Published figures on the texts of this study by other recipes, for orientation: `name, valid, test, cite`."""
    texts = set(trials["data"].dropna()) if "data" in trials else set()
    rows = [figure for figure in _figures() if figure.get("data") in texts]
    return pd.DataFrame(rows, columns=["name", "valid", "test", "cite", "source"])


def _matches(cell: pd.Series[Any], wanted: dict[str, object]) -> bool:
    whole = wanted | {"train_tokens": None, "vocabulary": "full"}
    return all(
        _same(cell.get(f"knob.{name}", "absent"), None if value == "null" else value) for name, value in whole.items()
    )


def _same(found: Any, wanted: object) -> bool:
    if wanted is None or pd.isna(found):
        return wanted is None and bool(pd.isna(found))
    if isinstance(wanted, bool) or isinstance(found, (bool, str)):
        return bool(found == wanted)
    return bool(abs(float(found) - float(wanted)) < 1e-12) if isinstance(wanted, (int, float)) else False
