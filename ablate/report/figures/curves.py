"""Learning curves: the metric by time, updates and what was seen, the mean over seeds with their range as a band."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ablate.analyze.differs import Task
from ablate.metric import Metric
from ablate.report import told
from ablate.report.figures.hover import Marks
from ablate.report.figures.style import (
    SERIES_SHOWN,
    Colour,
    Drawn,
    Look,
    counted,
    elide,
    end_labels,
    metric_axis,
    number,
    numbers,
    save,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOP = 20  # times the lowest: the first steps of a training are not what curves are compared by
_POINTS = 100  # a line; more cannot be told apart, and make the page heavy
_NAMED = 6  # lines that are named at their ends; more go into a legend


def draw_curves(metric: Metric, task: Task, curves: pd.DataFrame, look: Look, folder: Path) -> Drawn | None:
    """The metric on valid and on train data, where it was measured; None where it was on neither."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    means = _over_seeds(metric, curves)
    if means.empty:
        return None
    cells = _best(metric, means)
    means = means[means["cell"].isin(cells)]
    axes, how = _axes(task, means)
    splits = [split for split in ("valid", "train") if (means["split"] == split).any()]
    size = (4.6 * len(axes), 0.8 + 3.2 * len(splits))
    with styled():
        figure, grid = plt.subplots(
            len(splits), len(axes), figsize=size, sharex="col", sharey="row", layout="constrained", squeeze=False
        )
        marks: list[Marks] = []
        for row, split in zip(grid, splits, strict=True):
            part = means[means["split"] == split]
            for axis, (x, label) in zip(row, axes.items(), strict=True):
                lines = {cell: _thinned(part[part["cell"] == cell]) for cell in cells}
                _draw_lines(axis, lines, x, split, look)
                per = {"seconds": "seconds", "step": told.steps(task), "seen": told.unit(task)}[x]
                marks += _told(metric, axis, lines, x, split, per)
                if split == splits[-1]:
                    axis.set_xlabel(label)
                axis.xaxis.set_major_locator(MaxNLocator(4))
                axis.xaxis.set_major_formatter(numbers())
            row[0].set_ylabel(f"{split} {metric.name}" + (f", {metric.unit}" if metric.unit else ""))
            shown = part["mean"] if len(part) else means["mean"]
            top = shown.min() * _TOP if metric.scale == "log" else np.inf
            metric_axis(metric, row[0], "y", shown.clip(upper=top))
            if shown.max() > top:
                row[0].set_ylim(top=top)
        if len(cells) <= _NAMED:
            figure.draw_without_rendering()  # places are known from here on
            for axis, split in zip(grid[:, -1], splits, strict=True):
                end_labels(axis, _ends(means[means["split"] == split], list(axes)[-1], cells, look))
        else:
            handles, labels = grid[0][0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
        n = int(means["n"].max())
        band = f"Lines are means over seeds, bands reach from the lowest to the highest of up to {n}." if n > 1 else ""
        caption = f"{metric.name.capitalize()} on {_where(splits)} by {how}. {band}" + counted(
            len(cells), curves["cell"].nunique(), "cells", f"with the {told.best(metric)} valid {metric.name}"
        )
        return save(figure, folder, "curves", "Learning curves", caption.strip(), marks)


def _where(splits: list[str]) -> str:
    return "valid data (above) and on train data (below)" if len(splits) == 2 else f"{splits[0]} data"


def _axes(task: Task, means: pd.DataFrame) -> tuple[dict[str, str], str]:
    """What curves are drawn against, with its label, and all of that in words.

    Where every step sees as much, updates and what was seen are one picture.
    """
    unit, steps = told.unit(task), told.steps(task)
    updates = steps if task["step"] in ("update", "epoch", "step") else f"updates ({steps})"
    if means["seen"].isna().any():
        return {"seconds": "seconds", "step": updates}, f"time and by {steps if updates == steps else 'updates'}"
    each = (means["seen"] / means["step"])[means["step"] > 0]
    if each.nunique() == 1:
        label = f"{unit} trained on ({each.iloc[0]:,.0f} an update)"
        return {"seconds": "seconds", "seen": label}, f"time and by {unit}"
    axes = {"seconds": "seconds", "step": updates, "seen": f"{unit} trained on"}
    return axes, f"time, by updates and by {unit}"


def _draw_lines(axis: Axes, lines: Mapping[str, pd.DataFrame], x: str, split: str, look: Look) -> None:
    for cell, line in lines.items():
        marks = look.markers[cell] if split == "valid" and len(line) <= 25 else None
        axis.plot(line[x], line["mean"], color=look.colours[cell], marker=marks, ms=4, lw=1.4, label=elide(cell))
        axis.fill_between(line[x].astype(float), line["low"], line["high"], color=look.colours[cell], alpha=0.2, lw=0)


def _told(
    metric: Metric, axis: Axes, lines: Mapping[str, pd.DataFrame], x: str, split: str, per: str
) -> Iterator[Marks]:
    """The points of each cell's line."""
    for cell, line in lines.items():
        mean = ", mean over seeds" if (line["n"] > 1).any() else ""
        at = zip(line["mean"], line[x].astype(float), strict=True)
        says = [f"{told.value(metric, value)} at {number(place)} {per}" for value, place in at]
        yield Marks(axis, f"{cell}, {split} {metric.name}{mean}", line[x], line["mean"], says)


def _thinned(line: pd.DataFrame) -> pd.DataFrame:
    """At most _POINTS of its points, evenly, the first and the last among them."""
    if len(line) <= _POINTS:
        return line
    return line.iloc[np.linspace(0, len(line) - 1, _POINTS).round().astype(int)]


def _ends(part: pd.DataFrame, x: str, cells: list[str], look: Look) -> list[tuple[float, float, str, Colour]]:
    last = part.groupby("cell", sort=False).tail(1).set_index("cell")
    there = [cell for cell in cells if cell in last.index]
    return [(float(last[x][cell]), float(last["mean"][cell]), elide(cell), look.colours[cell]) for cell in there]


def _over_seeds(metric: Metric, curves: pd.DataFrame) -> pd.DataFrame:
    """One row a (cell, split, step): mean of what was seen and of seconds, mean, low and high of the metric, n."""
    # A training that diverges would leave no room for the others.
    finite = curves[curves[metric.name].astype(float).abs() < told.ABSURD]
    by = finite.groupby(["cell", "split", "step"], sort=False)
    points: pd.DataFrame = by.agg(
        seen=("seen", "mean"),
        seconds=("seconds", "mean"),
        mean=(metric.name, "mean"),
        low=(metric.name, "min"),
        high=(metric.name, "max"),
        n=(metric.name, "size"),
    ).reset_index()
    order = {cell: place for place, cell in enumerate(dict.fromkeys(curves["cell"]))}
    places = points["cell"].map(order)
    return points.assign(place=places).sort_values(["place", "split", "step"], kind="stable")


def _best(metric: Metric, means: pd.DataFrame) -> list[str]:
    """The cells to show, in the order of the study."""
    valid = means[means["split"] == "valid"]
    source = valid if len(valid) else means
    score = metric.sign * source["mean"]
    best = score.groupby(source["cell"], sort=False).min().nsmallest(SERIES_SHOWN, keep="first")
    return [cell for cell in dict.fromkeys(source["cell"]) if cell in best.index]
