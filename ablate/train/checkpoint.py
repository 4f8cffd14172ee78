"""Weights on disk, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def save(path: Path, payload: dict[str, Any]) -> None:
    """Write `payload` so that a reader sees the old file or the new one, never a part (tmp, fsync, replace, fsync)."""
    new = path.with_name(f"{path.name}.tmp{os.getpid()}")
    with new.open("wb") as file:
        torch.save(payload, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save` wrote: tensors and plain values alone, no pickled code."""
    payload: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return payload
