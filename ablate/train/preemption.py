"""A machine that is wanted back: training saves as soon as it can, and ends, to go on elsewhere."""

from __future__ import annotations

import threading

_asked = threading.Event()


class Preempted(BaseException):
    """Training has saved and ends. No Exception: nobody who handles errors of a model takes it for one."""


def ask(number: int = 0, frame: object = None) -> None:
    """Ask for it; can be the handler of a signal."""
    _asked.set()


def is_asked() -> bool:
    """Whether to save at once."""
    return _asked.is_set()


def leave() -> None:
    """Where it was asked for: raise Preempted. Called when all is saved."""
    if _asked.is_set():
        raise Preempted("its machine was wanted back")
