"""How long a trial takes, when its state is saved, and whether it has diverged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Stopped(BaseException):
    """Ends a function whose trial has diverged. No Exception, so that a user's `except Exception` lets it pass."""


class Ending:
    """Whether the trial has diverged, and where."""

    def __init__(self) -> None:
        self.diverged_at: int | None = None
        self.reason = ""

    @property
    def has_diverged(self) -> bool:
        """Whether a number was not finite."""
        return self.diverged_at is not None

    def diverge(self, step: int, reason: str) -> None:
        """The trial ends here."""
        self.diverged_at, self.reason = step, reason

    def refuse_infinite(self, step: int, values: dict[str, float]) -> None:
        """Raise Stopped where a number is not finite."""
        if bad := [name for name, value in values.items() if not math.isfinite(value)]:
            self.diverge(step, f"{bad[0]}={values[bad[0]]}")
            raise Stopped(self.reason)

    def refuse_more(self) -> None:
        """Raise Stopped again where a bare `except:` has swallowed it."""
        if self.has_diverged:
            raise Stopped(self.reason)


_SAVING = 20  # times as long as a save took is trained before the next: saving costs at most 5 % of the time


class Pace:
    """When a checkpoint is due: as soon as saving costs little, and after `most_seconds` whatever it costs.

    Args:
        most_seconds: between two checkpoints; 0: one is always due.
        clock: seconds.
    """

    def __init__(self, most_seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.most_seconds = most_seconds
        self._clock = clock
        self._saved_at: float | None = None
        self._took = 0.0

    @property
    def is_due(self) -> bool:
        """Whether enough time has passed; before the first checkpoint, always."""
        if self._saved_at is None:
            return True
        return self._clock() - self._saved_at >= min(self.most_seconds, _SAVING * self._took)

    def save(self, save: Callable[[], None], at_once: bool) -> None:
        """Call `save` where it is due, or where it must not wait."""
        if at_once or self.is_due:
            start = self._clock()
            save()
            self._saved_at = self._clock()
            self._took = self._saved_at - start


class Clock:
    """Wall time of a trial over all of its resumes, and of its loop alone."""

    def __init__(self) -> None:
        self._before = 0.0
        self._start = time.perf_counter()
        self._loop_before = 0.0
        self._loop_start: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds of the trial."""
        return self._before + time.perf_counter() - self._start

    @property
    def loop_seconds(self) -> float:
        """Seconds of its loop."""
        running = 0.0 if self._loop_start is None else time.perf_counter() - self._loop_start
        return self._loop_before + running

    def enter_loop(self) -> None:
        """The loop starts."""
        self._loop_start = time.perf_counter()

    def leave_loop(self) -> None:
        """The loop has ended."""
        self._loop_before, self._loop_start = self.loop_seconds, None

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"seconds": self.seconds, "loop_seconds": self.loop_seconds}

    def load(self, state: dict[str, float]) -> None:
        """Go on from there: what came before the loop is not counted twice."""
        self._before, self._start = state["seconds"], time.perf_counter()
        self._loop_before = state["loop_seconds"]
