"""What did not train to its end, and the best cell beside the baseline, in sentences."""

from __future__ import annotations

import math

import pandas as pd

from ablate.analyze.comparison import BASELINE, NOT_COMPARABLE
from ablate.analyze.families import BETTER, EQUIVALENT, ONE_SEED, WORSE, is_flattered
from ablate.metric import Metric
from ablate.report import told
from ablate.report.phrases import NAMED, Row, interval, label, listed, other_text


def of_divergence(ends: pd.DataFrame, components: pd.DataFrame) -> str:
    """Which models do not train: it comes before any difference between those that do (Lachin 1999).

    Args:
        ends: by cell, trials `asked` and `diverged`.
        components: as `component_effects` gives them, to name a cell by the part that it lacks.
    """
    lost = ends[ends["diverged"] > 0]
    if lost.empty:
        return ""
    removals = components[components["kind"] == "removal"] if len(components) else components
    lacking = {row["without"]: f"without {row['component']}" for row in removals.to_dict("records") if not row["at"]}
    which = [f"{lacking.get(cell, cell)}, {row['diverged']:.0f} of {row['asked']:.0f}" for cell, row in lost.iterrows()]
    more = f"; and of {len(which) - NAMED} cells more" if len(which) > NAMED else ""
    rest = "; of the other cells none" if len(lost) < len(ends) else ""
    return (
        f"Trials that diverged: {'; '.join(which[:NAMED])}{more}{rest}. That weighs more than any difference among "
        "those that are left, which all that follows is about."
    )


def of_cells(metric: Metric, comparison: pd.DataFrame, ends: pd.DataFrame, size: float | None) -> str:
    """The best cell, chosen by validation among those that diverge least, beside the baseline.

    `size`: the margin of what matters; None: nobody said so.
    """
    done = comparison[(comparison["n"] > 0) & (comparison["verdict"] != NOT_COMPARABLE)]
    if done.empty:
        done = comparison[comparison["n"] > 0]
    if done.empty:
        diverged, asked = int(ends["diverged"].sum()), int(ends["asked"].sum())
        return f"No trial has a result: {diverged} of {asked} diverged." if diverged else "No trial has finished yet."
    shares = (ends["diverged"] / ends["asked"]).reindex(done["cell"]).to_numpy()
    steady = done[shares == shares.min()]
    by = "valid_mean" if steady["valid_mean"].notna().all() else "test_mean"
    best: Row = steady.sort_values(by, ascending=metric.better == "lower", kind="stable").iloc[0].to_dict()
    base: Row = comparison[comparison["verdict"] == BASELINE].iloc[0].to_dict()
    value = told.value(metric, best["test_mean"])
    if len(done) == 1:
        return f"{best['cell']} reaches a test {metric.name} of {value} (n = {best['n']})."
    split = "valid" if by == "valid_mean" else "test"
    alike = steady.loc[steady[by] == best[by], "cell"].tolist()
    asides = ["of the cells that diverge least"] if len(steady) < len(done) else []
    asides += [f"like {listed(alike[1:])}"] if alike[1:] else []
    among = f", {', '.join(asides)}," if asides else ""
    most = f"{best['cell']} has{among} the {told.best(metric)} {split} {metric.name}"
    if best["cell"] == base["cell"] or math.isnan(float(best["effect"])):
        return f"{most}, and a test {metric.name} of {value} (n = {best['n']})."
    role = "the first row" if base["cell"] == comparison["cell"].iloc[0] else "the baseline"
    beside = _beside(metric, best, f"{base['cell']}, {role}", size)
    return f"{most}, and a test {metric.name} of {value}: {beside}."


def _beside(metric: Metric, best: Row, other: str, size: float | None) -> str:
    """How the chosen row stands beside the baseline, which its own seeds need not confirm."""
    paired = best["difference_kind"] == "paired"
    seeds = f"{best['pairs']} seeds" if paired else "no seed in common"
    where = {"lower": "below", "higher": "above"}[told.direction(metric, best["effect"])]
    apart = f"{told.size(metric, best['effect'])} {where} {other}"
    sure = interval(metric, best["low"], best["high"], seeds + label(best))
    if best["verdict"] == BETTER:
        return apart + sure + _lost(best, other) + other_text(metric, best, size)
    if best["verdict"] == WORSE:
        return f"but it is {apart}{sure}{_lost(best, other)}{other_text(metric, best, size)}"
    if best["verdict"] == EQUIVALENT:
        return f"as good as equal to {other}{sure}{other_text(metric, best, size)}"
    if best["verdict"] == ONE_SEED:
        return f"{apart}; with one seed this may be chance"
    if is_flattered(best):
        left = f"among the trials that are left{_lost(best, other)}"
        return f"{told.change(metric, best['effect'])} beside {other}, {left}"
    which = seeds if paired else "these seeds"
    return f"{told.change(metric, best['effect'])} beside {other}, which {which} cannot tell from chance"


def _lost(best: Row, other: str) -> str:
    found = best["diverged"]
    lost = [
        f"{k} of {n} trials of {whose}"
        for k, n, whose in ((found.with_, found.of_with, best["cell"]), (found.without, found.of_without, other))
        if k
    ]
    return f"; {listed(lost)} diverged" if lost else ""
