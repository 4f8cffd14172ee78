"""Every trial as a point: the comparison, and what a better result costs in parameters and time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ablate.analyze.pareto import front
from ablate.analyze.table import finished as with_result
from ablate.metric import Metric
from ablate.report import told
from ablate.report.figures.hover import Marks
from ablate.report.figures.style import (
    SOFT,
    TEXT,
    Drawn,
    Look,
    counted,
    elide,
    label,
    metric_axis,
    numbers,
    save,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_ROWS_SHOWN = 40
_SEED, _MEAN = 4, 9  # points
_COSTS = {"parameters": "trained parameters", "train_seconds": "seconds of training a seed"}
_BY_TIME = "By time, as measured with whatever else the machine was doing"
_NAMED = 12  # more names than that lie on top of each other


def draw_comparison(
    metric: Metric, trials: pd.DataFrame, comparison: pd.DataFrame, look: Look, folder: Path
) -> Drawn | None:
    """The test metric of every finished trial, one row a cell: a dot a seed, a bar at the mean."""
    import matplotlib.pyplot as plt

    finished = with_result(metric, trials)
    if finished.empty:
        return None
    rows = _best(metric, comparison, _ROWS_SHOWN)
    values = finished[f"test_{metric.name}"].astype(float)
    wide = metric.scale == "log" and values.max() / values.min() > 3
    with styled():
        figure, axis = plt.subplots(figsize=(8, 1.2 + 0.42 * len(rows)))
        marks = []
        for place, row in enumerate(rows.to_dict("records")):
            seeds = values[finished["cell"] == row["cell"]]
            # Where the largest is many times the smallest, equal factors are equal lengths.
            axis.plot(seeds, [place] * len(seeds), "o", ms=7, alpha=0.75, color=look.colours[row["cell"]], mew=0)
            text = "no result"
            if len(seeds):
                axis.plot([row["test_mean"]] * 2, [place - 0.32, place + 0.32], color=TEXT, lw=1.6)
                text = told.value(metric, row["test_mean"])
                says = [*_by_seed(metric, finished.loc[seeds.index]), f"mean {text} (n = {row['n']})"]
                marks.append(Marks(axis, row["cell"], [*seeds, row["test_mean"]], [place] * len(says), says))
            axis.text(1.02, place, text, va="center", transform=axis.get_yaxis_transform())
        base = rows.loc[rows["verdict"] == "baseline", "test_mean"]
        if base.notna().any():
            axis.axvline(base.iloc[0], color=SOFT, lw=1, ls=":", zorder=0)
        if wide:
            metric_axis(metric, axis, "x", values)
        else:
            axis.xaxis.set_major_formatter(numbers())
        axis.text(1.02, 1.0, "mean", transform=axis.transAxes, va="bottom", color=SOFT)
        axis.set(xlabel=label(metric) + (", logarithmic" if wide else ""), ylim=(len(rows) - 0.5, -0.5))
        axis.set_yticks(range(len(rows)), [f"{elide(r['cell'])}  (n = {r['n']})" for r in rows.to_dict("records")])
        axis.grid(visible=False, axis="y")
        caption = (
            f"Test {metric.name}: a dot is one seed, the bar the mean of a cell, the dotted line that of the baseline."
            + counted(len(rows), len(comparison), "cells", f"with the {told.best(metric)} mean")
        )
        return save(figure, folder, "comparison", "Every result", caption.strip(), marks)


def draw_cost(metric: Metric, trials: pd.DataFrame, comparison: pd.DataFrame, look: Look, folder: Path) -> Drawn | None:
    """The test metric against parameters and against time, with the cells that none beats in both."""
    import matplotlib.pyplot as plt

    comparable = comparison["verdict"] != "not comparable"
    done = comparison[(comparison["n"] > 0) & comparable]
    costs = {cost: title for cost, title in _COSTS.items() if done[cost].notna().all()}
    if len(done) < 2 or not costs:
        return None
    finished = with_result(metric, trials)
    with styled():
        width = 1 + 5 * len(costs)
        figure, (axes,) = plt.subplots(
            1, len(costs), figsize=(width, 4.6), sharey=True, squeeze=False, layout="constrained"
        )
        best = {}
        marks: list[Marks] = []
        for axis, (cost, title) in zip(axes, costs.items(), strict=True):
            unbeaten = _draw_front(metric, axis, done, finished, cost, look)
            marks += _told(metric, axis, done, finished, cost)
            axis.set_xlabel(f"{title} (fewer is better)")
            axis.xaxis.set_major_formatter(numbers())
            best[cost] = ", ".join(unbeaten["cell"].head(4)) + (" and more" if len(unbeaten) > 4 else "")
        axes[0].set_ylabel(label(metric))
        metric_axis(metric, axes[0], "y", finished[f"test_{metric.name}"].astype(float))
        if len(done) <= _NAMED:
            names = [_mark(axes[0], cell, look) for cell in done["cell"]]
            figure.legend(handles=names, loc="outside right center")
        by = {"parameters": "By parameters", "train_seconds": _BY_TIME}
        caption = (
            f"What a {metric.better} {metric.name} costs: small dots are seeds, large marks means; ringed are the "
            f"cells that no other beats in both. {' '.join(f'{by[cost]}: {cells}.' for cost, cells in best.items())}"
        )
        return save(figure, folder, "cost", "What it costs", caption, marks)


def _draw_front(
    metric: Metric, axis: Axes, done: pd.DataFrame, finished: pd.DataFrame, cost: str, look: Look
) -> pd.DataFrame:
    # A thousand cells as a few collections: as lines of their own they would take half a minute.
    seeds = finished[finished["cell"].isin(done["cell"])]
    axis.scatter(
        seeds[cost].astype(float),
        seeds[f"test_{metric.name}"],
        s=_SEED**2,
        marker=".",
        alpha=0.6,
        c=[look.colours[cell] for cell in seeds["cell"]],
        lw=1,
        zorder=2,
    )
    for marker, rows in done.groupby(done["cell"].map(look.markers), sort=False):
        axis.scatter(
            rows[cost].astype(float),
            rows["test_mean"],
            s=_MEAN**2,
            marker=str(marker),
            c=[look.colours[cell] for cell in rows["cell"]],
            lw=1,
            zorder=2,
        )
    unbeaten = done[front(done[cost].to_numpy(float), metric.sign * done["test_mean"].to_numpy(float))].sort_values(
        cost
    )
    x, y = unbeaten[cost].astype(float), unbeaten["test_mean"]
    axis.plot(x, y, drawstyle="steps-post", color=TEXT, lw=1, alpha=0.7, zorder=0)
    axis.plot(x, y, "o", ms=15, mfc="none", mec=TEXT, mew=1)
    return unbeaten


def _told(metric: Metric, axis: Axes, done: pd.DataFrame, finished: pd.DataFrame, cost: str) -> Iterator[Marks]:
    """The seeds of each cell and its mean."""
    for row in done.to_dict("records"):
        seeds = finished[finished["cell"] == row["cell"]]
        x, y = [*seeds[cost], row[cost]], [*seeds[f"test_{metric.name}"], row["test_mean"]]
        mean = f"mean {told.value(metric, row['test_mean'])} (n = {row['n']})"
        yield Marks(axis, row["cell"], x, y, [*_by_seed(metric, seeds), mean])


def _by_seed(metric: Metric, trials: pd.DataFrame) -> list[str]:
    """seed 3: 64.2."""
    values = trials[f"test_{metric.name}"].astype(float)
    return [f"seed {s}: {told.value(metric, value)}" for s, value in zip(trials["seed"], values, strict=True)]


def _mark(axis: Axes, cell: str, look: Look) -> Line2D:
    """A cell's mark, for a legend."""
    (line,) = axis.plot([], [], look.markers[cell], ms=_MEAN, color=look.colours[cell], label=elide(cell), ls="none")
    return line


def _best(metric: Metric, comparison: pd.DataFrame, rows: int) -> pd.DataFrame:
    """The rows to show, in the order of the study."""
    kept = (metric.sign * comparison["test_mean"]).fillna(np.inf).nsmallest(rows, keep="first").index
    return comparison.loc[sorted(kept)]
