"""The comparison: one row a cell, each beside a baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablate.analyze.contrast import between
from ablate.analyze.evidence import Evidence, estimate
from ablate.analyze.families import judge_alone
from ablate.analyze.power import seeds_for_half
from ablate.analyze.table import cells_of, finished, started, without_finite_score
from ablate.knobs import KnobError
from ablate.metric import Metric
from ablate.registry import suggest

_COMPARED = ["cell", "seed", "status", "reason", "parameters", "seen", "train_seconds"]
_MOST_NAMED = 20
BASELINE, NOT_COMPARABLE = "baseline", "not comparable"


@dataclass(frozen=True)
class Missing:
    """A trial without a result. `status` is FINISHED where its test score is no finite number."""

    seed: int
    status: str
    reason: str


def compare(evidence: Evidence, baseline: str | None = None) -> pd.DataFrame:
    """Summarise a study.

    Args:
        baseline: label of the cell that the others are compared with; None: the first.

    Returns:
        One row a cell, in the order of the study: `cell`, `parameters`, `seen`, `train_seconds` (mean; NaN: not known),
        `n` (finished trials), `valid_mean`, `valid_sd`, `test_mean`, `test_sd` (of the metric; sd over seeds, NaN with
        one), `missing` (a tuple of `Missing`: what has no result, and why), what `estimate` knows of its difference to
        the baseline (its `n` as `pairs`, 0 where it is unpaired), `seeds_for_half` (the pairs that show half of it),
        and what `judge` adds, with this table as a family of its own. `verdict` is also "baseline", and "not
        comparable" (evaluated on other data than the baseline: no difference is given).

    Raises:
        KnobError: when there is no cell `baseline`.
    """
    return told_apart(judge_alone("comparison", rows_of_cells(evidence, baseline)))


def rows_of_cells(evidence: Evidence, baseline: str | None = None) -> pd.DataFrame:
    """`compare` without verdicts, with the column `stands`: "" where a row is compared, else what it is instead.

    A row that is compared with nothing has an empty contrast.
    """
    first = baseline_of(evidence.trials, baseline)
    metric, trials = evidence.metric, evidence.trials
    results = [f"test_{metric.recorded}", f"valid_{metric.name}", f"test_{metric.name}"]
    needed = trials[list(dict.fromkeys([*_COMPARED, *results]))]  # a hundred knobs would make it slow
    by_cell = dict(iter(needed.groupby("cell", sort=False)))
    alike = set(comparable(trials, first))
    rows = [_row(evidence, by_cell[cell], first if cell in alike else cell) for cell in evidence.cells]
    stands = [BASELINE if cell == first else "" if cell in alike else NOT_COMPARABLE for cell in evidence.cells]
    return pd.DataFrame(rows).assign(stands=stands)


def told_apart(judged: pd.DataFrame) -> pd.DataFrame:
    """Rows with their verdicts, of which the baseline and what cannot be compared with it have one of their own."""
    stands = judged["stands"]
    is_base = (stands == BASELINE) & (judged["n"] > 0)
    return judged.assign(
        verdict=judged["verdict"].where(stands == "", stands),
        family=judged["family"].where(stands == "", ""),
        effect=judged["effect"].mask(is_base, 0.0),
    ).drop(columns="stands")


def baseline_of(trials: pd.DataFrame, baseline: str | None) -> str:
    """The cell that others are compared with: the first, where none is named.

    Raises:
        KnobError: when there is no cell of that name.
    """
    cells = cells_of(trials)
    first = cells[0] if baseline is None else baseline
    if first not in cells:
        named = ", ".join(cells[:_MOST_NAMED]) + (" …" if len(cells) > _MOST_NAMED else "")
        raise KnobError(f"baseline {first}: the study has no such cell{suggest(first, cells)}; it has {named}")
    return first


def other_spreads(metric: Metric, metrics: Sequence[Metric], trials: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds of the test results in these metrics.

    Args:
        metric: the one that cells are compared by, which says which trials have a result.

    Returns:
        Indexed by cell: `test_<name>_mean` and `test_<name>_sd` for each of `metrics`; NaN as in `compare`.
    """
    by_cell = dict(iter(finished(metric, trials).groupby("cell", sort=False)))
    rows = {}
    for cell in cells_of(trials):
        done = by_cell.get(cell, trials.iloc[:0])
        spreads = {other.name: _spread(other, "test", done) for other in metrics}
        rows[cell] = {
            f"test_{name}_{what}": found[f"test_{what}"] for name, found in spreads.items() for what in ("mean", "sd")
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def comparable(trials: pd.DataFrame, baseline: str) -> list[str]:
    """The cells whose trials are evaluated on what the baseline's are, in the study's order; what never started counts
    too."""
    known = started(trials)
    known = known[known["evaluated"].notna()].drop_duplicates(["cell", "evaluated"])
    evaluated = dict(known.groupby("cell")["evaluated"].agg(frozenset))
    mine = evaluated.get(baseline)
    return [cell for cell in cells_of(trials) if mine is None or evaluated.get(cell, mine) == mine]


def _row(evidence: Evidence, of_cell: pd.DataFrame, other: str) -> dict[str, object]:
    cell, done = str(of_cell["cell"].iloc[0]), finished(evidence.metric, of_cell)
    found = estimate(between(cell, other), evidence)
    n = found.pop("n")
    pairs = n if found["difference_kind"] == "paired" else 0
    return {
        "cell": cell,
        "parameters": of_cell["parameters"].dropna().head(1).max(),  # a seed that never started has none on record
        "seen": done["seen"].astype(float).mean(),
        "train_seconds": done["train_seconds"].astype(float).mean(),
        "n": len(done),
        **_spread(evidence.metric, "valid", done),
        **_spread(evidence.metric, "test", done),
        "missing": tuple(_missing(evidence.metric, of_cell)),
        "pairs": pairs,
        **found,
        "seeds_for_half": seeds_for_half(pairs),
    }


def _spread(metric: Metric, split: str, done: pd.DataFrame) -> dict[str, float]:
    values = done[f"{split}_{metric.name}"].astype(float)
    if np.isinf(values).any():  # an absurd loss: a mean would be one, and a spread is none
        return {f"{split}_mean": float("inf"), f"{split}_sd": float("nan")}
    return {f"{split}_mean": values.mean(), f"{split}_sd": values.std(ddof=1)}


def _missing(metric: Metric, of_cell: pd.DataFrame) -> Iterator[Missing]:
    for seed, status, reason in zip(of_cell["seed"], of_cell["status"], of_cell["reason"], strict=True):
        if status != "FINISHED":
            yield Missing(int(seed), str(status), str(reason))
    for seed in without_finite_score(metric, of_cell)["seed"]:
        yield Missing(int(seed), "FINISHED", "")
