"""The machine a trial runs on: its device, threads and memory."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from ablate.knobs import KnobError


def check_device(name: str) -> None:
    """Raise KnobError for a device that this machine has not."""
    if name == "cuda" and not torch.cuda.is_available():
        raise KnobError("device=cuda: torch sees no CUDA device on this machine; use device=cpu, or device=auto")


def choose_device(name: str) -> torch.device:
    """The torch device for a level of `device`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def set_threads(threads: int) -> None:
    """How many CPU threads this process computes with: torch, and whatever else of BLAS and OpenMP is loaded."""
    threadpool_limits(threads)
    torch.set_num_threads(threads)


def keep_memory() -> None:
    """Keep freed memory in this process (glibc).

    Arrays as large as the logits would otherwise go back to the kernel after every window, and come back page by page.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mmap_threshold, trim_threshold = -3, -1
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)


def on_device(ids: NDArray[np.int32], device: torch.device) -> Tensor:
    """Whole numbers as a tensor on a device; the program goes on while they travel to a GPU."""
    tensor = torch.from_numpy(ids).long()
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def machine_facts(name: str) -> dict[str, str]:
    """What a reader has to know of the machine to judge a time or a last digit; `name`: a level of `device`."""
    device = choose_device(name)
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": str(torch.get_num_threads()),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    probes: list[Callable[[], bool] | None] = [
        getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ]
    return any(probe() for probe in probes if probe is not None)
