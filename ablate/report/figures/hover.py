"""What the marks of a figure say to a reader who points at them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

# (name, [(x, y, what it says), …]): plain lists, for they are written as JSON.
Placed = tuple[str, list[tuple[float, float, str]]]

_POINTS_PER_INCH = 72  # the unit of length of an SVG file of matplotlib's


@dataclass(frozen=True)
class Marks:
    """Marks that share a name: the points of a curve, the seeds of a cell.

    Attributes:
        axis: they are drawn on.
        name: for example the cell.
        x, y: in data.
        says: what each one says besides the name, for example "seed 3: 64.2".
    """

    axis: Axes
    name: str
    x: Iterable[float]
    y: Iterable[float]
    says: Sequence[str]


def placed(marks: Sequence[Marks], box: Bbox) -> list[Placed]:
    """The marks with their places in the SVG, in points from its top left; without those outside their axes.

    Args:
        marks: on axes that have been laid out.
        box: the part of the figure that the file shows, in inches.
    """
    return [(one.name, found) for one in marks if (found := _places(one, box))]


def _places(marks: Marks, box: Bbox) -> list[tuple[float, float, str]]:
    axis = marks.axis
    data = np.column_stack([np.asarray(list(values), float) for values in (marks.x, marks.y)])
    pixels = axis.transData.transform(data)
    frame = axis.bbox.padded(1)  # a mark at the very end of an axis lies on its frame
    seen = [frame.contains(*place) for place in pixels]  # False for NaN
    # A tenth of a point is as exact as anybody points.
    points = ((pixels / axis.figure.dpi - (box.x0, box.y1)) * (_POINTS_PER_INCH, -_POINTS_PER_INCH)).round(1)
    return [(x, y, says) for (x, y), says, shown in zip(points.tolist(), marks.says, seen, strict=True) if shown]
