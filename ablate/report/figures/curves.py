"""Learning curves: perplexity by windows, tokens and time, the mean over seeds with their range as a band."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ablate.report.figures.style import (
    SERIES_SHOWN,
    Drawn,
    Look,
    counted,
    elide,
    log_perplexity_axis,
    number,
    save,
    styled,
)

_ABSURD = 1e6  # a training that diverges would leave no room for the others
_TOP = 20  # times the lowest: the first windows of a training are not what curves are compared by
_AXES = {"step": "windows (updates)", "tokens": "tokens trained on", "seconds": "seconds"}


def draw_curves(curves: pd.DataFrame, look: Look, folder: Path) -> Drawn | None:
    """Train and valid perplexity; None where nothing was measured."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    means = _over_seeds(curves)
    if means.empty:
        return None
    cells = _lowest(means)
    means = means[means["cell"].isin(cells)]
    with styled():
        figure, grid = plt.subplots(2, 3, figsize=(12, 7.2), sharex="col", sharey="row", layout="constrained")
        for row, split in zip(grid, ("valid", "train"), strict=True):
            part = means[means["split"] == split]
            for axis, (x, label) in zip(row, _AXES.items(), strict=True):
                for cell in cells:
                    line = part[part["cell"] == cell]
                    marks = look.markers[cell] if split == "valid" and len(line) <= 25 else None
                    axis.plot(
                        line[x], line["mean"], color=look.colours[cell], marker=marks, ms=4, lw=1.4, label=elide(cell)
                    )
                    axis.fill_between(
                        line[x].astype(float), line["low"], line["high"], color=look.colours[cell], alpha=0.2, lw=0
                    )
                if split == "train":
                    axis.set_xlabel(label)
                axis.xaxis.set_major_formatter(number)
                axis.xaxis.set_major_locator(MaxNLocator(5))
            row[0].set_ylabel(f"{split} perplexity")
            shown = part["mean"] if len(part) else means["mean"]
            top = shown.min() * _TOP
            log_perplexity_axis(row[0], "y", shown.clip(upper=top))
            if shown.max() > top:
                row[0].set_ylim(top=top)
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
        n = int(means["n"].max())
        band = f"Lines are means over seeds, bands reach from the lowest to the highest of up to {n}." if n > 1 else ""
        caption = (
            f"Perplexity on valid text (above) and on train text (below) by windows, by tokens and by time. {band}"
            + counted(len(cells), curves["cell"].nunique(), "cells", "with the lowest valid perplexity")
        )
        return save(figure, folder, "curves", "Learning curves", caption.strip())


def _over_seeds(curves: pd.DataFrame) -> pd.DataFrame:
    """One row a (cell, split, step): mean tokens and seconds, mean, low and high perplexity, n."""
    perplexities = curves["perplexity"].astype(float)
    finite = curves[np.isfinite(perplexities) & (perplexities < _ABSURD)]
    by = finite.groupby(["cell", "split", "step"], sort=False)
    points: pd.DataFrame = by.agg(
        tokens=("tokens", "mean"),
        seconds=("seconds", "mean"),
        mean=("perplexity", "mean"),
        low=("perplexity", "min"),
        high=("perplexity", "max"),
        n=("perplexity", "size"),
    ).reset_index()
    order = {cell: place for place, cell in enumerate(dict.fromkeys(curves["cell"]))}
    places = points["cell"].map(order)
    return points.assign(place=places).sort_values(["place", "split", "step"], kind="stable")


def _lowest(means: pd.DataFrame) -> list[str]:
    """The cells to show, in the order of the study."""
    valid = means[means["split"] == "valid"]
    source = valid if len(valid) else means
    best = source.groupby("cell", sort=False)["mean"].min().nsmallest(SERIES_SHOWN, keep="first")
    return [cell for cell in dict.fromkeys(source["cell"]) if cell in best.index]
