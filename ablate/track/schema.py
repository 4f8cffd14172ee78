"""The three tables of a study: their columns, in order, with their types and what must hold of them.

Imported late: pandera is needed where results are read, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from ablate.metric import Metric, check_metrics

STATUSES = ("FINISHED", "DIVERGED", "FAILED", "INTERRUPTED", "UNFINISHED")
# What a trial ran on; a fact that is not among them has a column `fact.<name>`.
FACTS = (
    "data", "data_digest", "code", "git_commit", "git_dirty", "torch", "python", "platform", "device", "threads",
    "precision",
)  # fmt: skip
OF_DATA = ("data", "data_digest", "evaluated", "alike")


def results_of(metric: Metric) -> tuple[str, ...]:
    """The columns of a trial's results in a metric, as they are recorded."""
    return tuple(f"{which}_{metric.recorded}" for which in ("first", "best_valid", "valid", "test"))


def trials_schema(metrics: Sequence[Metric]) -> pa.DataFrameSchema:
    """The table of trials of a task with these metrics; cells are compared by the first.

    Raises:
        ValueError: when two metrics would have the same columns.
    """
    check_metrics(metrics)
    first = metrics[0]
    columns = {
        "cell": _text(),
        "seed": pa.Column("int64", pa.Check.ge(0)),
        "status": pa.Column(str, pa.Check.isin(STATUSES)),
        "reason": _text(),
        "log": _text(),
        "fingerprint": _text(),
        "parameters": _count(),
        "steps": _count(),
        "seen": _count(),
        "seconds": _measured(),
        "train_seconds": _measured(),
        "best_step": _count(),
        "clipped": _measured(),
        **{name: _measured() for metric in metrics for name in (*results_of(metric), *_values_of(metric))},
        f"chance_{first.recorded}": _measured(),
        f"floor_{first.recorded}": _measured(),
        **{name: _known_text() for name in (*OF_DATA, *FACTS[2:])},
        r"^fact\..+": _known_text(regex=True, required=False),
        r"^detail\..+": _known_text(regex=True, required=False),
        r"^factor\..+": _known_text(regex=True, required=False),
        # bool; where studies that declare different components are read as one, nullable.
        r"^component\..+": pa.Column(
            None,
            pa.Check(lambda column: column.dtype in ("bool", "boolean"), error="true or false"),
            regex=True,
            nullable=True,
            required=False,
        ),
        # Values as they were recorded: None, true, 2, 0.5, "adam".
        r"^knob\..+": pa.Column(object, regex=True, nullable=True, required=False),
        r"^value\..+": pa.Column("float64", regex=True, nullable=True, required=False),
    }
    checks = [
        _is_exp(f"{split}_{metric.name}", f"{split}_{metric.recorded}")
        for metric in metrics
        if metric.logged is not None
        for split in ("valid", "test")
    ]
    return pa.DataFrameSchema(
        columns,
        checks=[*checks, _only_finished_have_a_result(f"test_{first.recorded}")],
        unique=["cell", "seed"],
        strict=True,
        ordered=True,
        name="trials",
    )


def curves_schema(metrics: Sequence[Metric]) -> pa.DataFrameSchema:
    """The table of measurements of a task with these metrics."""
    check_metrics(metrics)
    return pa.DataFrameSchema(
        {
            "cell": _text(),
            "seed": pa.Column("int64", pa.Check.ge(0)),
            "split": pa.Column(str, pa.Check.isin(["train", "valid"])),
            "step": pa.Column("int64", pa.Check.ge(0)),
            "seen": _count(),
            "seconds": pa.Column("float64"),
            **{name: _measured() for metric in metrics for name in dict.fromkeys((metric.recorded, metric.name))},
        },
        checks=[_is_exp(m.name, m.recorded) for m in metrics if m.logged is not None],
        strict=True,
        ordered=True,
        name="curves",
    )


def blocks_schema() -> pa.DataFrameSchema:
    """The table of test results by block of examples."""
    return pa.DataFrameSchema(
        {
            "cell": _text(),
            "seed": pa.Column("int64", pa.Check.ge(0)),
            "block": pa.Column("int64", pa.Check.ge(0)),
            "examples": pa.Column("int64", pa.Check.ge(1)),
            "total": pa.Column("float64"),
        },
        unique=["cell", "seed", "block"],
        strict=True,
        ordered=True,
        name="blocks",
    )


def _values_of(metric: Metric) -> list[str]:
    return [] if metric.logged is None else [f"{split}_{metric.name}" for split in ("valid", "test")]


def _text() -> pa.Column:
    return pa.Column(str)


def _known_text(**more: Any) -> pa.Column:
    """Text that is missing where a trial was not started."""
    return pa.Column(str, nullable=True, **more)


def _count() -> pa.Column:
    """A whole number that is missing where nothing came of a trial, or where it is not known."""
    return pa.Column("Int64", pa.Check.ge(0), nullable=True)


def _measured() -> pa.Column:
    return pa.Column("float64", nullable=True)


def _is_exp(name: str, logged: str) -> pa.Check:
    def check(table: pd.DataFrame) -> bool:
        # A metric is infinite from 700 on, a little before a float ends.
        known = table[logged].to_numpy(float)
        with np.errstate(over="ignore"):
            expected = np.where(known >= 700, np.inf, np.exp(known))
        return bool(np.allclose(table[name].to_numpy(), expected, rtol=1e-9, atol=0, equal_nan=True))

    return pa.Check(check, error=f"{name} is exp({logged})")


def _only_finished_have_a_result(result: str) -> pa.Check:
    def check(table: pd.DataFrame) -> bool:
        # A trial that finished may have a test loss that is no number; it is then told apart by the analysis.
        return not (table["status"].isin(["FAILED", "INTERRUPTED", "UNFINISHED"]) & table[result].notna()).any()

    return pa.Check(check, error=f"a trial without an end has no {result}")
