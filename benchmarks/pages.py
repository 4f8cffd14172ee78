"""Whether pages keep their word: claims on pages of studies without any effect, and on real trials drawn again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd

from ablate.analyze.evidence import p_equivalent
from ablate.analyze.families import EQUIVALENT, EXPLORATORY, PRIMARY, is_claim
from ablate.analyze.paired import LEVEL, Array, holm, paired, t_interval
from ablate.analyze.study import verdicts
from ablate.analyze.table import score_table
from ablate.metric import Metric
from ablate.track.read import Results
from ablate.track.tables import blocks_table
from benchmarks.common import Table

_METRIC = Metric("perplexity", scale="log", logged="nll")
_TASK = {"name": "made", "step": "window", "unit": "tokens", "budget": []}
_SD, _SHARED = 0.01, 0.005  # nats: of a trial, and of what all cells share by their seed (a correlation of 0.25)
_MARGIN = math.log(1.01)
_DRAWN, _POPULATIONS = 2000, 200
_PARTS = ("a", "b", "c", "d", "e")

Cell = Mapping[str, str | bool]  # factor → level, component → whether it is on


def _grid(*levels: int) -> dict[str, Cell]:
    names = "xyz"[: len(levels)]
    cells = product(*(range(n) for n in levels))
    return {str(cell): {f"factor.{k}": str(v) for k, v in zip(names, cell, strict=True)} for cell in cells}


def _without(parts: Sequence[str]) -> dict[str, Cell]:
    lacking = ["", *parts]
    return {
        f"without {one}": {f"component.{part}": part != one for part in parts}
        | {f"factor.{part}": "off" if part == one else "on" for part in parts}
        for one in lacking
    }


_DESIGNS: dict[str, tuple[dict[str, Cell], dict[str, object]]] = {
    "3 × 2 grid": (_grid(3, 2), {"kind": "grid", "components": []}),
    "six cells of one factor": (_grid(6), {"kind": "grid", "components": []}),
    "leave one out of five parts": (_without(_PARTS), {"kind": "leave_one_out", "components": list(_PARTS)}),
}


def pages(count: int = 2000, seeds: int = 5) -> Table:
    """Share of pages, of studies in which nothing has an effect, that claim something."""
    rows = []
    for name in _DESIGNS:
        with ProcessPoolExecutor(2) as pool:
            found = np.array(list(pool.map(_claims, [name] * count, range(count), [seeds] * count, chunksize=50)))
        primary, exploratory, each = found.mean(axis=0)
        rows.append([name, f"{100 * primary:.1f}", f"{100 * exploratory:.1f}", f"{100 * each:.1f}"])
    return Table(
        title="Claims on pages of studies in which nothing has an effect",
        command="python -m benchmarks pages",
        headings=["design", "primary family", "exploratory", "any p < 0.05, uncorrected"],
        rows=rows,
        note=f"Per cent of {count:,} made-up studies of {seeds} seeds with bell-shaped noise (a correlation of 0.25 "
        "within seeds), judged by the functions that a page is made with. The first column is what a page answers for: "
        "at most 5. The second is marked as exploratory on the page and corrected among itself. The simulation's own "
        "error is about 1 percentage point (two standard errors).",
    )


def _claims(name: str, number: int, seeds: int) -> tuple[bool, bool, bool]:
    cells, design = _DESIGNS[name]
    rng = np.random.default_rng([number, seeds])
    shared = _SHARED * rng.normal(size=seeds)
    nll = {cell: 4 + shared + math.sqrt(_SD**2 - _SHARED**2) * rng.normal(size=seeds) for cell in cells}
    tables = verdicts(made(cells, nll, design)).tables
    rows = [
        (row["family"], is_claim(row["verdict"]) and row["verdict"] != EQUIVALENT, row["p"] < 1 - LEVEL)
        for table in tables.values()
        for row in table[["family", "verdict", "p"]].to_dict("records")
    ]
    claimed = {which: any(claim for family, claim, _ in rows if family == which) for which in (PRIMARY, EXPLORATORY)}
    return claimed[PRIMARY], claimed[EXPLORATORY], any(is_small for _, _, is_small in rows)


def made(cells: Mapping[str, Cell], nll: Mapping[str, Array], design: Mapping[str, object]) -> Results:
    """Results that nobody trained. nll: cell → test_nll by seed."""
    trials = pd.DataFrame([
        {
            "cell": cell, "seed": seed, "status": "FINISHED", "reason": "", "parameters": 100, "seen": 50,
            "train_seconds": 1.0, "data": "made", "evaluated": "d", "test_nll": value, "valid_nll": value,
            "test_perplexity": math.exp(value), "valid_perplexity": math.exp(value), **levels,
        }
        for cell, levels in cells.items()
        for seed, value in enumerate(nll[cell].tolist())
    ])  # fmt: skip
    whole = {"left_out": [], **design}
    return Results("made", "", "", whole, [_METRIC], _TASK, trials, pd.DataFrame(), blocks_table([]), {})


def equivalence(studies: int = 2000) -> Table:
    """How often two are called equivalent that differ by just the margin, and that do not differ."""
    rows = []
    for sd in (0.0025, 0.005, 0.01):
        for n in (3, 5, 10, 20):
            rng = np.random.default_rng([n, round(1e4 * sd)])
            noise = sd * rng.normal(size=(studies, n))
            called = [_called_equivalent(noise + apart) for apart in (_MARGIN, _MARGIN / 2, 0.0)]
            rows.append([f"{100 * sd:.2f} %", n, *(f"{100 * share:.1f}" for share in called)])
    return Table(
        title="Two that are called as good as equal",
        command="python -m benchmarks equivalence",
        headings=["sd of a difference", "seeds", "differ by 1 %", "by 0.5 %", "do not differ"],
        rows=rows,
        note=f"Per cent of {studies:,} simulated differences that are called equivalent at worth=1%: falsely in the "
        "third column, which is to be 5 at most (the simulation's own error is about 1 point), rightly in the others.",
    )


def _called_equivalent(delta: Array) -> float:
    return float(np.mean([p_equivalent(paired(one), _MARGIN) < 1 - LEVEL for one in delta]))


def real(runs: Path, draws: int = _DRAWN) -> Table:
    """Coverage on real trials: studies of few seeds drawn from the many of one that was trained.

    Args:
        runs: a folder of journals whose newest study has many seeds.
    """
    from ablate.track.folder import Folder
    from ablate.track.read import read_study

    results = read_study(Folder(str(runs)))
    metric = results.metrics[0]
    scores = score_table(metric, results.trials).dropna()
    correlation = scores.corr().to_numpy()[np.triu_indices(scores.shape[1], 1)]
    rows = [_row(scores.to_numpy(float), n, draws) for n in (3, 5, 10)]
    return Table(
        title="The same on real trials",
        command="python -m benchmarks real --runs PATH",
        headings=[
            "seeds", "95 % intervals that hold the truth", "of normal numbers", "false findings, Holm",
            "of normal numbers",
        ],
        rows=rows,
        note=f"The study: `{results.command}`, {len(scores)} seeds of {scores.shape[1]} cells, whose correlations "
        f"within seeds are {correlation.min():.2f} to {correlation.max():.2f}. {draws:,} studies of fewer seeds are "
        "drawn from these (with replacement), and the truth is the difference of two cells over all of them. False "
        "findings: every cell is moved to the mean of the first, so that nothing has an effect, and each is compared "
        f"with the first. Of normal numbers: {_POPULATIONS} times as many normal numbers as there are trials, with "
        "their means and covariances, are drawn from in the same way; the median, and in brackets where 95 % of them "
        "lie.",
    )  # fmt: skip


def _row(scores: Array, n: int, draws: int) -> list[object]:
    """scores: [seeds, cells]."""
    rng = np.random.default_rng(n)
    shape = scores.mean(axis=0), np.cov(scores.T), len(scores)
    normal = [_drawn(rng.multivariate_normal(*shape), n, draws, rng) for _ in range(_POPULATIONS)]
    held, false = _drawn(scores, n, draws, rng)
    among_held, among_false = (_median_and_range(values) for values in zip(*normal, strict=True))
    return [n, f"{held:.1f}", among_held, f"{false:.1f}", among_false]


def _median_and_range(values: Sequence[float]) -> str:
    low, median, high = np.percentile(values, [2.5, 50, 97.5])
    return f"{median:.1f} ({low:.1f}–{high:.1f})"


def _drawn(scores: Array, n: int, draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """Per cent of the intervals of studies of n seeds that hold the truth, and of studies that find what is not."""
    chosen = scores[rng.integers(len(scores), size=(draws, n))]  # [draws, n, cells]
    truth = scores.mean(axis=0)
    held = []
    for a, b in combinations(range(scores.shape[1]), 2):
        low, high, _ = t_interval(chosen[..., b] - chosen[..., a])
        held.append((low <= truth[b] - truth[a]) & (truth[b] - truth[a] <= high))
    centred = chosen - truth
    p = np.stack([t_interval(centred[..., b] - centred[..., 0])[2] for b in range(1, scores.shape[1])], axis=-1)
    false = [(holm(row) < 1 - LEVEL).any() for row in p]
    return 100 * float(np.mean(held)), 100 * float(np.mean(false))
