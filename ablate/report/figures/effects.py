"""What each part buys: effects with their intervals, and the steps from one model to another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ablate.analyze.paired import undone
from ablate.report.figures.style import (
    HELPS,
    HURTS,
    SOFT,
    TEXT,
    UNSURE,
    Drawn,
    counted,
    elide,
    log_perplexity_axis,
    percent_tick,
    save,
    styled,
)
from ablate.track.units import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROWS_SHOWN = 30
_PANELS_SHOWN = 4
_ABSURD = 1e6  # a perplexity beside which no other can be seen
_TITLES = {"cumulative": "Added one after another", "removal": "Taken away one at a time"}
_KINDS_OF_STEPS = tuple(_TITLES)
_COLOURS = {"helps": HELPS, "hurts": HURTS}


def draw_effects(effects: pd.DataFrame, what: str, folder: Path) -> Drawn | None:
    """A forest plot.

    Args:
        effects: `name`, `ratio`, `low`, `high`, `deltas`, `verdict`, in the order to show.
        what: whose effect it is, for example "having the part".
    """
    import matplotlib.pyplot as plt

    ratios = effects["ratio"].astype(float)
    known = effects[ratios < _ABSURD].reset_index(drop=True)  # False for NaN
    if known.empty:
        return None
    rows = known.head(_ROWS_SHOWN)
    with styled():
        figure, axis = plt.subplots(figsize=(8.5, 1.4 + 0.44 * len(rows)))
        for place, row in enumerate(rows.to_dict("records")):
            _draw_effect(axis, place, row)
        axis.axvline(0, color=TEXT, lw=1)
        axis.set(
            ylim=(len(rows) - 0.4, -0.6), xlabel=f"change of test perplexity by {what}   (left: helps · right: hurts)"
        )
        axis.set_yticks(range(len(rows)), [elide(str(name)) for name in rows["name"]])
        axis.grid(visible=False, axis="y")
        axis.xaxis.set_major_formatter(percent_tick)
        caption = (
            f"What {what} changes: the mark is the mean over seeds, the line its 95 % interval, a dot one seed. "
            "A line that crosses zero is no finding. Green helps, orange hurts, grey cannot be told from zero after "
            "correction for the number of effects."
            + _not_drawn(effects[ratios >= _ABSURD])
            + counted(len(rows), len(known), "effects", "first in order")
        )
        return save(figure, folder, "effects", "What each part buys", caption)


def _not_drawn(effects: pd.DataFrame) -> str:
    """What would leave no room for the others."""
    names = ", ".join(elide(str(name)) for name in effects["name"].head(5))
    return f" Not drawn, for it is over ×{_ABSURD:,.0f}: {names}." if names else ""


def _draw_effect(axis: Axes, place: int, row: dict[Any, Any]) -> None:
    colour = _COLOURS.get(row["verdict"], UNSURE)
    with np.errstate(over="ignore"):
        seeds = np.expm1(np.asarray(row["deltas"], float))
    seeds = seeds[np.isfinite(seeds)]
    axis.plot(seeds, np.full(len(seeds), place), "o", ms=4, color=colour, alpha=0.45, mew=0)
    certain = " (one seed)" if row["n"] == 1 else " (no spread)"
    if np.isfinite(row["low"]) and np.isfinite(row["high"]):
        axis.plot([row["low"], row["high"]], [place, place], color=colour, lw=2.4, solid_capstyle="butt")
        certain = f" [{percent(row['low'])}, {percent(row['high'])}]"
    axis.plot(row["ratio"], place, "D", ms=7, color=colour, mec="white", mew=0.8)
    axis.text(1.02, place, percent(row["ratio"]) + certain, va="center", transform=axis.get_yaxis_transform())


def draw_steps(steps: pd.DataFrame, levels: pd.DataFrame, folder: Path) -> Drawn | None:
    """Waterfalls: the ladder from the plainest model to the full one, and the full model without each part.

    Args:
        steps: rows of `component_effects` of the kinds `cumulative` and `removal`.
        levels: `cell`, `test_perplexity` of every finished trial.
    """
    import matplotlib.pyplot as plt

    means = levels.groupby("cell")["test_perplexity"].mean()
    # A step from or to a cell without a result has no height.
    steps = steps[steps["without"].isin(means.index) & steps["with_"].isin(means.index) & steps["ratio"].notna()]
    wanted = steps[steps["kind"].isin(_KINDS_OF_STEPS)]
    groups = wanted.groupby(["kind", "at"], sort=False)
    panels = [(str(kind), str(at), part) for (kind, at), part in groups][:_PANELS_SHOWN]
    if not panels or levels["test_perplexity"].max() > _ABSURD:
        return None
    with styled():
        figure, axes = plt.subplots(
            1, len(panels), figsize=(6 * len(panels), 4.6), sharey=True, squeeze=False, layout="constrained"
        )
        for axis, (kind, at, part) in zip(axes[0], panels, strict=True):
            (_draw_ladder if kind == "cumulative" else _draw_removals)(axis, part, levels, means)
            axis.set_title(_TITLES[kind] + (f", at {elide(at)}" if at else ""))
        log_perplexity_axis(axes[0][0], "y", levels["test_perplexity"])
        axes[0][0].set_ylabel("test perplexity (lower is better)")
        _make_room(axes[0][0], levels["test_perplexity"].astype(float))
        told = {
            "cumulative": "Added one after another, a bar is the mean change by that step; it depends on the order.",
            "removal": "Taken away one at a time, a bar reaches from the full model to the model without the part.",
        }
        caption = (
            " ".join(told[kind] for kind in dict.fromkeys(kind for kind, _, _ in panels))
            + " Green: the part lowers perplexity, it helps. Orange: it hurts. Grey: cannot be told at this number of "
            "seeds. Dots are seeds."
        )
        return save(figure, folder, "steps", "Step by step", caption)


def _make_room(axis: Axes, values: pd.Series[float]) -> None:
    """Above and below, on a logarithmic axis: labels stand outside the bars."""
    room = (values.max() / values.min()) ** 0.12 * 1.002
    axis.set_ylim(values.min() / room, values.max() * room)


def _draw_ladder(axis: Axes, part: pd.DataFrame, levels: pd.DataFrame, means: pd.Series[float]) -> None:
    rows = part.to_dict("records")
    names = [str(rows[0]["without"]), *(f"+ {row['component']}" for row in rows)]
    cells = [rows[0]["without"], *(row["with_"] for row in rows)]
    _seeds(axis, cells, levels)
    axis.plot([-0.3, 0.3], [means[cells[0]]] * 2, color=TEXT, lw=2)
    for place, row in enumerate(rows, 1):
        # Having the part is the step itself.
        _bar(axis, place, means[row["without"]], means[row["with_"]], row["ratio"], row["verdict"])
        axis.plot([place - 1 - 0.3, place + 0.3], [means[row["without"]]] * 2, color=SOFT, lw=0.8, ls=":")
    _name(axis, names)


def _draw_removals(axis: Axes, part: pd.DataFrame, levels: pd.DataFrame, means: pd.Series[float]) -> None:
    rows = part.to_dict("records")
    full = rows[0]["with_"]
    _seeds(axis, [full, *(row["without"] for row in rows)], levels)
    axis.axhline(means[full], color=TEXT, lw=1.2)
    for place, row in enumerate(rows, 1):
        # Taking it away is shown; where that raises perplexity, the part helps.
        _bar(axis, place, means[full], means[row["without"]], undone(row["ratio"]), row["verdict"])
    _name(axis, ["full model", *(f"− {row['component']}" for row in rows)])


def _bar(axis: Axes, place: int, before: float, after: float, change: float, verdict: str) -> None:
    """A bar between two means; `change` is the one that is paired by seed, as in the table."""
    colour = _COLOURS.get(verdict, UNSURE)
    axis.bar(place, after - before, bottom=before, width=0.6, color=colour, alpha=0.8, zorder=2)
    up = after >= before
    axis.annotate(
        percent(change), (place, after), (0, 6 if up else -6), textcoords="offset points", ha="center",
        va="bottom" if up else "top", zorder=4,
    )  # fmt: skip


def _seeds(axis: Axes, cells: Sequence[str], levels: pd.DataFrame) -> None:
    for place, cell in enumerate(cells):
        seeds = levels.loc[levels["cell"] == cell, "test_perplexity"]
        # Beside the bar: on it they would be hidden.
        axis.plot(np.full(len(seeds), place + 0.38), seeds, "o", ms=3.5, color=TEXT, alpha=0.6, mew=0, zorder=3)


def _name(axis: Axes, names: Sequence[str]) -> None:
    slanted = sum(map(len, names)) > 60
    names = [elide(name) for name in names]
    axis.set_xticks(range(len(names)), names, rotation=20 if slanted else 0, ha="right" if slanted else "center")
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.grid(visible=False, axis="x")
