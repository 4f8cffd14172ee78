"""How many processes train on this machine, where no other study shares it; and with how many threads each."""

from __future__ import annotations

import math
import os
import re
import warnings
from pathlib import Path

import psutil

from ablate.engines.engine import Demand

_OF_A_PROCESS = 600 * 2**20  # bytes that a worker needs besides its trials: torch, the text
_MEMORY = 0.8  # share of the free memory that is counted on


def best_workers(demand: Demand, threads: int | None, cores: int, memory: float) -> int:
    """Processes that train on the CPU: as many as cores and memory allow, at most one a pack.

    On two cores, two processes of one thread are faster than one of two, for narrow layers and wide ones
    (`python -m benchmarks workers`).

    Args:
        threads: of a trial, where `threads` says it.
        memory: free bytes.
    """
    return max(1, min(demand.packs, int(cores / cores_of_a_worker(demand, threads, cores, memory))))


def cores_of_a_worker(demand: Demand, threads: int | None, cores: int, memory: float) -> float:
    """Cores that it computes with; more where its memory is that of more: each core counts for its part of `memory`."""
    return max(threads or 1, cores * (_OF_A_PROCESS + demand.bytes) / max(1.0, _MEMORY * memory))


def threads_of(device: str) -> int:
    """Threads of a trial where `threads` does not say: one on a CPU, for another number adds in another order.

    So a trial ends with the same bits whatever trains beside it. Beside a CUDA device: all cores, at most
    OMP_NUM_THREADS, by which a user says how many it may have.
    """
    if device != "cuda":
        return 1
    most = re.match(r"\s*(\d+)", os.environ.get("OMP_NUM_THREADS", ""))
    return min(cores(), int(most[1])) if most and int(most[1]) >= 1 else cores()


def cores() -> int:
    """Physical cores; or as many as this process' affinity or its container's quota allow, where these are fewer."""
    import joblib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where the system does not tell physical from logical ones
        return max(1, int(joblib.cpu_count(only_physical_cores=True)))


def free_memory() -> float:
    """Bytes that can be had without swapping, on this machine and in this container."""
    available = float(psutil.virtual_memory().available)
    return min(available, *map(container_memory, control_groups(Path("/proc/self/cgroup"))))


def control_groups(membership: Path) -> list[Path]:
    """The control group (version 2) of this process, and those that it is in."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    own = next((root / line.removeprefix("0::/") for line in lines if line.startswith("0::/")), root)
    return [own, *own.parents[: len(own.parts) - len(root.parts)]]


def container_memory(group: Path) -> float:
    """Free bytes of a control group (version 2), caches of files counted as free; infinite where it has no limit."""
    try:
        limit, used = (group / name for name in ("memory.max", "memory.current"))
        free = int(limit.read_text()) - int(used.read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return math.inf
    return float(free + _numbers(group / "memory.stat").get("inactive_file", 0))


def _numbers(path: Path) -> dict[str, int]:
    """The lines `name number …` of one of the kernel's files; none where there is no such file."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}
