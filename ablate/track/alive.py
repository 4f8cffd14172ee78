"""Signs of life: a process that trains gives them, another one counts how long there were none."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from ablate.track.claims import BEAT, Claim, folder_of, newest_claim

BEAT_SECONDS = 15.0  # between two signs of life, or an eighth of the lease where that is shorter
_MOST_SECONDS = 5.0  # between two looks of a process that runs


class Beat:
    """Gives signs of life of claims from a thread of its own: a process that is stopped, or whose threads cannot run
    because one of them keeps Python's lock, gives none."""

    def __init__(self, claims: Sequence[Claim], seconds: float) -> None:
        self._claims = claims
        self._seconds = seconds
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="beat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _beat(self) -> None:
        count = 0
        while not self._is_over.wait(self._seconds):
            count += 1
            for claim in self._claims:
                with suppress(OSError):  # a full disk: the next one may get through
                    claim.beat(count)


class Silence:
    """How long a trial has given no sign of life, while this process looks.

    By the clock of this process, of which a look counts for a few seconds at most: after a laptop has slept, or a study
    was held by Ctrl-Z, nothing counts as silent that was stopped as well.

    Args:
        grace: seconds that do not count until the first sign.
    """

    def __init__(self, trial: Path, grace: float = 0.0) -> None:
        self._trial = trial
        self._sign = _sign(trial)
        self._seconds = -grace
        self._looked = time.monotonic()

    def look(self) -> float:
        """Seconds without a sign of life."""
        now, sign = time.monotonic(), _sign(self._trial)
        passed = min(now - self._looked, _MOST_SECONDS)
        self._seconds = 0.0 if sign != self._sign else self._seconds + passed
        self._looked, self._sign = now, sign
        return self._seconds


def _sign(trial: Path) -> tuple[int, str]:
    number = newest_claim(trial)
    try:
        return number, (folder_of(trial, number) / BEAT).read_text(encoding="utf-8")
    except OSError:
        return number, ""
