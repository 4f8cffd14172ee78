"""What all figures share: colours, axes, files. Drawing is deterministic: the same numbers give the same bytes."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ablate.metric import Metric
from ablate.report.figures.hover import Marks, Placed, placed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Formatter

Colour = tuple[float, float, float]

TEXT = "#1c1c1e"  # in a page that is read in the dark it becomes the page's own colour
PAPER = "#fefefe"  # and the paper the page's own paper
SOFT = "#767680"  # readable on white and on black
HELPS, HURTS, EQUIVALENT, UNSURE = "#0b7a5c", "#c2410c", "#2563a8", "#767680"
VERDICTS = {"helps": HELPS, "hurts": HURTS, "equivalent": EQUIVALENT}
_READABLE = 0.8  # of its size: drawn smaller, a figure scrolls in its box, for its letters could not be read
_LONGEST = 60  # letters of a name in a figure
SERIES_SHOWN = 10  # as many as colours and markers can tell apart
_MARKERS = "osD^vPX<>*"

# `$` in a name is a dollar sign, not mathematics.
_STYLE: dict[str, Any] = {
    "axes.edgecolor": TEXT,
    "axes.grid": True,
    "axes.labelcolor": TEXT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": TEXT,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.dpi": 110,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "font.size": 10,
    "grid.alpha": 0.3,
    "grid.color": SOFT,
    "legend.frameon": False,
    "legend.labelcolor": TEXT,
    "path.simplify": True,
    "svg.fonttype": "none",  # words stay words: a page is searched, and stays small
    "svg.hashsalt": "ablate",
    "text.color": TEXT,
    "text.parse_math": False,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
}


@dataclass(frozen=True)
class Drawn:
    """A figure that has been written.

    Attributes:
        name: of its files, without suffix.
        title: a heading.
        caption: what is seen in it, for those who look and for those who listen.
        svg: for a page: inline, in the page's own text colour, its ids told apart by `name`.
        marks: what its marks say when they are pointed at, with their places in the SVG.
    """

    name: str
    title: str
    caption: str
    svg: str
    marks: Sequence[Placed] = ()


@dataclass(frozen=True)
class Look:
    """Every cell keeps its colour and marker in all figures."""

    colours: Mapping[str, Colour]
    markers: Mapping[str, str]


def make_look(cells: Sequence[str]) -> Look:
    """Colours and markers for the cells of a study, in its order."""
    import seaborn as sns

    palette: list[Colour] = sns.color_palette("colorblind", 8)
    palette = [palette[i] for i in (0, 1, 2, 3, 4, 7, 5, 6)]
    return Look(
        {cell: palette[i % len(palette)] for i, cell in enumerate(cells)},
        {cell: _MARKERS[i % len(_MARKERS)] for i, cell in enumerate(cells)},
    )


@contextmanager
def styled() -> Iterator[None]:
    """Draw in our style, on no screen."""
    import matplotlib as mpl

    mpl.use("Agg")
    style: Any = {**_STYLE, "font.family": _fonts()}
    with mpl.rc_context(style), warnings.catch_warnings():
        # Where no font has a letter, PNG and PDF show a box; in the page a browser has more fonts.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        yield


@cache
def _fonts() -> list[str]:
    """Our font, and those of this machine that have what it lacks."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _MORE_LETTERS if name in installed)]


_MORE_LETTERS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "IPAexGothic", "Hiragino Sans", "Yu Gothic", "PingFang SC")


def save(figure: Figure, folder: Path, name: str, title: str, caption: str, marks: Sequence[Marks] = ()) -> Drawn:
    """Write a figure as PNG, SVG and PDF."""
    import matplotlib.pyplot as plt

    path = folder / name
    # Laid out and measured once, not once a file: that takes longer than drawing.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    box = figure.get_tightbbox().padded(0.08)
    said = placed(marks, box)
    figure.savefig(path.with_suffix(".png"), bbox_inches=box)
    figure.savefig(path.with_suffix(".svg"), bbox_inches=box, metadata={"Date": None})
    figure.savefig(path.with_suffix(".pdf"), bbox_inches=box, metadata={"CreationDate": None})
    plt.close(figure)
    return Drawn(name, title, caption, _for_page(path.with_suffix(".svg"), name), said)


def _for_page(path: Path, name: str) -> str:
    text = path.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda tag: _tag_for_page(tag[0], name), text)
    width = float(re.search(r'<svg [^>]*width="([\d.]+)pt"', text)[1])  # type: ignore[index]
    return text.replace("<svg ", f'<svg aria-hidden="true" style="min-width: {_READABLE * width:.0f}pt" ', 1)


def _tag_for_page(tag: str, name: str) -> str:
    """Ids of its own, the page's own paper and ink, and no more digits than a screen can show."""
    if tag.startswith(("<path", "<use")):
        tag = re.sub(r"(\.\d\d)\d+", r"\1", tag)
    tag = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>figure-{name}-", tag)
    return tag.replace(f"fill: {PAPER}", "fill: none").replace(TEXT, "currentColor")


def elide(label: str) -> str:
    """A name short enough to stand in a figure."""
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 16]}…{label[-15:]}"


def label(metric: Metric, split: str = "test") -> str:
    """What an axis shows of a metric, with its unit and the better direction."""
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{split} {metric.name}{unit} ({metric.better} is better)"


def metric_axis(metric: Metric, axis: Axes, which: str, values: pd.Series[float]) -> None:
    """An axis of the metric's values, on its scale."""
    if metric.scale == "log":
        _log_axis(axis, which, values)
    else:
        (axis.yaxis if which == "y" else axis.xaxis).set_major_formatter(numbers())


def _log_axis(axis: Axes, which: str, values: pd.Series[float]) -> None:
    """A logarithmic axis that is labelled in whole numbers, also where it spans less than a decade."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

    getattr(axis, f"set_{which}scale")("log")
    scale = axis.yaxis if which == "y" else axis.xaxis
    finite = values[(values > 0) & (values < 1e300)]
    span = finite.max() / finite.min() if len(finite) else 1.0
    if span < 4:
        scale.set_major_locator(MaxNLocator(nbins=9, steps=[1, 2, 5, 10]))
    else:
        subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if span < 30 else (1.0, 2.0, 5.0)
        scale.set_major_locator(LogLocator(base=10, subs=subs))
    scale.set_minor_locator(NullLocator())
    scale.set_major_formatter(numbers())
    scale.set_minor_formatter(NullFormatter())


def end_labels(axis: Axes, ends: Sequence[tuple[float, float, str, Colour]]) -> None:
    """Name each line at its right end, in its colour, moved apart where the ends lie close together.

    The axis has been laid out, so that places on it are known.

    Args:
        ends: (x, y, name, colour) of the last point of every line, in data.
    """
    if not ends:
        return
    height = 13.0  # points that a name takes
    dpi = axis.figure.dpi
    at = [float(axis.transData.transform((x, y))[1]) * 72 / dpi for x, y, _, _ in ends]
    heights: dict[int, float] = {}
    last = -math.inf
    for place in sorted(range(len(ends)), key=lambda i: at[i]):
        last = max(at[place], last + height)
        heights[place] = last
    right = axis.get_xlim()[1]
    for place, (_, y, name, colour) in enumerate(ends):
        axis.annotate(
            name, (right, y), (8, heights[place] - at[place]), textcoords="offset points", color=colour, va="center",
            annotation_clip=False,
        )  # fmt: skip


def numbers() -> Formatter:
    """A formatter of counts and values, with as many digits as tell the ticks of an axis apart."""
    from matplotlib.ticker import Formatter

    class Numbers(Formatter):
        def __call__(self, value: float, pos: int | None = None) -> str:
            return number(value)

        def format_ticks(self, values: Sequence[float]) -> list[str]:
            return distinct(values)

    return Numbers()


def distinct(values: Sequence[float]) -> list[str]:
    """Numbers as text, no two of different values alike: 24.0, 24.5, 25.0, but 24, 25, 26."""
    different = len({*values})
    labels = [number(value) for value in values]
    for digits in range(8):
        if len({*labels}) == different:
            break
        labels = [_number(value, digits) for value in values]
    return labels


def _number(value: float, digits: int) -> str:
    return f"{value / 1e6:,.{digits}f} M" if abs(value) >= 1e6 else f"{value:,.{digits}f}"


def number(value: float, _: object = None) -> str:
    """A value or a count on an axis."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:,.4g} M"
    return f"{value:,.0f}" if abs(value) >= 20 or float(value).is_integer() else f"{value:,.3g}"


def change_tick(metric: Metric) -> Callable[[float, object], str]:
    """What writes a change of the metric on an axis."""

    def tick(change: float, _: object = None) -> str:
        if abs(change) < 1e-9:
            return "0"
        return (f"{100 * change:+.3g} %" if metric.scale == "log" else f"{change:+.3g}").replace("-", "−")

    return tick


def counted(shown: int, of: int, noun: str, which: str) -> str:
    """A sentence about what is left out of a figure; "" where nothing is."""
    return "" if shown == of else f" Shown are the {shown} {noun} {which} of {of}; all are in the CSV files."
