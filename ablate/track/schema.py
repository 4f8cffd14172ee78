"""The two tables of a study: their columns, in order, with their types and what must hold of them.

Imported late: pandera is needed where results are read, and nowhere else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

STATUSES = ("FINISHED", "DIVERGED", "FAILED", "INTERRUPTED", "UNFINISHED")
# What a trial ran on; a fact that is not among them has a column `fact.<name>`.
FACTS = (
    "data", "data_digest", "code", "git_commit", "git_dirty", "torch", "python", "platform", "device", "threads",
    "precision",
)  # fmt: skip


def _text() -> pa.Column:
    return pa.Column(str)


def _known_text(**more: Any) -> pa.Column:
    """Text that is missing where a trial was not started."""
    return pa.Column(str, nullable=True, **more)


def _count() -> pa.Column:
    """A whole number that is missing where nothing came of a trial."""
    return pa.Column("Int64", pa.Check.ge(0), nullable=True)


def _measured() -> pa.Column:
    return pa.Column("float64", nullable=True)


def _is_exp(perplexity: str, nll: str) -> pa.Check:
    def check(table: pd.DataFrame) -> bool:
        with np.errstate(over="ignore"):
            expected = np.exp(table[nll].to_numpy())
        # units.perplexity is infinite from 700 nats on, a little before a float ends.
        expected[expected > np.exp(700.0)] = np.inf
        return bool(np.allclose(table[perplexity].to_numpy(), expected, rtol=1e-9, atol=0, equal_nan=True))

    return pa.Check(check, error=f"{perplexity} is exp({nll})")


def _only_finished_have_a_result(table: pd.DataFrame) -> bool:
    # A trial that finished may have a test loss that is no number; it is then told apart by the analysis.
    return not (table["status"].isin(["FAILED", "INTERRUPTED", "UNFINISHED"]) & table["test_nll"].notna()).any()


TRIALS = pa.DataFrameSchema(
    {
        "cell": _text(),
        "seed": pa.Column("int64", pa.Check.ge(0)),
        "status": pa.Column(str, pa.Check.isin(STATUSES)),
        "reason": _text(),
        "log": _text(),
        "fingerprint": _text(),
        "parameters": _count(),
        "vocabulary_size": _count(),
        "floor_nll": _measured(),
        "windows": _count(),
        "tokens": _count(),
        "seconds": _measured(),
        "train_seconds": _measured(),
        "best_window": _count(),
        "first_nll": _measured(),
        "clipped": _measured(),
        "best_valid_nll": _measured(),
        "valid_nll": _measured(),
        "test_nll": _measured(),
        "valid_perplexity": _measured(),
        "test_perplexity": _measured(),
        **{name: _known_text() for name in FACTS},
        r"^fact\..+": _known_text(regex=True, required=False),
        r"^factor\..+": _known_text(regex=True, required=False),
        # bool; where studies that declare different components are read as one, nullable.
        r"^component\..+": pa.Column(
            None,
            pa.Check(lambda column: column.dtype in ("bool", "boolean"), error="true or false"),
            regex=True,
            nullable=True,
            required=False,
        ),
        # Values as they were recorded: None, true, 2, 0.5, "lstm".
        r"^knob\..+": pa.Column(object, regex=True, nullable=True, required=False),
    },
    checks=[
        _is_exp("valid_perplexity", "valid_nll"),
        _is_exp("test_perplexity", "test_nll"),
        pa.Check(_only_finished_have_a_result, error="a trial without an end has no test_nll"),
    ],
    unique=["cell", "seed"],
    strict=True,
    ordered=True,
    name="trials",
)

CURVES = pa.DataFrameSchema(
    {
        "cell": _text(),
        "seed": pa.Column("int64", pa.Check.ge(0)),
        "split": pa.Column(str, pa.Check.isin(["train", "valid"])),
        "step": pa.Column("int64", pa.Check.ge(0)),
        "tokens": pa.Column("int64", pa.Check.ge(0)),
        "seconds": pa.Column("float64"),
        "nll": _measured(),
        "perplexity": _measured(),
    },
    checks=[_is_exp("perplexity", "nll")],
    strict=True,
    ordered=True,
    name="curves",
)
