"""What a process has to know to train a trial, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What became of a trial, as `ablate.engines.worker.train` has it.
TRAINED, STANDS, BUSY, ALONE, PREEMPTED = "trained", "stands", "busy", "alone", "preempted"


@dataclass(frozen=True)
class Assignment:
    """A trial as plain values, which any process can read whatever its task is made of.

    Attributes:
        task: what `load_task` finds it by.
        values: of its configuration; record: the same as it may be written down.
        device: kind of the device that the plan has chosen.
        threads: CPU threads; None: as many as its device is good for (`ablate.engines.cores.threads_of`).
        data: what its journal says of its data.
        launch: the id of the study's launch.
        results_of: launches whose results stand; None: any does.
        lease: seconds without a sign of life after which others may take it over.
        silent: the number of a claim that counts as over, for it gave none for so long or its machine is gone; None:
            there is none.
        log: where people find what it prints; None: in its folder.
    """

    task: str
    values: Mapping[str, Any]
    seed: int
    device: str
    threads: int | None
    fingerprint: str
    folder: Path
    record: Mapping[str, Any]
    sources: Mapping[str, str]
    data: Mapping[str, Any]
    parameters: int | None
    command: str
    launch: str
    results_of: Sequence[str] | None
    lease: float
    silent: int | None = None
    log: Path | None = None
