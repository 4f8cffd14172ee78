"""What happens at which window: the budget, when to validate, and the learning rate. Pure functions of the knobs.

A trial's `budget` stretches time: with budget=0.5 everything below happens at half its window. So a shorter training is
the whole training at a smaller scale, not its beginning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ablate.tasks.language_model.config import Config


def budget_windows(knobs: Config, windows_per_epoch: int) -> int:
    """Windows that a trial trains on."""
    return max(1, round(knobs.budget * _planned(knobs, windows_per_epoch)))


def validation_windows(knobs: Config, windows_per_epoch: int) -> set[int]:
    """Windows after which a trial validates; the last is always one of them."""
    planned = _planned(knobs, windows_per_epoch)
    every = knobs.valid_every or windows_per_epoch
    due: Iterable[int] = range(every, planned, every)
    if knobs.valid_spacing == "doubling":
        due = (every << i for i in range(planned.bit_length()) if every << i < planned)
    return {*(max(1, round(knobs.budget * window)) for window in due), budget_windows(knobs, windows_per_epoch)}


def lr_factor(knobs: Config, window: int, windows_per_epoch: int) -> float:
    """What `lr` is multiplied with for the update of window `window`, counted from 0; without what plateau cuts.

    With t the time in windows of a budget of 1, T that budget, W = `warmup` · T, S the later of W and `decay_from` · T
    (both in whole windows), f = `lr_floor` and p = (t − S)/(T − S) from 0 to 1:

        warm-up       the n-th update has the factor n / W, for n ≤ W (Goyal et al. 2017, section 2.2)
        linear        1 − (1 − f) p
        cosine        f + (1 − f) (1 + cos πp) / 2 (Loshchilov & Hutter 2017, equation 5, without restarts)
        exponential   max(f, decay^−k), k: epochs completed since S (Zaremba et al. 2014)
        constant, plateau   1
    """
    planned, time = _planned(knobs, windows_per_epoch), window / knobs.budget
    rise = round(knobs.warmup * planned)
    start = max(rise, round(knobs.decay_from * planned))
    warm = min(1.0, (window + 1) / (knobs.budget * rise)) if rise > 0 else 1.0
    if time <= start:
        return warm
    if knobs.schedule == "exponential":
        assert knobs.decay is not None, "config refuses it"
        return max(knobs.lr_floor, knobs.decay ** -math.floor((time - start) / windows_per_epoch))
    if knobs.schedule in ("constant", "plateau"):
        return warm
    progress = min(1.0, (time - start) / (planned - start))
    left = 1 - progress if knobs.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return knobs.lr_floor + (1 - knobs.lr_floor) * left


def _planned(knobs: Config, windows_per_epoch: int) -> int:
    """Windows at a budget of 1."""
    if knobs.windows is not None:
        return knobs.windows
    assert knobs.epochs is not None, "config refuses a trial without a budget"
    return knobs.epochs * windows_per_epoch
