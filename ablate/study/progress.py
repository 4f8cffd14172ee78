"""Where a study stands, and how long it will go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ablate.study.plan import PlannedTrial

_OPEN = ("waiting", "running", "busy")
_NOTHING = 1e-12  # of a study's work: what adding and subtracting may leave of a zero


@dataclass
class Progress:
    """Where a study stands; `now` is the clock, in seconds.

    Work is in floating-point operations, and its sums are kept up to date: a study may have many trials.
    """

    plan: Sequence[PlannedTrial]
    states: dict[str, str] = field(default_factory=dict)
    latest: dict[str, str] = field(default_factory=dict)
    _shares: dict[str, float] = field(default_factory=dict)  # of its training, by trial
    _shares_at_start: dict[str, float] = field(default_factory=dict)
    _done: float = 0.0
    _left: float = 0.0
    _total: float = 0.0
    _steps: dict[str, int] = field(default_factory=dict)  # of trials whose budget is known once they train
    _began: float | None = None

    def __post_init__(self) -> None:
        self._ask(self.plan)

    def add(self, trials: Sequence[PlannedTrial]) -> None:
        """Take in more trials, which are waiting."""
        new = [planned for planned in trials if planned.fingerprint not in self.states]
        self._ask(new)
        self.plan = [*self.plan, *new]

    def _ask(self, trials: Sequence[PlannedTrial]) -> None:
        self.states |= {planned.fingerprint: "waiting" for planned in trials}
        work = sum({planned.fingerprint: planned.facts.work for planned in trials}.values())
        self._left += work
        self._total += work

    def set(self, planned: PlannedTrial, state: str) -> None:
        """Note that a trial is now running, done, skipped, busy, failed or diverged."""
        was_open, is_open = self.states[planned.fingerprint] in _OPEN, state in _OPEN
        self._left += (is_open - was_open) * planned.facts.work * (1 - self._shares.get(planned.fingerprint, 0.0))
        self.states[planned.fingerprint] = state

    def starts(self, planned: PlannedTrial, step: int, now: float) -> None:
        """A trial is trained from this step on."""
        self.set(planned, "running")
        self._reached(planned, step)
        self._restart(planned)
        if self._began is None:
            self._began = now

    def measured(self, planned: PlannedTrial, step: int, text: str, steps: int | None = None) -> None:
        """Take in a point of a curve, what is shown of it, and of how many steps it is one."""
        if steps is not None:
            self._steps[planned.fingerprint] = steps
        share = self._reached(planned, step)
        # Its start is not always seen: another study may have begun it just before this one looked.
        if planned.fingerprint not in self._shares_at_start:
            self._restart(planned)
        known = [text] if text else []
        if planned.steps or planned.fingerprint in self._steps:
            known.append(f"{share:.0%}")
        self.latest[planned.fingerprint] = " · ".join(known)

    def seconds_left(self, now: float) -> float | None:
        """Estimate from the arithmetic still to do and the speed so far; None before there is one."""
        if self._began is None or self._done <= _NOTHING * self._total:
            return None
        return max(0.0, self._left * (now - self._began) / self._done)

    def _reached(self, planned: PlannedTrial, step: int) -> float:
        steps = self._steps.get(planned.fingerprint) or planned.steps
        share = min(1.0, step / steps) if steps else 0.0
        gained = (share - self._shares.get(planned.fingerprint, 0.0)) * planned.facts.work
        self._shares[planned.fingerprint] = share
        self._done += gained
        self._left -= gained * (self.states[planned.fingerprint] in _OPEN)
        return share

    def _restart(self, planned: PlannedTrial) -> None:
        """Count only what is trained from here on."""
        share, before = self._shares[planned.fingerprint], self._shares_at_start.get(planned.fingerprint, 0.0)
        self._done -= (share - before) * planned.facts.work
        self._shares_at_start[planned.fingerprint] = share

    def counts(self) -> str:
        """For example: 2 done, 1 running, 3 waiting."""
        order = ("done", "skipped", "running", "busy", "failed", "diverged", "waiting")
        values = list(self.states.values())
        return ", ".join(f"{values.count(state)} {state}" for state in order if state in values)
