"""Figures: the curves of all cells, and the comparison with every seed as a point."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# `$` in a name is a dollar sign, not mathematics; a figure drawn twice has the same bytes.
_STYLE: dict[str, Any] = {
    "text.parse_math": False,
    "svg.hashsalt": "ablate",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 110,
    "savefig.bbox": "tight",
}


def draw_curves(curves: pd.DataFrame, folder: Path) -> None:
    """Train and valid perplexity against tokens, one colour a cell; with several seeds the mean and their range."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    with _style():
        figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharex=True, sharey=True)
        cells = list(dict.fromkeys(curves["cell"]))
        for axis, split in zip(axes, ("train", "valid"), strict=True):
            part = curves[(curves["split"] == split) & curves["perplexity"].between(0, 1e6)]
            axis.set(title=f"{split} perplexity")
            if part.empty:
                _say_empty(axis)
                continue
            # Replicates share their steps, so a mean at each step is over seeds.
            sns.lineplot(
                part, x="tokens", y="perplexity", hue="cell", hue_order=cells, style="cell", style_order=cells,
                errorbar=("pi", 100), markers=split == "valid", dashes=False, ax=axis, palette=_palette(cells),
                legend=axis is axes[1],
            )  # fmt: skip
            axis.set(yscale="log", xlabel="tokens trained on", ylabel="perplexity")
            axis.xaxis.set_major_formatter("{x:,.0f}")
            axis.tick_params(axis="x", rotation=30)
            axis.grid(visible=True, which="both", axis="y", alpha=0.25)
        if axes[0].get_yscale() == "log":
            _plain_log_ticks(axes[0], curves["perplexity"])
        if axes[1].get_legend() is not None:
            sns.move_legend(axes[1], "upper left", bbox_to_anchor=(1.02, 1), title=None, frameon=False)
        _save(figure, folder / "curves")


def draw_comparison(trials: pd.DataFrame, folder: Path) -> None:
    """Test perplexity of every finished trial, one row a cell: a dot a seed, a bar at the mean."""
    import matplotlib.pyplot as plt

    finished = trials[trials["status"] == "FINISHED"]
    cells = list(dict.fromkeys(trials["cell"]))
    counts = finished.groupby("cell").size()
    labels = [f"{cell}  (n = {counts.get(cell, 0)})" for cell in cells]
    with _style():
        figure, axis = plt.subplots(figsize=(8, 1.2 + 0.42 * len(cells)))
        if finished.empty:
            _say_empty(axis)
        else:
            _draw_dots(axis, finished, cells)
        axis.set(xlabel="test perplexity (lower is better)", ylabel="")
        axis.set_yticks(range(len(cells)), labels)
        _save(figure, folder / "comparison")


def _draw_dots(axis: Axes, finished: pd.DataFrame, cells: list[str]) -> None:
    import seaborn as sns

    sns.stripplot(
        finished, x="test_perplexity", y="cell", order=cells, hue="cell", hue_order=cells, size=8, jitter=False,
        ax=axis, palette=_palette(cells), legend=False,
    )  # fmt: skip
    for place, cell in enumerate(cells):
        values = finished.loc[finished["cell"] == cell, "test_perplexity"]
        if len(values):
            axis.plot([values.mean()] * 2, [place - 0.3, place + 0.3], color="0.2", linewidth=1.5)
            axis.text(1.02, place, f"{values.mean():,.1f}", va="center", transform=axis.get_yaxis_transform())
    axis.text(1.02, 1.0, "mean", transform=axis.transAxes, va="bottom", color="0.4")
    axis.grid(visible=True, axis="x", alpha=0.25)


def _say_empty(axis: Axes) -> None:
    axis.text(0.5, 0.5, "nothing measured yet", ha="center", va="center", transform=axis.transAxes, color="0.4")


def _style() -> AbstractContextManager[None]:
    import matplotlib as mpl

    mpl.use("Agg")
    return mpl.rc_context(_STYLE)  # type: ignore[arg-type]


def _palette(cells: list[str]) -> list[tuple[float, float, float]]:
    import seaborn as sns

    colours: list[tuple[float, float, float]] = sns.color_palette(
        "colorblind" if len(cells) <= 10 else "husl", len(cells)
    )
    return colours


def _plain_log_ticks(axis: Axes, values: pd.Series[float]) -> None:
    """Label a logarithmic axis with whole numbers, also where it spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    narrow = len(values) > 0 and values.max() / values.min() < 2.5
    axis.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}") if narrow else NullFormatter())


def _save(figure: Figure, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure.savefig(path.with_suffix(".png"))
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)
