"""A study's share of this machine: the studies that run at a time divide its cores, and its memory with them."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from ablate.engines.cores import cores, cores_of_a_worker, free_memory
from ablate.engines.engine import Demand

FOLDER = Path(tempfile.gettempdir()) / "ablate-cores"  # of the locks, one a core
_AGAIN_SECONDS = 5.0  # between two looks for a core that another study has given back


class Share:
    """The cores that a study has while it trains.

    It has a core while it holds its lock, which is the kernel's and free as soon as its owner is dead, however it died.
    Where there can be no locks, every study has all cores.

    Args:
        demand: what it trains.
        most: workers that it would have alone on this machine.
        threads: of a trial, where `threads` says it.
        is_asked: whether `workers` says how many: that is obeyed.
    """

    def __init__(self, demand: Demand, most: int, threads: int | None, is_asked: bool) -> None:
        self._most = most
        self._is_asked = is_asked
        self._each = cores_of_a_worker(demand, threads, cores(), free_memory())
        self._held: dict[int, FileLock] = {}
        self._not_before = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give all back."""
        self._hold(0)

    def workers(self, left: int) -> int:
        """How many may train now, of so many packs that are left: as many as it has cores for, one at least.

        Takes what it needs of the cores that nobody has, and gives back what it needs no more. `workers=N` is obeyed.
        """
        self._hold(math.ceil(self._each * min(left, self._most)))
        if self._is_asked:
            return self._most
        return max(1, sum(math.ceil(self._each * count) <= len(self._held) for count in range(1, self._most + 1)))

    def _hold(self, wanted: int) -> None:
        while len(self._held) > wanted:
            self._held.popitem()[1].release()
        if len(self._held) == wanted or time.monotonic() < self._not_before:
            return
        for core in _cores():
            if core not in self._held and len(self._held) < wanted and (lock := _lock(core)) is not None:
                self._held[core] = lock
        self._not_before = time.monotonic() + _AGAIN_SECONDS


def _cores() -> Sequence[int]:
    """As many as a study may have, of those that this process may run on."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return allowed[: cores()]


def _lock(core: int) -> FileLock | None:
    """The lock of a core; None: another study holds it."""
    with suppress(OSError):  # it is another user's folder, which they have opened to all
        FOLDER.mkdir(exist_ok=True)
        FOLDER.chmod(0o777)
    lock = FileLock(FOLDER / str(core), timeout=0, mode=0o666)
    try:
        lock.acquire()
    except Timeout:
        return None
    except OSError:
        pass  # nothing can be locked here, and nobody has locked it
    return lock
