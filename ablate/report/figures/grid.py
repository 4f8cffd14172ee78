"""A grid of factors: the heatmap of its cells, and how the effect of one factor depends on another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from ablate.analyze.table import finished as with_result
from ablate.analyze.table import scores
from ablate.metric import Metric
from ablate.report import told
from ablate.report.figures.hover import Marks
from ablate.report.figures.style import SOFT, Colour, Drawn, label, metric_axis, save, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANELS = 6
_LEVELS = 12
_FILLED = 0.6  # of its combinations, below which a table has more holes than cells


def draw_heatmap(metric: Metric, trials: pd.DataFrame, folder: Path) -> Drawn | None:
    """The metric's mean over two factors' levels, a panel for every combination of the others."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    finished = _with_values(metric, trials)
    chosen = _axes_of(finished)
    if chosen is None:
        return None
    down, across, others = chosen
    panels = list(finished.groupby(others, sort=False)) if others else [((), finished)]
    possible = math.prod(finished[factor].nunique() for factor in (down, across, *others))
    if len(panels) > _PANELS or finished.groupby([down, across, *others]).ngroups < _FILLED * possible:
        return None
    limits = finished.groupby("cell")["value"].mean()
    rows, columns = finished[down].nunique(), finished[across].nunique()
    colours = "viridis_r" if metric.better == "lower" else "viridis"
    with styled():
        figure, axes = plt.subplots(
            1, len(panels), figsize=(1.2 + len(panels) * (0.8 + 0.85 * columns), 1.4 + 0.6 * rows),
            sharey=True, squeeze=False, layout="constrained",
        )  # fmt: skip
        for axis, (levels, part) in zip(axes[0], panels, strict=True):
            table = _table(part, finished, down, across, "mean")
            counts = _table(part, finished, down, across, "size")
            words = [
                [f"{told.value(metric, m)}\nn = {n:.0f}" for m, n in zip(ms, ns, strict=True)]
                for ms, ns in zip(table.to_numpy(float), counts.fillna(0).to_numpy(float), strict=True)
            ]
            sns.heatmap(
                table.astype(float), annot=np.array(words, dtype=object), fmt="", ax=axis, cmap=colours,
                vmin=limits.min(), vmax=limits.max(), norm=_norm(metric, limits), cbar=False, linewidths=1.5,
                square=False, annot_kws={"fontsize": 9},
            )  # fmt: skip
            for i, j in np.argwhere(table.isna().to_numpy()):
                axis.text(j + 0.5, i + 0.5, "no\nresult", ha="center", va="center", color=SOFT, fontsize=9)
            axis.set(title=_where(others, levels), xlabel=_short(across), ylabel="")
            axis.tick_params(length=0, labelrotation=0)
            axis.grid(visible=False)
        axes[0][0].set_ylabel(_short(down))
        caption = (
            f"Mean test {metric.name} by {_short(down)} and {_short(across)}"
            + (f", a panel for each {' and '.join(map(_short, others))}" if others else "")
            + f". Darker is {'higher' if metric.better == 'lower' else 'lower'}, which is worse"
            + ("; the scale of colours is logarithmic." if metric.scale == "log" else ".")
        )
        return save(figure, folder, "grid", "The grid", caption)


def draw_interactions(metric: Metric, trials: pd.DataFrame, folder: Path) -> Drawn | None:
    """Every pair of factors: parallel lines mean that each acts as if the other were not there."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    finished = _with_values(metric, trials)
    chosen = _axes_of(finished)
    if chosen is None:
        return None
    factors = _factors(finished)
    pairs = [(a, b) for i, a in enumerate(factors) for b in factors[i + 1 :]]
    # The factor of more levels lies along the axis.
    pairs = [(a, b) if finished[a].nunique() >= finished[b].nunique() else (b, a) for a, b in pairs]
    pairs = [(a, b) for a, b in pairs if finished[b].nunique() <= 6 and finished[a].nunique() <= _LEVELS]
    whole = {(a, b): _balanced(finished, a, b) for a, b in pairs}
    pairs = [pair for pair in pairs if len(whole[pair])][:_PANELS]
    if not pairs:
        return None
    with styled():
        figure, axes = plt.subplots(
            1, len(pairs), figsize=(1 + 3.9 * len(pairs), 4.2), sharey=True, squeeze=False, layout="constrained"
        )
        marks = []
        for axis, (x, hue) in zip(axes[0], pairs, strict=True):
            part = whole[x, hue]
            order, hues = list(dict.fromkeys(part[x])), list(dict.fromkeys(part[hue]))
            palette = sns.color_palette("colorblind", len(hues))
            for colour, level, marker in zip(palette, hues, "os^DvP", strict=False):
                named, of_level = f"{_short(hue)}={level}", part[part[hue] == level]
                marks += _draw_line(metric, axis, of_level, x, order, named, colour, marker)
            axis.set_xticks(range(len(order)), order)
            axis.set_xlabel(_short(x))
            axis.legend(fontsize=9)
        axes[0][0].set_ylabel(label(metric))
        metric_axis(metric, axes[0][0], "y", finished["value"])
        on_scale = ", on a logarithmic scale" if metric.scale == "log" else ""
        caption = (
            "Does the effect of one factor depend on another? Dots are trials, lines join the means over seeds and "
            f"those settings of the other factors that have all of these cells{on_scale}: parallel lines mean no "
            "interaction."
        )
        return save(figure, folder, "interactions", "Which parts depend on each other", caption, marks)


def _draw_line(
    metric: Metric,
    axis: Axes,
    part: pd.DataFrame,
    x: str,
    order: Sequence[str],
    label: str,
    colour: Colour,
    marker: str,
) -> list[Marks]:
    """Dots and the line of their means; what they say."""
    places = part[x].map({level: i for i, level in enumerate(order)}).astype(float)
    axis.plot(places, part["value"], ".", ms=5, alpha=0.45, color=colour)
    means = part["score"].groupby(places).mean().map(metric.of_score)
    axis.plot(means.index, means, marker=marker, ms=6, lw=1.6, color=colour, label=label)
    seeds = zip(part["cell"], part["seed"], part["value"], strict=True)
    says = [f"{cell}, seed {seed}: {told.value(metric, value)}" for cell, seed, value in seeds]
    levels = zip(means.index, means, strict=True)
    at = [f"{_short(x)}={order[int(place)]}, mean {told.value(metric, mean)}" for place, mean in levels]
    return [Marks(axis, label, places, part["value"], says), Marks(axis, label, means.index, means, at)]


def _balanced(finished: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """The trials of those combinations of the other factors that have all combinations of these two.

    Over others a mean would be of different things at different points, and lines would cross that do not.
    """
    others = [factor for factor in _factors(finished) if factor not in (a, b)]
    needed = finished[a].nunique() * finished[b].nunique()
    if not others:
        return finished if finished.groupby([a, b]).ngroups == needed else finished.iloc[:0]
    cells = finished.groupby([*others, a, b], sort=False).size().groupby(level=others).size()
    keys = pd.MultiIndex.from_frame(finished[others]) if len(others) > 1 else pd.Index(finished[others[0]])
    return finished[(cells.reindex(keys) == needed).to_numpy()]


def _axes_of(finished: pd.DataFrame) -> tuple[str, str, list[str]] | None:
    """Two factors with the most levels, and the others; None where there is no grid of at least 2 × 2 to show."""
    factors = _factors(finished)
    if len(factors) < 2 or finished.groupby(factors).ngroups < 4:
        return None
    ranked = sorted(factors, key=lambda f: (-finished[f].nunique(), factors.index(f)))
    across, down = ranked[0], ranked[1]
    if finished[across].nunique() > _LEVELS or finished[down].nunique() > _LEVELS:
        return None
    return down, across, [f for f in factors if f not in (down, across)]


def _factors(finished: pd.DataFrame) -> list[str]:
    return [str(c) for c in finished if str(c).startswith("factor.") and finished[c].nunique() > 1]


def _table(
    part: pd.DataFrame, whole: pd.DataFrame, down: str, across: str, what: Literal["mean", "size"]
) -> pd.DataFrame:
    table = part.pivot_table(index=down, columns=across, values="value", aggfunc=what, observed=True)
    return table.reindex(index=list(dict.fromkeys(whole[down])), columns=list(dict.fromkeys(whole[across])))


def _with_values(metric: Metric, trials: pd.DataFrame) -> pd.DataFrame:
    finished = with_result(metric, trials)
    score = scores(metric, finished[f"test_{metric.recorded}"])
    return finished.assign(value=finished[f"test_{metric.name}"].astype(float), score=score)


def _norm(metric: Metric, limits: pd.Series[float]) -> object:
    from matplotlib.colors import LogNorm, Normalize

    low, high = float(limits.min()), float(limits.max())
    if metric.scale == "linear":
        return Normalize(low, high if low < high else low + 1)
    return LogNorm(low, high) if low < high < float("inf") else Normalize(low, low + 1)


def _where(others: Sequence[str], levels: object) -> str:
    values = levels if isinstance(levels, tuple) else (levels,)
    return ", ".join(f"{_short(name)}={value}" for name, value in zip(others, values, strict=True))


def _short(factor: str) -> str:
    return factor.removeprefix("factor.")
