"""What an engine costs: a study of cells that wait for two seconds, beside a bare pool of processes."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.common import Table, run

_SECONDS = 2.0
_WORKERS = 2
_TASK = f"""
import time
from dataclasses import dataclass

import ablate


@dataclass
class Config:
    number: int = 0


@ablate.task(Config, metric=ablate.Metric("error"))
def train(config, run):
    time.sleep({_SECONDS})
    return {{"test_error": 1.0}}
"""


def engines(cells: int) -> Table:
    """Seconds of a study, and milliseconds a cell on top of what its training takes."""
    few, many = max(_WORKERS, cells // 10), cells
    from ray.cluster_utils import Cluster

    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"})
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": _WORKERS, "include_dashboard": False})
    contestants: dict[str, Callable[[int], float]] = {
        "a bare process pool": _pool,
        "engine=local": lambda count: _study(count, "engine=local", f"workers={_WORKERS}"),
        "engine=ray": lambda count: _study(count, "engine=ray", f"engine.address={cluster.address}"),
        "engine=ray engine.shared=false": lambda count: _study(
            count, "engine=ray", "engine.shared=false", f"engine.address={cluster.address}"
        ),
    }
    own = _SECONDS / _WORKERS
    rows = []
    try:
        for name, seconds_of in contestants.items():
            fixed, whole = seconds_of(few), seconds_of(many)
            above = (whole - fixed) / (many - few) - own
            rows.append([name, f"{fixed:.1f}", f"{whole:.1f}", f"{1000 * above:.0f}", f"{100 * above / own:.1f}"])
    finally:
        cluster.shutdown()
    return Table(
        title="What an engine costs a cell",
        command=f"python -m benchmarks engines --cells {cells}",
        headings=[
            "what trains", f"seconds, {few} cells", f"seconds, {many} cells", "ms a further cell, above its own",
            "% above its own",
        ],
        rows=rows,
        note=f"Cells that wait for {_SECONDS:g} s, {_WORKERS} at a time, each in a process of its own; no tracking, no "
        f"report. Load of the machine at the end: {os.getloadavg()[1]:.1f} of {os.cpu_count()} cores.",
    )  # fmt: skip


def _pool(cells: int) -> float:
    started = time.perf_counter()
    with ProcessPoolExecutor(_WORKERS) as pool:
        list(pool.map(time.sleep, [_SECONDS] * cells))
    return time.perf_counter() - started


def _study(cells: int, *knobs: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "task.py").write_text(_TASK, encoding="utf-8")
        numbers = ",".join(map(str, range(cells)))
        arguments = ["task=task.py:train", "-m", f"number={numbers}", "tracking=off", "report=false", *knobs]
        return run(["-m", "ablate", *arguments], Path(folder))[0]
