"""Trials → packs: which of them train together, as one program."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from ablate.engines.engine import Demand, Machine
from ablate.study.cells import Study
from ablate.study.plan import PlannedTrial

_MOST = 32  # trials that `pack=auto` trains together
_MEMORY = 0.5  # share of a device's memory that it counts on; the rest is for what the allocator cannot use


def make_packs(plan: Iterable[PlannedTrial], study: Study, machine: Machine) -> list[list[PlannedTrial]]:
    """Packs of at most `pack` trials that the task can train together, in the order of their first trials.

    `pack=auto` is as many as fit into the memory of a CUDA device. On a CPU it is one: a single trial keeps all cores
    busy there (`python -m benchmarks packs`).
    """
    groups: dict[Hashable, list[PlannedTrial]] = {}
    alone: list[list[PlannedTrial]] = []
    packs = []
    for planned in plan:
        shape = study.task.shape(planned.trial.config)
        if shape is None:
            alone.append([planned])
        else:
            groups.setdefault((shape, planned.facts.digest, planned.status), []).append(planned)
    for group in groups.values():
        size = _size(group[0], study, machine)
        packs += [group[first : first + size] for first in range(0, len(group), size)]
    return packs + alone


def demand_of(packs: Sequence[Sequence[PlannedTrial]], study: Study) -> Demand:
    """What packs ask of an engine."""
    largest = max((len(pack) * study.task.bytes_of(pack[0].trial.config, pack[0].facts) for pack in packs), default=0.0)
    return Demand(len(packs), largest)


def _size(planned: PlannedTrial, study: Study, machine: Machine) -> int:
    if isinstance(study.launch.pack, int):
        return study.launch.pack
    if machine.device != "cuda":
        return 1
    fit = _MEMORY * machine.gpu_bytes / study.task.bytes_of(planned.trial.config, planned.facts)
    return max(1, min(_MOST, int(fit)))
