"""Whether a finding would have been another with fewer seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ablate.analyze.paired import Array, t_interval
from ablate.analyze.sequential import confidence_sequence
from ablate.metric import Metric
from ablate.report import told
from ablate.report.figures.hover import Marks
from ablate.report.figures.style import (
    EQUIVALENT,
    SOFT,
    TEXT,
    UNSURE,
    VERDICTS,
    Drawn,
    change_tick,
    counted,
    elide,
    save,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEWEST = 4  # seeds, below which there is nothing to follow
_PANELS, _ACROSS = 12, 4
_AT_ONE_LOOK = (
    "An interval that is looked at again and again until it leaves zero is no 95 % interval: what counts is the one at "
    "the number of seeds that was asked for."
)
_AT_EVERY_LOOK = "It holds at all numbers of seeds at once."


def draw_stability(
    metric: Metric, effects: pd.DataFrame, margin: float | None, looked: bool, folder: Path
) -> Drawn | None:
    """Each effect by the first 2, 3, … seeds, with its interval at that number.

    Args:
        effects: `name`, `deltas` (of scores, by seed), `verdict`.
        margin: differences of scores within ± it are as good as none; None: nobody said so.
        looked: seeds were added until they were enough, and intervals are those that hold at every look.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    drawable = [len(deltas) >= _FEWEST and _is_drawable(metric, deltas) for deltas in effects["deltas"]]
    known = effects[np.array(drawable, bool)] if len(effects) else effects
    if known.empty:
        return None
    rows = known.head(_PANELS).to_dict("records")
    across = min(_ACROSS, len(rows))
    down = math.ceil(len(rows) / across)
    with styled():
        figure, axes = plt.subplots(
            down, across, figsize=(1 + 2.9 * across, 0.6 + 2.3 * down), squeeze=False, layout="constrained"
        )
        marks = []
        for axis, row in zip(axes.flat, rows, strict=False):
            marks.append(_draw_row(metric, axis, row, margin, confidence_sequence if looked else _interval))
            axis.set_title(elide(str(row["name"])), fontsize=10)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.yaxis.set_major_formatter(FuncFormatter(change_tick(metric)))
        for axis in axes.flat[len(rows) :]:
            axis.set_visible(False)
        for axis in axes[:, 0]:
            axis.set_ylabel(f"change of {metric.name}")
        for axis in axes[-1]:
            axis.set_xlabel("seeds")
        caption = (
            "Each effect as the first seeds would have shown it: the line is the mean, the band the 95 % interval at "
            f"that number of seeds. {_AT_EVERY_LOOK if looked else _AT_ONE_LOOK}"
            + counted(len(rows), len(known), "effects", "first in order")
        )
        return save(figure, folder, "stability", "Effect by seeds", caption, marks)


def _is_drawable(metric: Metric, deltas: tuple[float, ...]) -> bool:
    return max(abs(metric.change(delta)) for delta in deltas) < told.ABSURD


def _interval(deltas: Array) -> tuple[Array, Array]:
    return t_interval(deltas)[:2]


def _draw_row(
    metric: Metric,
    axis: Axes,
    row: dict[Any, Any],
    margin: float | None,
    interval: Callable[[Array], tuple[Array, Array]],
) -> Marks:
    deltas = np.array(row["deltas"], float)
    counts = np.arange(2, len(deltas) + 1)
    means = np.array([deltas[:n].mean() for n in counts])
    low, high = (np.array(ends) for ends in zip(*(interval(deltas[:n]) for n in counts), strict=True))
    colour = VERDICTS.get(row["verdict"], UNSURE)
    if margin is not None:
        axis.axhspan(metric.change(-margin), metric.change(margin), color=EQUIVALENT, alpha=0.12, lw=0)
    axis.fill_between(counts, _changes(metric, low), _changes(metric, high), color=colour, alpha=0.2, lw=0)
    axis.plot(counts, _changes(metric, means), color=colour, lw=1.8, marker="o", ms=3)
    axis.axhline(0, color=TEXT, lw=1)
    axis.axhline(metric.change(float(means[-1])), color=SOFT, lw=0.8, ls=":")
    # The interval of two seeds is wider than all that is worth seeing.
    shown = np.concatenate([_changes(metric, end)[1:] for end in (low, high)] + [_changes(metric, means), [0.0]])
    shown = shown[np.isfinite(shown)]
    room = 0.08 * float(np.ptp(shown)) or 1e-3
    axis.set_ylim(shown.min() - room, shown.max() + room)
    ends = (
        f" ({told.span(metric, *pair)})" if np.isfinite(pair).all() else ", without an interval,"
        for pair in zip(low, high, strict=True)
    )
    says = [
        f"{told.change(metric, mean)}{span} by the first {n} seeds"
        for n, mean, span in zip(counts, means, ends, strict=True)
    ]
    return Marks(axis, str(row["name"]), counts, _changes(metric, means), says)


def _changes(metric: Metric, scores: Array) -> Array:
    return np.array([metric.change(float(score)) for score in scores], float)
