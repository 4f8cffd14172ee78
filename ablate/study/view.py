"""A study at the terminal: a live table where there is one, plain lines where there is not."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablate.metric import Metric
from ablate.study.cells import LeftOut
from ablate.study.plan import PlannedTrial
from ablate.track.journal import Event
from ablate.track.units import duration

if TYPE_CHECKING:
    from ablate.report import Report

_ROWS_SHOWN = 24
_NAMES_SHOWN = 10
_OPEN = ("waiting", "running", "busy")
_NOTHING = 1e-12  # of a study's work: what adding and subtracting may leave of a zero
FILE_WIDTH = 160


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
    _steps: dict[str, int] = field(default_factory=dict)  # of trials whose budget is known once they train
    _began: float | None = None

    def __post_init__(self) -> None:
        self.states = {p.fingerprint: "waiting" for p in self.plan}
        self._left = self._total = sum({p.fingerprint: p.facts.work for p in self.plan}.values())

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


class View:
    """Plain lines: one when a trial starts, validates and ends."""

    def __init__(
        self, name: str, plan: Sequence[PlannedTrial], metric: Metric, step: str, console: Console | None = None
    ) -> None:
        self.name = name
        self.metric = metric
        self.step = step
        self.progress = Progress(plan)
        self.console = console or Console()

    def __enter__(self) -> Self:
        cells = len({p.cell.label for p in self.progress.plan})
        self._print(f"study {self.name}: {cells} cells, {len(self.progress.plan)} trials")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def skipped(self, planned: PlannedTrial) -> None:
        """A trial was finished by an earlier launch, or by another study."""
        self.progress.set(planned, "skipped")
        self._says(planned, "finished before, not trained again (force=true would)")

    def busy(self, planned: PlannedTrial) -> None:
        """A trial is being trained by another study; it is told once."""
        if self.progress.states[planned.fingerprint] != "busy":
            self.progress.set(planned, "busy")
            self._says(planned, "another study is training it; looked at again later")

    def event(self, planned: PlannedTrial, event: Event) -> None:
        """Something that a trial's journal says."""
        kind = event["event"]
        if kind in ("started", "resumed"):
            step = int(event.get("step", 0))
            self.progress.starts(planned, step, time.monotonic())
            self._says(planned, _how_it_starts(planned, kind, f"{self.step} {step}"))
        elif kind == "log":
            split, text = self._point(event["values"])
            self.progress.measured(planned, int(event["step"]), text, event.get("of"))
            if split == "valid":
                left = self.progress.seconds_left(time.monotonic())
                eta = "" if left is None else f" · {duration(left)} left"
                self._says(planned, f"{self.step} {event['step']}, {self.progress.latest[planned.fingerprint]}{eta}")
        elif kind == "finished":
            self.progress.set(planned, "done" if event["status"] == "FINISHED" else "diverged")
            self._ends(planned, result(event, self.metric, self.step))
        elif kind == "failed":
            self.progress.set(planned, "failed")
            self._ends(planned, f"failed, {event['reason']}")

    def _point(self, values: Mapping[str, float | None]) -> tuple[str, str]:
        """The split and the text of a point; ("", "") where the metric was not measured."""
        for split in ("valid", "train"):
            logged = values.get(f"{split}_{self.metric.recorded}")
            if logged is not None:
                return split, f"{split} {self.metric.name} {_value(self.metric, logged)}"
        return "", ""

    def _says(self, planned: PlannedTrial, text: str) -> None:
        """One line about a trial."""
        self._print(f"{_title(planned)}: {text}")

    def _ends(self, planned: PlannedTrial, text: str) -> None:
        self.progress.latest[planned.fingerprint] = text
        self._print(f"{_title(planned)}: {text}")

    def note(self, message: str) -> None:
        """Something a user should know that stops nothing."""
        self._print(f"note: {message}")

    def summary(self, report: Report, browse: str | None) -> None:
        """The table, what it says, the failures, and what to type next."""
        self.console.print()
        self.console.print(_as_rich(report, self.metric))
        for sentence in report.findings:
            self._print(sentence)
        for warning in report.warnings:
            self._print(f"note: {warning}")
        if not report.failures.empty:
            self._print("without a result:")
            for row in report.failures.to_dict("records"):
                log = f" · log: {row['log']}" if row["log"] else ""
                self._print(f"  {row['cell']} seed {row['seed']}: {row['status']} {row['reason']}{log}")
        self._print(f"report: {report.page}")
        if browse is not None:
            self._print(f"curves: {browse}".replace("\n", "\n        "))

    def end_without_report(self, browse: str | None) -> int:
        """What came of a study whose report was not asked for; returns the exit code."""
        self._print(
            f"study {self.name}: {self.progress.counts()}; python -m ablate.report {self.name} writes the report"
        )
        if browse is not None:
            self._print(f"curves: {browse}".replace("\n", "\n        "))
        return 0 if set(self.progress.states.values()) <= {"done", "skipped"} else 1

    def _print(self, line: str) -> None:
        # No markup, no highlighting, no wrapping: a name may hold brackets, a path may be long.
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveView(View):
    """A table that is drawn anew as trials go on."""

    def __enter__(self) -> Self:
        super().__enter__()
        self._live = Live(get_renderable=self._table, console=self.console, refresh_per_second=2, transient=True)
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _says(self, planned: PlannedTrial, text: str) -> None:
        """The table shows it."""

    def _table(self) -> Table:
        left = self.progress.seconds_left(time.monotonic())
        eta = "" if left is None else f" · about {duration(left)} left"
        table = Table(title=Text(f"{self.name}: {self.progress.counts()}{eta}"), title_justify="left", box=None)
        for heading in ("cell", "seed", "state", ""):
            table.add_column(heading)
        for planned in _around_current(self.progress):
            state = self.progress.states[planned.fingerprint]
            table.add_row(
                Text(planned.cell.label),
                str(planned.trial.seed),
                state,
                Text(self.progress.latest.get(planned.fingerprint, "")),
                style=_STYLES.get(state, ""),
            )
        return table


_STYLES = {"waiting": "dim", "skipped": "dim", "busy": "dim", "running": "bold", "failed": "red", "diverged": "red"}


def make_view(name: str, plan: Sequence[PlannedTrial], metric: Metric, step: str) -> View:
    """The live view on a terminal, plain lines elsewhere."""
    console = Console()
    if console.is_terminal:
        return LiveView(name, plan, metric, step, console)
    # In a file there is no edge to wrap a table at.
    return View(name, plan, metric, step, Console(width=FILE_WIDTH))


def _around_current(progress: Progress) -> Sequence[PlannedTrial]:
    running = [i for i, p in enumerate(progress.plan) if progress.states[p.fingerprint] == "running"]
    first = max(0, min((running or [0])[0] - _ROWS_SHOWN // 2, len(progress.plan) - _ROWS_SHOWN))
    return progress.plan[first : first + _ROWS_SHOWN]


def result(finished: Event, metric: Metric, step: str) -> str:
    """What a trial came to, in a line."""
    if finished["status"] != "FINISHED":
        return f"{finished['status']} at {step} {finished['diverged_at']}: the loss is not a finite number"
    values = finished["values"]
    logged = {split: values.get(f"{split}_{metric.recorded}") for split in ("valid", "test")}
    parts = [f"{split} {_value(metric, value)}" for split, value in logged.items() if value is not None]
    return " · ".join([*parts, duration(finished["seconds"])])


def _value(metric: Metric, logged: float) -> str:
    digits = 1 if metric.scale == "log" else 2
    return f"{metric.value(logged):,.{digits}f}" + (f" {metric.unit}" if metric.unit else "")


def describe_left_out(left_out: Sequence[LeftOut]) -> list[str]:
    """One line a reason: which cells a design has not, and why."""
    labels: dict[str, list[str]] = {}
    for one in left_out:
        labels.setdefault(one.reason, []).append(one.label)
    return [f"left out, {reason}: {_some(names)}" for reason, names in labels.items()]


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return " · ".join(names[:_NAMES_SHOWN]) + (f" · and {more} more" if more > 0 else "")


def _how_it_starts(planned: PlannedTrial, kind: str, where: str) -> str:
    if kind == "resumed":
        return f"goes on at {where}" + (f" of {planned.steps}" if planned.steps else "")
    why = f"; trained again, {planned.why}" if planned.why else ""
    parameters = planned.facts.parameters
    return "started" + ("" if parameters is None else f", {parameters:,} parameters") + why


def _title(planned: PlannedTrial) -> str:
    return f"{planned.cell.label} · seed {planned.trial.seed}"


def _as_rich(report: Report, metric: Metric) -> Table:
    table = Table()
    # The page has it; a terminal is narrow.
    shown = report.table.drop(columns=["P(better)", f"train {metric.name}"], errors="ignore")
    for i, heading in enumerate(shown.columns):
        table.add_column(heading, justify="left" if i == 0 else "right", overflow="fold")
    for row in shown.itertuples(index=False):
        table.add_row(*(Text(str(value)) for value in row))
    return table
