"""The arithmetic of a trial."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """The arithmetic of a trial, in floating-point operations, and how often each part of it is done.

    Attributes:
        window, eval_window: operations of one window of training, of one of an evaluation.
        windows, eval_windows: how many there are; the latter in all validations and the test.
        evaluations: how many of those.
    """

    window: float
    windows: int
    eval_window: float
    eval_windows: int
    evaluations: int

    @property
    def total(self) -> float:
        """Operations of the whole trial."""
        return self.window * self.windows + self.eval_window * self.eval_windows
