"""Random streams: every number that training draws follows from the seed and a key, or is saved and restored."""

from __future__ import annotations

import hashlib
import random
import sys
from typing import Any

import numpy as np


def number(seed: int, *key: object, bits: int = 31) -> int:
    """A whole number of that many bits for every (seed, key): the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr((seed, *key)).encode()).digest()[:8], "little") >> (64 - bits)


def seed_all(seed: int, *key: object) -> None:
    """Seed the global generators of Python, NumPy and, where it is imported, torch from (seed, key)."""
    random.seed(number(seed, *key, "python", bits=63))
    # Not from the same number: Python and NumPy have the same generator, and would draw the same.
    start = number(seed, *key, "numpy", bits=63)
    np.random.seed([start & 0xFFFFFFFF, start >> 32])  # noqa: NPY002 (users' code draws from it)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(number(seed, *key, "torch", bits=63))


def global_state() -> dict[str, Any]:
    """The state of the global generators."""
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002
    }
    if torch := sys.modules.get("torch"):
        state["torch"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_global_state(state: dict[str, Any]) -> None:
    """Go on from `global_state`."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    if "torch" in state:
        import torch

        torch.set_rng_state(state["torch"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda"])
