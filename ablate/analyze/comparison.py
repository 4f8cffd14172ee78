"""The comparison: one row a cell, each beside a baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from ablate.analyze import paired as pairs
from ablate.analyze.paired import Difference
from ablate.analyze.power import detectable, seeds_for_half
from ablate.analyze.table import cells_of, finished, judge, score_table, started, without_finite_score
from ablate.knobs import KnobError
from ablate.metric import Metric
from ablate.registry import suggest

_COMPARED = ["cell", "seed", "status", "reason", "parameters", "seen", "train_seconds"]
_MOST_NAMED = 20


@dataclass(frozen=True)
class Missing:
    """A trial without a result. `status` is FINISHED where its test score is no finite number."""

    seed: int
    status: str
    reason: str


def compare(metric: Metric, trials: pd.DataFrame, baseline: str | None = None) -> pd.DataFrame:
    """Summarise a study.

    Args:
        metric: whose scores are compared.
        trials: one row a trial, as `read_study` gives it.
        baseline: label of the cell that the others are compared with; None: the first.

    Returns:
        One row a cell, in the order of the study: `cell`, `parameters`, `seen`, `train_seconds` (mean; NaN: not known),
        `n` (finished trials), `valid_mean`, `valid_sd`, `test_mean`, `test_sd` (of the metric; sd over seeds, NaN with
        one), `effect` (difference of its test score to the baseline's: below 0 it is better), `low`, `high` (its 95 %
        interval, not corrected for the number of rows), `pairs` (seeds that both finished), `missing` (a tuple of
        `Missing`: what has no result, and why), and

        - `difference_kind`: "paired"; "unpaired" (no seed in common: Welch's t); "" (nothing to compare).
        - `p`, `p_sign_flip`: two-sided, as in `Difference`; `p_holm`: `p` corrected for all rows (Holm).
        - `better`, `better_low`, `better_high`: probability that a new pair of seeds favours this row, and its 95 %
          interval.
        - `sd`: standard deviation of the differences; `deltas`: these themselves, one a seed.
        - `detectable`: the smallest difference of scores that so many pairs show with a power of 80 %;
          `seeds_for_half`: the pairs that show half of it. NaN without pairs.
        - `verdict`: "baseline"; "better" or "worse" (p_holm < 0.05); "not distinguishable"; "one seed"; "no result";
          "not comparable" (evaluated on other data than the baseline: no difference is given).

    Raises:
        KnobError: when there is no cell `baseline`.
    """
    cells = cells_of(trials)
    first = cells[0] if baseline is None else baseline
    if first not in cells:
        named = ", ".join(cells[:_MOST_NAMED]) + (" …" if len(cells) > _MOST_NAMED else "")
        raise KnobError(f"baseline {first}: the study has no such cell{suggest(first, cells)}; it has {named}")
    scores = score_table(metric, trials)
    results = [f"test_{metric.recorded}", f"valid_{metric.name}", f"test_{metric.name}"]
    needed = trials[list(dict.fromkeys([*_COMPARED, *results]))]  # a hundred knobs would make it slow
    by_cell = dict(iter(needed.groupby("cell", sort=False)))
    same = set(comparable(trials, first))
    alike = {cell: cell in same for cell in cells}
    rows = pd.DataFrame([_row(metric, by_cell[cell], scores, first, alike[cell]) for cell in cells])
    judged = judge(rows, "better", "worse")
    judged.loc[~judged["cell"].map(alike).astype(bool), "verdict"] = "not comparable"
    judged.loc[judged["cell"] == first, "verdict"] = "baseline"
    return judged


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


def difference_between(scores: pd.DataFrame, cell: str, base: str) -> tuple[Difference, str, int]:
    """What is known of `cell` against `base`.

    Args:
        scores: shape [seeds, cells], as `score_table` gives it.

    Returns:
        (difference, kind, pairs): "paired" over the seeds that both have; "unpaired" where both have seeds and none in
        common; "" where one has none.
    """
    a, b = scores[cell].dropna(), scores[base].dropna()
    both = a.index.intersection(b.index)
    if len(both):
        return pairs.paired((a[both] - b[both]).to_numpy(float)), "paired", len(both)
    if len(a) and len(b):
        return pairs.unpaired(a.to_numpy(float), b.to_numpy(float)), "unpaired", 0
    return Difference(0), "", 0


def comparable(trials: pd.DataFrame, baseline: str) -> list[str]:
    """The cells that are evaluated on what the baseline is, in the study's order; what never started counts too."""
    known = started(trials)
    known = known[known["evaluated"].notna()].drop_duplicates("cell")
    evaluated = dict(zip(known["cell"], known["evaluated"], strict=True))
    mine = evaluated.get(baseline)
    return [cell for cell in cells_of(trials) if mine is None or evaluated.get(cell, mine) == mine]


def _row(metric: Metric, of_cell: pd.DataFrame, scores: pd.DataFrame, baseline: str, alike: bool) -> dict[str, object]:
    cell, done = str(of_cell["cell"].iloc[0]), finished(metric, of_cell)
    found, kind, both = difference_between(scores, cell, baseline) if alike else (Difference(0), "", 0)
    if cell == baseline:  # it is no comparison: nothing is tested, and no test is counted
        found, kind = Difference(found.n, mean=found.mean), ""
    known = asdict(found)
    spread = found.sd if kind == "paired" else float("nan")
    return {
        "cell": cell,
        "parameters": of_cell["parameters"].dropna().head(1).max(),  # a seed that never started has none on record
        "seen": done["seen"].astype(float).mean(),
        "train_seconds": done["train_seconds"].astype(float).mean(),
        "n": len(done),
        **_spread(metric, "valid", done),
        **_spread(metric, "test", done),
        "effect": found.mean,
        "low": found.low,
        "high": found.high,
        "pairs": both,
        "missing": tuple(_missing(metric, of_cell)),
        "difference_kind": kind,
        **{name: known[name] for name in ("p", "p_sign_flip", "better", "better_low", "better_high")},
        "sd": found.sd,
        "deltas": found.deltas,
        "detectable": detectable(spread, found.n),
        "seeds_for_half": seeds_for_half(found.n) if kind == "paired" else float("nan"),
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
