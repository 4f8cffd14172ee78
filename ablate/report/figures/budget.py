"""What each part buys at every budget, with the places where its effect changes sign."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.analyze.by_budget import Change
from ablate.analyze.differs import Task
from ablate.metric import Metric
from ablate.report import told
from ablate.report.figures.hover import Marks
from ablate.report.figures.style import (
    SERIES_SHOWN,
    SOFT,
    TEXT,
    Drawn,
    change_tick,
    counted,
    elide,
    end_labels,
    make_look,
    number,
    numbers,
    save,
    styled,
)
from ablate.report.names import part_of
from ablate.track.units import rounded

_MOST = 4.0  # a ratio minus 1 beside which no other can be seen


def draw_by_budget(
    metric: Metric, task: Task, effects: pd.DataFrame, changes: Sequence[Change], folder: Path
) -> Drawn | None:
    """Effects against what was trained on, or against the budget's knob where that is not known.

    Args:
        task: as a launch records it.
        effects: as `effects_by_budget` gives them, with a `name` each.
        changes: of `effects`.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    changed = effects["effect"].astype(float).map(metric.change)
    known = effects[changed < _MOST] if metric.scale == "log" else effects[changed.notna()]
    names = list(dict.fromkeys(known["name"]))
    if not names:
        return None
    shown = names[:SERIES_SHOWN]
    look = make_look(shown)
    x, unit = ("seen", told.unit(task)) if known["seen"].notna().all() else ("budget", task["budget"][0])
    with styled():
        figure, axis = plt.subplots(figsize=(8.5, 4.8), layout="constrained")
        last, marks = [], []
        for name in shown:
            line = known[known["name"] == name]
            places, change = line[x].to_numpy(float), line["effect"].map(metric.change).to_numpy(float)
            ends = line[list(told.ends(metric, "low", "high"))].map(metric.change)
            spread = np.abs(ends.to_numpy(float).T - change)
            colour = look.colours[name]
            axis.errorbar(
                places,
                change,
                yerr=np.nan_to_num(spread),
                color=colour,
                marker=look.markers[name],
                ms=5,
                lw=1.6,
                capsize=3,
            )
            last.append((places[-1], change[-1], elide(name), colour))
            says = [_says(metric, row, f"{number(row[x])} {unit}") for row in line.to_dict("records")]
            marks.append(Marks(axis, name, places, change, says))
        axis.axhline(0, color=TEXT, lw=1)
        for change in changes:
            if part_of(change.before) in shown:
                place = change.seen if x == "seen" else change.budget
                near = f"{rounded(place)} {unit}" if x == "seen" else f"{unit}={place:.2g}"
                axis.plot([place], [0], marker="o", ms=9, mfc="none", mec=SOFT, mew=1.5)
                axis.annotate(
                    f"changes sign near {near}", (place, 0), (6, 8), textcoords="offset points", color=SOFT, fontsize=9
                )
        axis.set_xscale("log")
        axis.set_xticks(sorted(known[x].astype(float).unique()))
        axis.xaxis.set_major_formatter(numbers())
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_formatter(FuncFormatter(change_tick(metric)))
        side = "below" if metric.better == "lower" else "above"
        axis.set(
            xlabel=f"{unit} trained on" if x == "seen" else unit,
            ylabel=f"change of test {metric.name} by having the part\n({side} 0: helps)",
        )
        figure.draw_without_rendering()
        end_labels(axis, last)
        caption = (
            "The effect of each part against the budget. Every point is a training of its own, with the whole schedule "
            "scaled to it; bars are 95 % intervals over seeds."
            + counted(len(shown), len(names), "parts", "that the study names first")
        )
        return save(figure, folder, "budget", "Effect by budget", caption, marks)


def _says(metric: Metric, row: Mapping[Hashable, Any], place: str) -> str:
    """−3.1 % (−4.0 % to −2.2 %) at 1.2 M words."""
    interval = f" ({told.span(metric, row['low'], row['high'])})" if np.isfinite(row["low"]) else ""
    return f"{told.change(metric, row['effect'])}{interval} at {place}, {row['verdict']}"
