"""What a trial scored on each test example: a file in its folder, and in blocks for its journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.disk import replacing
from ablate.protocol import Blocks

EXAMPLES = "test_examples.npy"
BLOCKS = 50


def blocks_of(values: NDArray[Any], block_of: NDArray[Any] | None = None) -> Blocks | None:
    """Sizes and totals of blocks; None where a value is not finite.

    Args:
        values: shape [n], in an order in which neighbours are alike.
        block_of: the block of each example, 0, 1, …, shape [n]; None: 50 runs of neighbours whose sizes differ by one
            at most, or as many as there are examples.
    """
    if block_of is None:
        block_of = np.arange(values.size) * min(BLOCKS, values.size) // values.size
    totals = np.bincount(block_of, values.astype(np.float64))
    if not np.isfinite(totals).all():
        return None
    return Blocks(np.bincount(block_of).tolist(), totals.tolist())


def save_examples(folder: Path, values: NDArray[Any]) -> None:
    """Write `test_examples.npy`, whole or not at all: float16, or float64 where that ends too early."""
    small = float(np.abs(values).max()) <= float(np.finfo(np.float16).max)
    with replacing(folder / EXAMPLES) as file:
        np.save(file, values.astype(np.float16 if small else np.float64))
