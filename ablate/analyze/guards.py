"""Guards against a comparison that is no comparison: what a table of perplexities does not show of itself.

Each guard looks for one thing in what was recorded and says it in a sentence that names the rows; "" where there is
nothing to say. The limits are constants at the top.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ablate.analyze.table import finished, names
from ablate.track.units import percent

STARTS_ALIKE = 0.1  # nats: first losses that differ by more come from different initial values
# What decides which words the first window holds, and what loss a model without knowledge has there.
_FIRST_WINDOW = ("data_digest", "vocabulary_size", "knob.batch", "knob.window", "knob.output_bias")
CONVERGED = 0.02  # nats of valid loss that the last doubling of the budget may still have brought
READS_ALIKE = 0.1  # nats: how far ln(valid/test) of a trial may lie from the other trials'
SAME_SIZE = 1.1  # ratio of parameters
CLIPPED = 0.9  # share of windows
JUMP = 0.5  # nats that the train loss may rise above its lowest so far, between two points of its curve
_FEW = 3  # trials, below which nothing is far from the others


def guards(trials: pd.DataFrame, curves: pd.DataFrame) -> list[str]:
    """What to know before the rows are compared, a sentence or two each.

    Args:
        trials, curves: as `read_study` gives them.
    """
    done = finished(trials)
    if done.empty:
        return []
    said = [
        starts(done),
        not_converged(done, curves),
        valid_against_test(done),
        capacity(done),
        clipped(done),
        jumps(done, curves),
    ]
    return [sentence for sentence in said if sentence]


def starts(done: pd.DataFrame) -> str:
    """Cells whose first loss is more than `STARTS_ALIKE` higher than the lowest that reads the same first window."""
    if "first_nll" not in done:
        return ""
    by_cell = done.drop_duplicates("cell").set_index("cell")
    first = done["first_nll"].astype(float).groupby(done["cell"], sort=False).mean()
    same = [c for c in _FIRST_WINDOW if c in by_cell]
    window = by_cell[same].map(str).agg(" ".join, axis=1)
    above = first - first.groupby(window).transform("min")
    higher = above[above > STARTS_ALIKE]
    if higher.empty:
        return ""
    told = names([f"{cell} (by {value:.2f})" for cell, value in higher.items()])
    scaled = "knob.init" in by_cell and (by_cell.loc[higher.index, "knob.init"] == "scaled").all()
    return (
        f"The models do not start alike: the loss of the first window is higher, in nats, in {told} than in the row "
        "that starts lowest. Part of the difference between these rows may come from their initial values"
        + ("." if scaled else "; init=scaled starts all alike.")
    )


def not_converged(done: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Cells that were best at their last window and gained more than `CONVERGED` over the last half of the budget."""
    longest = 1.0
    if "knob.budget" in done:  # shorter ones are there to be compared with the longest
        budgets = done["knob.budget"].astype(float)
        longest = budgets.max()
        done = done[budgets == longest]
    best_last = done[done["best_window"].astype(float) == done["windows"].astype(float)]
    gains = _last_doubling(best_last, curves)
    still = {cell: gain for cell, gain in gains.items() if gain > CONVERGED}
    if not still:
        return ""
    falls = "knob.schedule" in done and not set(done["knob.schedule"]) <= {"constant", "plateau"}
    why = " (of which the falling learning rate has its part)" if falls else ""
    told = names([f"{cell} ({_percent(-gain)})" for cell, gain in still.items()])
    return (
        f"Not converged: {told}. These rows had their lowest valid perplexity at the end and gained so much over the "
        f"last half of their windows{why}: the table ranks what was learnt within this budget. "
        f"budget={longest:g},{2 * longest:g} shows whether a longer one changes the order."
    )


def _last_doubling(done: pd.DataFrame, curves: pd.DataFrame) -> dict[str, float]:
    """Cell → mean over its seeds of the valid loss at half the windows minus that at the end, in nats."""
    gains: dict[str, list[float]] = {}
    valid = dict(iter(curves[curves["split"] == "valid"].groupby(["cell", "seed"], sort=False)))
    for row in done.to_dict("records"):
        curve = valid.get((row["cell"], row["seed"]))
        if curve is None:
            continue
        by_step = curve[np.isfinite(curve["nll"].to_numpy(float))].sort_values("step")
        steps, nll, half = by_step["step"].to_numpy(float), by_step["nll"].to_numpy(float), float(row["windows"]) / 2
        if len(steps) and steps[0] <= half:
            at_half = float(np.interp(np.log(half), np.log(steps), nll))  # where no validation fell on it
            gains.setdefault(str(row["cell"]), []).append(at_half - float(nll[-1]))
    return {cell: float(np.mean(values)) for cell, values in gains.items()}


def valid_against_test(done: pd.DataFrame) -> str:
    """Trials whose ln(valid/test) lies far from the median of those on the same text."""
    apart = done["valid_nll"].astype(float) - done["test_nll"].astype(float)
    text = done["data_digest"] if "data_digest" in done else pd.Series("", done.index)
    off = apart - apart.groupby(text).transform("median")
    odd = done[(off.abs() > READS_ALIKE) & (apart.groupby(text).transform("size") >= _FEW)]
    if odd.empty:
        return ""
    told = [
        f"{row['cell']} seed {row['seed']} (valid {row['valid_perplexity']:,.1f}, test {row['test_perplexity']:,.1f})"
        for row in odd.to_dict("records")
    ]
    return (
        f"Valid and test text disagree about {names(told)} more than about the other trials. A state that is carried "
        "from window to window may have gone astray in one of the two: more seeds show whether it is chance."
    )


def capacity(done: pd.DataFrame) -> str:
    """The smallest and the largest row, where they differ by more than a tenth."""
    sizes = done.drop_duplicates("cell").set_index("cell")["parameters"].astype(float)
    if sizes.empty or sizes.max() <= SAME_SIZE * sizes.min():
        return ""
    small, large = (names([str(cell) for cell in sizes.index[sizes == size]], 3) for size in (sizes.min(), sizes.max()))
    return (
        f"The rows differ in size, from {sizes.min():,.0f} parameters ({small}) to {sizes.max():,.0f} ({large}): where "
        "a part adds or removes parameters, its effect includes theirs."
    )


def clipped(done: pd.DataFrame) -> str:
    """Cells whose gradient was clipped in more than `CLIPPED` of their windows.

    Under SGD alone: Adam divides the gradient by its size, so that there a limit that always acts changes little.
    """
    if "clipped" not in done:
        return ""
    if "knob.optimizer" in done:
        done = done[done["knob.optimizer"] == "sgd"]
    shares = done["clipped"].astype(float).groupby(done["cell"], sort=False).mean()
    nearly_always = shares[shares > CLIPPED]
    if nearly_always.empty:
        return ""
    told = names([f"{cell} ({100 * share:.0f} %)" for cell, share in nearly_always.items()])
    return (
        f"The gradient was clipped nearly always in {told}: there the limit `clip`, rather than the gradient, sets the "
        "length of a step, and lr and clip may suit some rows better than others."
    )


def jumps(done: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Cells whose train loss rose by more than `JUMP` above its lowest so far, which a rate that is too high does."""
    train = curves[curves["split"] == "train"]
    heights: dict[str, float] = {}
    known: Mapping[str, None] = dict.fromkeys(map(str, done["cell"]))
    for (cell, _), curve in train.groupby(["cell", "seed"], sort=False):
        nll = curve.sort_values("step")["nll"].to_numpy(float)
        nll = nll[np.isfinite(nll)]  # a loss that is no number is told as divergence
        rise = float(np.max(nll - np.minimum.accumulate(nll))) if len(nll) else 0.0
        if cell in known and rise > max(JUMP, heights.get(str(cell), 0.0)):
            heights[str(cell)] = rise
    if not heights:
        return ""
    told = names([f"{cell} (by {rise:.1f} nats)" for cell, rise in heights.items()])
    return (
        f"The train loss jumped in {told}: the learning rate is near the highest that these rows bear, and may favour "
        "the others."
    )


def _percent(nats: float) -> str:
    return percent(float(np.expm1(nats)))
