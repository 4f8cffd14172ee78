"""Trials → packs: which of them train together, as one program."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import torch

from ablate.study.plan import PlannedTrial
from ablate.tasks.language_model.engine import NUMBERS
from ablate.tasks.language_model.model.packed import can_pack
from ablate.train.machine import choose_device

_MOST = 32  # trials that `pack=auto` trains together
_MEMORY = 0.5  # share of a device's memory that it counts on; the rest is for what the allocator cannot use


def make_packs(plan: Iterable[PlannedTrial]) -> list[list[PlannedTrial]]:
    """Packs of at most `pack` trials that differ in seeds and numbers alone, in the order of their first trials.

    `pack=auto` is as many as fit into the memory of a CUDA device. On a CPU it is one: a single trial keeps all cores
    busy there (`python -m benchmarks packs`).
    """
    groups: dict[Hashable, list[PlannedTrial]] = {}
    for planned in plan:
        groups.setdefault(_shape(planned), []).append(planned)
    packs = []
    for group in groups.values():
        size = _size(group[0])
        packs += [group[first : first + size] for first in range(0, len(group), size)]
    return packs


def _shape(planned: PlannedTrial) -> Hashable:
    """What trials of a pack have in common."""
    knobs = planned.trial.knobs
    common = tuple((name, value) for name, value in knobs.deciding().items() if name not in NUMBERS)
    return common, planned.data["digest"], planned.status, knobs.device, knobs.threads, knobs.sample_words, knobs.pack


def _size(planned: PlannedTrial) -> int:
    knobs = planned.trial.knobs
    if not can_pack(knobs.rnn):
        return 1
    if isinstance(knobs.pack, int):
        return knobs.pack
    device = choose_device(knobs.device)
    if device.type != "cuda":
        return 1
    _, total = torch.cuda.mem_get_info(device)
    return max(1, min(_MOST, int(_MEMORY * total / bytes_of(planned))))


def bytes_of(planned: PlannedTrial) -> float:
    """Memory of a trial: parameters, gradients, two moments, a copy in the products' type; and what a window keeps."""
    knobs = planned.trial.knobs
    tokens = max(knobs.batch * knobs.window, knobs.eval_batch * knobs.eval_window)
    # The logits, which become the gradient, and a copy; gates, cells and states of every layer.
    a_token = 2 * int(planned.data["details"]["vocabulary"]) + 40 * knobs.depth * knobs.hidden
    return 4.0 * (5 * planned.parameters + tokens * a_token)
