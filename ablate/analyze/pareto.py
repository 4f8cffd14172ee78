"""Which of several results are worth their cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def front(cost: ArrayLike, value: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other beats: none is as cheap and as good, and cheaper or better.

    Args:
        cost, value: shape [points]; less is better in both. NaN is no result, and never on the front.

    Returns:
        Shape [points]. Points that are equal in both stand or fall together.
    """
    costs, values = np.asarray(cost, float), np.asarray(value, float)
    no_worse = (costs[:, None] <= costs[None, :]) & (values[:, None] <= values[None, :])
    better = (costs[:, None] < costs[None, :]) | (values[:, None] < values[None, :])
    known = ~(np.isnan(costs) | np.isnan(values))
    return np.asarray(known & ~(no_worse & better).any(axis=0), dtype=bool)
