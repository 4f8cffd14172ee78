"""What each part buys: effects with their intervals, and the steps from one model to another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ablate.metric import Metric
from ablate.report import told
from ablate.report.entries import without_interval
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
    label,
    metric_axis,
    save,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROWS_SHOWN = 30
_PANELS_SHOWN = 4
_TITLES = {"cumulative": "Added one after another", "removal": "Taken away one at a time"}
_KINDS_OF_STEPS = tuple(_TITLES)


def draw_effects(metric: Metric, effects: pd.DataFrame, what: str, margin: float | None, folder: Path) -> Drawn | None:
    """A forest plot.

    Args:
        effects: `name`, `effect`, `low`, `high`, `deltas`, `verdict`, in the order to show.
        what: whose effect it is, for example "having the part".
        margin: differences of scores within ± it are as good as none; None: nobody said so.
    """
    import matplotlib.pyplot as plt

    changes = effects["effect"].astype(float).map(metric.change)
    known = effects[changes.abs() < told.ABSURD].reset_index(drop=True)  # False for NaN
    if known.empty:
        return None
    rows = known.head(_ROWS_SHOWN)
    with styled():
        figure, axis = plt.subplots(figsize=(8.5, 1.4 + 0.44 * len(rows)))
        marks = [_draw_effect(metric, axis, place, row) for place, row in enumerate(rows.to_dict("records"))]
        axis.axvline(0, color=TEXT, lw=1)
        if margin is not None:
            axis.axvspan(metric.change(-margin), metric.change(margin), color=EQUIVALENT, alpha=0.12, lw=0)
        sides = ("helps", "hurts") if metric.better == "lower" else ("hurts", "helps")
        axis.set(
            ylim=(len(rows) - 0.4, -0.6),
            xlabel=f"change of test {metric.name} by {what}   (left: {sides[0]} · right: {sides[1]})",
        )
        axis.set_yticks(range(len(rows)), [elide(str(name)) for name in rows["name"]])
        axis.grid(visible=False, axis="y")
        axis.xaxis.set_major_formatter(change_tick(metric))
        caption = (
            f"What {what} changes: the mark is the mean over seeds, the line its 95 % interval, a dot one seed. "
            "A line that crosses zero is no finding. Green helps, orange hurts, grey is undecided after correction for "
            "the number of effects"
            + (", blue is as good as none: within the band." if margin is not None else ".")
            + _not_drawn(effects[changes.abs() >= told.ABSURD])
            + counted(len(rows), len(known), "effects", "first in order")
        )
        return save(figure, folder, "effects", "What each part buys", caption, marks)


def _not_drawn(effects: pd.DataFrame) -> str:
    """What would leave no room for the others."""
    names = ", ".join(elide(str(name)) for name in effects["name"].head(5))
    return f" Not drawn, for it is over ×{told.ABSURD:,.0f}: {names}." if names else ""


def _draw_effect(metric: Metric, axis: Axes, place: int, row: dict[Any, Any]) -> Marks:
    colour = VERDICTS.get(row["verdict"], UNSURE)
    seeds = np.array([metric.change(delta) for delta in row["deltas"]], float)
    axis.plot(seeds, np.full(len(seeds), place), "o", ms=4, color=colour, alpha=0.45, mew=0)
    certain = " (one seed)" if row["n"] == 1 else f" ({without_interval(row)})"
    if np.isfinite(row["low"]) and np.isfinite(row["high"]):
        ends = told.ends(metric, row["low"], row["high"])
        axis.plot(list(map(metric.change, ends)), [place, place], color=colour, lw=2.4, solid_capstyle="butt")
        certain = " [" + ", ".join(told.change(metric, end) for end in ends) + "]"
    axis.plot(metric.change(row["effect"]), place, "D", ms=7, color=colour, mec="white", mew=0.8)
    mean = told.change(metric, row["effect"]) + certain
    axis.text(1.02, place, mean, va="center", transform=axis.get_yaxis_transform())
    by_seed = zip(row["delta_seeds"], row["deltas"], strict=True)
    says = [
        *(f"seed {seed}: {told.change(metric, delta)}" for seed, delta in by_seed),
        f"mean {mean}, {row['verdict']}",
    ]
    x = [*seeds, metric.change(row["effect"])]
    return Marks(axis, str(row["name"]), x, [place] * len(x), says)


def draw_steps(metric: Metric, steps: pd.DataFrame, levels: pd.DataFrame, folder: Path) -> Drawn | None:
    """Waterfalls: the ladder from the plainest model to the full one, and the full model without each part.

    Args:
        steps: rows of `component_effects` of the kinds `cumulative` and `removal`.
        levels: `cell` and the test metric of every finished trial.
    """
    import matplotlib.pyplot as plt

    levels = levels.assign(value=levels[f"test_{metric.name}"].astype(float))
    means = levels.groupby("cell")["value"].mean()
    # A step from or to a cell without a result has no height.
    steps = steps[steps["without"].isin(means.index) & steps["with_"].isin(means.index) & steps["effect"].notna()]
    wanted = steps[steps["kind"].isin(_KINDS_OF_STEPS)]
    groups = wanted.groupby(["kind", "at"], sort=False)
    panels = [(str(kind), str(at), part) for (kind, at), part in groups][:_PANELS_SHOWN]
    if not panels or levels["value"].abs().max() > told.ABSURD:
        return None
    with styled():
        figure, axes = plt.subplots(
            1, len(panels), figsize=(6 * len(panels), 4.6), sharey=True, squeeze=False, layout="constrained"
        )
        marks = []
        for axis, (kind, at, part) in zip(axes[0], panels, strict=True):
            marks += (_draw_ladder if kind == "cumulative" else _draw_removals)(metric, axis, part, levels, means)
            axis.set_title(_TITLES[kind] + (f", at {elide(at)}" if at else ""))
        metric_axis(metric, axes[0][0], "y", levels["value"])
        axes[0][0].set_ylabel(label(metric))
        _make_room(metric, axes[0][0], levels["value"])
        how = {
            "cumulative": "Added one after another, a bar is the mean change by that step; it depends on the order.",
            "removal": "Taken away one at a time, a bar reaches from the full model to the model without the part.",
        }
        caption = (
            " ".join(how[kind] for kind in dict.fromkeys(kind for kind, _, _ in panels))
            + f" Green: the part {'lowers' if metric.better == 'lower' else 'raises'} {metric.name}, it helps. "
            "Orange: it hurts. Grey: cannot be told at this number of seeds. Dots are seeds."
        )
        return save(figure, folder, "steps", "Step by step", caption, marks)


def _make_room(metric: Metric, axis: Axes, values: pd.Series[float]) -> None:
    """Above and below: labels stand outside the bars."""
    if metric.scale == "linear":
        axis.margins(y=0.12)
        return
    room = (values.max() / values.min()) ** 0.12 * 1.002
    axis.set_ylim(values.min() / room, values.max() * room)


def _draw_ladder(
    metric: Metric, axis: Axes, part: pd.DataFrame, levels: pd.DataFrame, means: pd.Series[float]
) -> list[Marks]:
    rows = part.to_dict("records")
    names = [str(rows[0]["without"]), *(f"+ {row['component']}" for row in rows)]
    cells = [rows[0]["without"], *(row["with_"] for row in rows)]
    marks = _seeds(metric, axis, cells, levels, means)
    axis.plot([-0.3, 0.3], [means[cells[0]]] * 2, color=TEXT, lw=2)
    for place, row in enumerate(rows, 1):
        # Having the part is the step itself.
        _bar(
            axis, place, means[row["without"]], means[row["with_"]], told.change(metric, row["effect"]), row["verdict"]
        )
        axis.plot([place - 1 - 0.3, place + 0.3], [means[row["without"]]] * 2, color=SOFT, lw=0.8, ls=":")
    _name(axis, names)
    return marks


def _draw_removals(
    metric: Metric, axis: Axes, part: pd.DataFrame, levels: pd.DataFrame, means: pd.Series[float]
) -> list[Marks]:
    rows = part.to_dict("records")
    full = rows[0]["with_"]
    marks = _seeds(metric, axis, [full, *(row["without"] for row in rows)], levels, means)
    axis.axhline(means[full], color=TEXT, lw=1.2)
    for place, row in enumerate(rows, 1):
        # Taking it away is shown; where that makes the metric worse, the part helps.
        _bar(axis, place, means[full], means[row["without"]], told.change(metric, -row["effect"]), row["verdict"])
    _name(axis, ["full model", *(f"− {row['component']}" for row in rows)])
    return marks


def _bar(axis: Axes, place: int, before: float, after: float, change: str, verdict: str) -> None:
    """A bar between two means; `change` is the one that is paired by seed, as in the table."""
    colour = VERDICTS.get(verdict, UNSURE)
    axis.bar(place, after - before, bottom=before, width=0.6, color=colour, alpha=0.8, zorder=2)
    up = after >= before
    axis.annotate(
        change, (place, after), (0, 6 if up else -6), textcoords="offset points", ha="center",
        va="bottom" if up else "top", zorder=4,
    )  # fmt: skip


def _seeds(
    metric: Metric, axis: Axes, cells: Sequence[str], levels: pd.DataFrame, means: pd.Series[float]
) -> list[Marks]:
    """The seeds of each cell as dots; what they and the end of its bar say."""
    marks = []
    for place, cell in enumerate(cells):
        seeds = levels[levels["cell"] == cell]
        # Beside the bar: on it they would be hidden.
        axis.plot(
            np.full(len(seeds), place + 0.38), seeds["value"], "o", ms=3.5, color=TEXT, alpha=0.6, mew=0, zorder=3
        )
        by_seed = zip(seeds["seed"], seeds["value"], strict=True)
        says = [*(f"seed {seed}: {told.value(metric, value)}" for seed, value in by_seed)]
        says.append(f"mean {told.value(metric, means[cell])} (n = {len(seeds)})")
        x, y = [*[place + 0.38] * len(seeds), place], [*seeds["value"], means[cell]]
        marks.append(Marks(axis, cell, x, y, says))
    return marks


def _name(axis: Axes, names: Sequence[str]) -> None:
    slanted = sum(map(len, names)) > 60
    names = [elide(name) for name in names]
    axis.set_xticks(range(len(names)), names, rotation=20 if slanted else 0, ha="right" if slanted else "center")
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.grid(visible=False, axis="x")
