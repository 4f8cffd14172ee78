"""What the marks of a figure say to a reader who points at them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    axis, found = marks.axis, []
    for x, y, says in zip(marks.x, marks.y, marks.says, strict=True):
        across, up = (float(place) for place in axis.transData.transform((float(x), float(y))))
        # A mark at the very end of an axis lies on its frame.
        if math.isfinite(across) and math.isfinite(up) and axis.bbox.padded(1).contains(across, up):
            found.append((_points(across, axis, -box.x0), -_points(up, axis, -box.y1), says))
    return found


def _points(pixels: float, axis: Axes, shift: float) -> float:
    """A tenth of a point is as exact as anybody points."""
    return round((pixels / axis.figure.dpi + shift) * _POINTS_PER_INCH, 1)
