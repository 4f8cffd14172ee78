"""What has to be found out on a machine that trains, and nowhere else: its device, and what it settles."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from ablate.engines.engine import Machine
from ablate.knobs import KnobError
from ablate.protocol import Task
from ablate.train.machine import check_device, choose_device


def this_machine(device: str) -> Machine:
    """What trains where this is called; `device`: as `device=` says it. Raises KnobError where there is no such."""
    check_device(device)
    chosen = choose_device(device)
    return Machine(chosen.type, float(torch.cuda.mem_get_info(chosen)[1]) if chosen.type == "cuda" else 0.0)


def visible_gpus() -> list[str]:
    """The CUDA devices that this process may use, each as CUDA_VISIBLE_DEVICES names it."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return list(map(str, range(count))) if named is None else [name.strip() for name in named.split(",")][:count]


def settled(task: Task, configs: Sequence[Any], device: str) -> list[Any]:
    """Each configuration with what this machine settles, or the KnobError that refuses it."""
    found = []
    for config in configs:
        try:
            found.append(task.settle(config, device))
        except KnobError as error:
            found.append(error)
    return found
