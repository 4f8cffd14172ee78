"""The machine a trial runs on: its device, threads and precision, checked before a study starts."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import torch

from ablate.config import KnobError, Knobs

_default_threads = torch.get_num_threads()


def check_machine(knobs: Knobs) -> None:
    """Raise KnobError when this machine cannot run what the knobs ask for."""
    if knobs.device == "cuda" and not torch.cuda.is_available():
        raise KnobError("device=cuda: torch sees no CUDA device on this machine; use device=cpu, or device=auto")
    if knobs.precision == "bf16" and not _has_bf16(choose_device(knobs.device)):
        raise KnobError(
            "precision=bf16: this processor has no bf16 arithmetic and would be many times slower; use precision=fp32"
        )


def choose_device(name: str) -> torch.device:
    """The torch device for a level of `device`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def set_default_threads(threads: int | None) -> None:
    """What `threads=null` means in this process; None: one a physical core."""
    global _default_threads
    if threads is not None:
        _default_threads = threads


def prepare(knobs: Knobs) -> torch.device:
    """Set the number of threads and return the device."""
    torch.set_num_threads(_default_threads if knobs.threads is None else knobs.threads)
    return choose_device(knobs.device)


def machine_facts(knobs: Knobs) -> dict[str, str]:
    """What a reader has to know of the machine to judge a time or a last digit."""
    device = choose_device(knobs.device)
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": str(torch.get_num_threads()),
        "precision": knobs.precision,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    probes: list[Callable[[], bool] | None] = [
        getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ]
    return any(probe() for probe in probes if probe is not None)
