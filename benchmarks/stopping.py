"""How often seeds=auto is wrong, and how many seeds it takes: simulated studies that are looked at after every seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablate.analyze.paired import LEVEL, Array, t_interval
from ablate.analyze.sequential import always_valid_p, confidence_sequence
from benchmarks.common import Table

FIRST, MOST = 2, 30  # looks; with two seeds nothing is decided yet
# Comparisons, their true effect, and the smallest that matters: in standard deviations of a difference.
SETTINGS: tuple[tuple[int, float, float | None], ...] = tuple(
    (comparisons, effect, worth)
    for comparisons in (1, 5)
    for effect, worth in ((0.0, None), (0.5, None), (1.0, None), (2.0, None), (0.0, 1.0), (1.0, 1.0))
)


@dataclass(frozen=True)
class Measured:
    """What a rule does with simulated studies, which stop at the first look at which every comparison is decided.

    Attributes:
        differs, equivalent: share of studies in which at any of the looks some comparison was found to be so.
        decided: share of studies that stop by themselves.
        median, ninth: seeds at which half and nine tenths of the studies have stopped; infinite: not by then.
    """

    differs: float
    equivalent: float
    decided: float
    median: float
    ninth: float


def stopping(studies: int = 4000) -> Table:
    """Findings and seeds of seeds=auto, and of a t test that is looked at as often."""
    rows = []
    for place, (comparisons, effect, worth) in enumerate(SETTINGS):
        delta = simulate(comparisons, effect, studies, np.random.default_rng(place))
        auto, peeking = by_always_valid_p(delta, worth), by_t(delta)
        ours = [_percent(auto.differs), "" if worth is None else _percent(auto.equivalent), _percent(auto.decided)]
        theirs = [_percent(peeking.differs), _seeds(peeking.median), _seeds(peeking.ninth)]
        smallest = "" if worth is None else f"{worth:g}"
        rows.append([comparisons, f"{effect:g}", smallest, *ours, _seeds(auto.median), _seeds(auto.ninth), *theirs])
    return Table(
        title="Findings and seeds of seeds=auto",
        command="python -m benchmarks stopping",
        headings=[
            "comparisons", "true effect", "worth", "found to differ, %", "found equivalent, %", "decided, %",
            "seeds, median", "seeds, 90 %", "t test: found to differ, %", "its seeds, median", "its seeds, 90 %",
        ],
        rows=rows,
        note=f"{studies:,} simulated studies a row, looked at after every seed from {FIRST} to {MOST}. Effects and "
        "worth are in standard deviations of a paired difference; all comparisons have the same effect, and share a "
        "baseline. Found: of any comparison, at any look, so that under no effect every difference found is false, and "
        "where effect and worth are equal every equivalence is. Decided: studies in which all comparisons were, at one "
        "look; seeds: that they took. The t test is at 5 % over the number of comparisons, and stops in the same way. "
        "The simulation's own error is below 1 percentage point where a share is below 10 % (two standard errors).",
    )  # fmt: skip


def simulate(comparisons: int, effect: float, studies: int, rng: np.random.Generator) -> Array:
    """Differences between cells and one baseline, of standard deviation 1: shape [studies, comparisons, MOST]."""
    cells = rng.normal(size=(studies, comparisons + 1, MOST))
    return np.asarray((cells[:, 1:] - cells[:, :1]) / math.sqrt(2) + effect)


def by_always_valid_p(delta: Array, worth: float | None) -> Measured:
    """As `ablate.analyze.stopping` decides."""
    alpha = (1 - LEVEL) / delta.shape[1]
    differs = np.array([always_valid_p(delta[..., :n]) < alpha for n in range(FIRST, MOST + 1)])
    equivalent = np.zeros_like(differs)
    if worth is not None:
        for look, n in enumerate(range(FIRST, MOST + 1)):
            low, high = confidence_sequence(delta[..., :n], 1 - alpha)
            equivalent[look] = (-worth < low) & (high < worth)
    return _measured(differs, equivalent)


def by_t(delta: Array) -> Measured:
    """A t test of the seeds so far, at every look."""
    alpha = (1 - LEVEL) / delta.shape[1]
    differs = np.array([t_interval(delta[..., :n])[2] < alpha for n in range(FIRST, MOST + 1)])
    return _measured(differs, np.zeros_like(differs))


def _measured(differs: NDArray[np.bool_], equivalent: NDArray[np.bool_]) -> Measured:
    """Of booleans of shape [looks, studies, comparisons]."""
    enough = (differs | equivalent).all(axis=-1)
    stops = np.where(enough.any(axis=0), FIRST + enough.argmax(axis=0), math.inf)
    median, ninth = np.quantile(stops, [0.5, 0.9], method="higher")
    return Measured(
        differs=float(differs.any(axis=(0, 2)).mean()),
        equivalent=float(equivalent.any(axis=(0, 2)).mean()),
        decided=float(np.isfinite(stops).mean()),
        median=float(median),
        ninth=float(ninth),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _seeds(number: float) -> str:
    return f"{number:.0f}" if math.isfinite(number) else f"> {MOST}"
