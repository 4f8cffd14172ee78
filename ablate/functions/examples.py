"""What a function measured on each test example: checked against its result, and as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.functions.state import RunError
from ablate.metric import Metric
from ablate.protocol import Blocks
from ablate.train.examples import blocks_of

MOST_BLOCKS = 1000


@dataclass(frozen=True)
class Examples:
    """Values of the first metric by test example, shape [n], and the block of each where the function says it."""

    metric: Metric
    values: NDArray[Any]
    block_of: NDArray[Any] | None

    def blocks(self, test_value: float) -> Blocks | None:
        """Sizes and totals of their blocks. Raises RunError where their mean is not the function's result."""
        name = f"test_{self.metric.recorded}"
        values = self.values.astype(np.float64)
        mean, size = float(values.mean()), float(np.abs(values).mean())
        if (bad := np.flatnonzero(~np.isfinite(values))).size:
            first = int(bad[0])
            raise RunError(
                f"run.examples: example {first} is {values[first]}, and {name} is {test_value:.6g}; give finite values"
            )
        # What sums in single precision differ by.
        if abs(mean - test_value) > 1e-4 * abs(test_value) + 1e-6 * size:
            raise RunError(
                f"run.examples: the mean of the examples is {mean:.6g}, and the function returned "
                f"{name}={test_value:.6g}; give the values that it is the mean of"
            )
        return blocks_of(values, self.block_of)


def examples_of(metric: Metric, values: Any, blocks: Any) -> Examples:
    """What was given to `run.examples`. Raises RunError for what cannot be the examples of the metric."""
    if metric.scale == "log" and metric.logged is None:
        raise RunError(
            f"run.examples: {metric.name} is compared by its logarithm, and the mean of logarithms is not the "
            "logarithm of a mean: there is no interval by examples for it; leave run.examples out, or declare a metric "
            'that is a mean of its own logarithm, ablate.Metric("perplexity", scale="log", logged="nll")'
        )
    found = numbers_by_example("run.examples", values)
    if found.size < 2:
        raise RunError("run.examples: there is one example; what test data add to an interval needs at least 2")
    return Examples(metric, found, None if blocks is None else _block_of(blocks, found.size))


def numbers_by_example(where: str, values: Any) -> NDArray[Any]:
    """A list, an array or a tensor on any device as floats, shape [n]. Raises RunError for anything else."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if values.dtype.itemsize < 4 else values).numpy()  # NumPy has no bfloat16
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):  # the last: of tensors in a list
        array = np.empty((0, 0))
    if array.ndim != 1 or array.dtype.kind not in "bifu" or array.size == 0:
        raise RunError(f"{where}: must be one number an example, an array of shape (examples,)")
    return array.astype(np.float64) if array.dtype.kind != "f" else array


def _block_of(labels: Any, n: int) -> NDArray[Any]:
    """The number of each example's block, in the order in which blocks come first."""
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu()
    given = labels.tolist() if hasattr(labels, "tolist") else labels
    is_row = isinstance(given, (list, tuple))
    plain = [each.item() if hasattr(each, "item") else each for each in given] if is_row else []
    if not plain or not all(type(label) in (str, int) for label in plain):
        raise RunError(
            "run.examples: blocks must be one label an example, a text or a whole number: the document, the chapter"
        )
    if len(plain) != n:
        raise RunError(f"run.examples: there are {n} values and {len(plain)} labels of blocks; give one for each value")
    numbers = {label: number for number, label in enumerate(dict.fromkeys(plain))}
    if not 2 <= len(numbers) <= MOST_BLOCKS:
        raise RunError(
            f"run.examples: the labels make {len(numbers)} block{'s'[: len(numbers) != 1]}; 2 to {MOST_BLOCKS:,} are "
            "possible, and 50 are enough; without blocks=… runs of neighbours are taken"
        )
    return np.array([numbers[label] for label in plain])
