"""The comparison table: one row a cell, each beside the first."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
# Knobs that a reader need not see: they name presets, or have no bearing on a result.
_NOT_CONFOUNDS = {
    "model",
    "recipe",
    "name",
    "runs",
    "reports",
    "force",
    "seed",
    "seeds",
    "sample_words",
    "threads",
    "device",
}


def compare(trials: pd.DataFrame) -> pd.DataFrame:
    """Summarise a study.

    Args:
        trials: one row a trial, as `read_study` gives it.

    Returns:
        One row a cell, in the order of the study: `cell`, `parameters`, `tokens`, `train_seconds` (mean), `n`
        (finished trials), `valid_mean`, `valid_sd`, `test_mean`, `test_sd` (perplexity; sd over seeds, NaN with one),
        `difference` (of test perplexity to the first row, as a ratio minus 1), `difference_low`, `difference_high`
        (its 95 % interval), `pairs` (seeds that both rows finished) and `missing` (what did not finish, and why).
    """
    cells = list(dict.fromkeys(trials["cell"]))
    first = _finished(trials, cells[0])
    return pd.DataFrame([_row(trials, cell, first) for cell in cells])


def paired_difference(test_nll: NDArray[np.float64], base_nll: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean difference of paired cross-entropies as a ratio of perplexities minus 1, with its 95 % t interval.

    Args:
        test_nll, base_nll: nats a token, shape [pairs], the same seed at the same place.

    Returns:
        (difference, low, high); low and high are NaN with fewer than two pairs, all three with none. The interval is
        Student's for the mean of the differences in log-perplexity (paired t), then exponentiated.
    """
    delta = test_nll - base_nll
    if delta.size == 0:
        return (float("nan"),) * 3
    mean = float(delta.mean())
    half = float("nan")
    if delta.size > 1:
        half = float(stats.t.ppf((1 + LEVEL) / 2, delta.size - 1) * delta.std(ddof=1) / np.sqrt(delta.size))
    with np.errstate(over="ignore"):  # an absurd perplexity is infinite
        difference, low, high = np.expm1([mean, mean - half, mean + half])
    return float(difference), float(low), float(high)


def confounds(trials: pd.DataFrame) -> pd.DataFrame:
    """What differs between the cells: one row a knob or fact with more than one value, one column a cell.

    The column `factor` says whether the study varied it on purpose; where it is False, the row is a confound.
    """
    # A cell that has not started has no settings on record yet.
    by_cell = trials[trials["parameters"].notna()].drop_duplicates("cell").set_index("cell")
    columns = [str(column) for column in by_cell.columns]
    candidates = [c for c in columns if c.startswith("knob.") and c[5:] not in _NOT_CONFOUNDS]
    candidates += [
        c for c in ("parameters", "vocabulary_size", "tokens", "data_digest", "code", "device") if c in columns
    ]
    presets = {"knob.rnn", "knob.depth", "knob.dropout", "knob.tie"} if "factor.model" in columns else set()
    rows = {}
    for column in candidates:
        values = by_cell[column].map(_shown)
        if values.nunique() > 1:
            name = column.removeprefix("knob.")
            rows[name] = {"factor": f"factor.{name}" in columns or column in presets, **values.to_dict()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["factor", *by_cell.index])


def warnings_for(trials: pd.DataFrame) -> list[str]:
    """What a reader of the comparison has to know before believing it, a sentence each."""
    said = []
    finished = trials[trials["status"] == "FINISHED"]
    counts = finished.groupby("cell").size()
    if len(counts) and counts.max() == 1:
        said.append(
            "Every row is a single run (n = 1): how far seeds alone move these numbers was not measured. "
            "Add seeds=5 to the command to know."
        )
    elif counts.nunique() > 1 or len(counts) < trials["cell"].nunique():
        said.append("The rows do not all have the same number of finished runs.")
    if finished["data_digest"].nunique() > 1 if "data_digest" in finished else False:
        vocabularies = finished["vocabulary_size"].nunique()
        if vocabularies > 1 or _evaluated_apart(finished):
            said.append(
                "The rows were not evaluated on the same text with the same vocabulary: their perplexities measure "
                "different things and must not be compared."
            )
    differing = confounds(finished)
    unplanned = [str(name) for name in differing.index[~differing["factor"].astype(bool)]]
    settings = [n for n in unplanned if n not in ("parameters", "tokens", "data_digest", "vocabulary_size")]
    if settings:
        said.append(
            f"The rows differ in more than the factors of the study: {', '.join(settings)}. "
            "A difference between two rows cannot be put down to one part alone."
        )
    return said


def _evaluated_apart(finished: pd.DataFrame) -> bool:
    """Whether rows differ in data by more than how much of train they saw."""
    return finished.groupby(finished["knob.train_tokens"].map(_shown))["data_digest"].nunique().max() > 1 or (
        finished["knob.data.name"].nunique() > 1
    )


def _finished(trials: pd.DataFrame, cell: str) -> pd.DataFrame:
    of_cell = trials[(trials["cell"] == cell) & (trials["status"] == "FINISHED")]
    return of_cell.set_index("seed")


def _row(trials: pd.DataFrame, cell: str, first: pd.DataFrame) -> dict[str, object]:
    finished = _finished(trials, cell)
    seeds = finished.index.intersection(first.index)
    difference, low, high = paired_difference(
        finished.loc[seeds, "test_nll"].to_numpy(float), first.loc[seeds, "test_nll"].to_numpy(float)
    )
    of_cell = trials[trials["cell"] == cell]
    return {
        "cell": cell,
        "parameters": of_cell["parameters"].iloc[0],
        "tokens": finished["tokens"].mean(),
        "train_seconds": finished["train_seconds"].mean(),
        "n": len(finished),
        "valid_mean": finished["valid_perplexity"].mean(),
        "valid_sd": finished["valid_perplexity"].std(ddof=1),
        "test_mean": finished["test_perplexity"].mean(),
        "test_sd": finished["test_perplexity"].std(ddof=1),
        "difference": difference,
        "difference_low": low,
        "difference_high": high,
        "pairs": len(seeds),
        "missing": "; ".join(_missing(of_cell[of_cell["status"] != "FINISHED"])),
    }


def _missing(unfinished: pd.DataFrame) -> list[str]:
    return [
        f"seed {row['seed']} {row['status'].lower()}" + (f" ({row['reason']})" if row["reason"] else "")
        for row in unfinished.to_dict("records")
    ]


def _shown(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:g}"
    return str(value)
