"""A study at the terminal: a live table where there is one, plain lines where there is not."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablate.report import Report
from ablate.study.plan import PlannedTrial
from ablate.track.units import duration, perplexity
from ablate.train import Outcome

_ROWS_SHOWN = 24
_FILE_WIDTH = 160


@dataclass
class Progress:
    """Where a study stands; `now` is the clock, in seconds."""

    plan: Sequence[PlannedTrial]
    states: dict[str, str] = field(default_factory=dict)
    latest: dict[str, str] = field(default_factory=dict)
    _work_done: float = 0.0
    _work_of_current: float = 0.0
    _began: float | None = None

    def __post_init__(self) -> None:
        self.states = {p.fingerprint: "waiting" for p in self.plan}

    def set(self, planned: PlannedTrial, state: str, now: float) -> None:
        """Note that a trial is now running, done, skipped, failed or diverged."""
        self.states[planned.fingerprint] = state
        if self._began is None and state == "running":
            self._began = now
        if state in ("done", "failed", "diverged"):
            self._work_done += planned.work
            self._work_of_current = 0.0

    def measured(self, planned: PlannedTrial, values: Mapping[str, Any]) -> None:
        """Take in a point of a curve."""
        share = int(values["tokens"]) / max(1, planned_tokens(planned))
        self._work_of_current = share * planned.work
        split = "train" if "train_nll" in values else "valid"
        value = perplexity(float(values[f"{split}_nll"]))
        self.latest[planned.fingerprint] = f"{split} perplexity {value:,.1f} · {share:.0%}"

    def seconds_left(self, now: float) -> float | None:
        """Estimate from the arithmetic still to do and the speed so far; None before there is one."""
        done = self._work_done + self._work_of_current
        if self._began is None or done == 0:
            return None
        waiting = sum(p.work for p in self.plan if self.states[p.fingerprint] in ("waiting", "running"))
        return max(0.0, (waiting - self._work_of_current) * (now - self._began) / done)

    def counts(self) -> str:
        """For example: 2 done, 1 running, 3 waiting."""
        order = ("done", "skipped", "running", "failed", "diverged", "waiting")
        values = list(self.states.values())
        return ", ".join(f"{values.count(state)} {state}" for state in order if state in values)


def planned_tokens(planned: PlannedTrial) -> int:
    """Tokens that a trial will have trained on at its end."""
    knobs = planned.trial.knobs
    return planned.windows * knobs.batch * knobs.window


class View:
    """Plain lines: one when a trial starts, validates and ends."""

    def __init__(self, name: str, plan: Sequence[PlannedTrial], console: Console) -> None:
        self.name = name
        self.progress = Progress(plan)
        self.console = console

    def __enter__(self) -> Self:
        cells = len({p.cell.label for p in self.progress.plan})
        self._print(f"study {self.name}: {cells} cells, {len(self.progress.plan)} trials")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def started(self, planned: PlannedTrial) -> None:
        """A trial starts."""
        self.progress.set(planned, "running", time.monotonic())
        self._print(f"{_title(planned)}: started, {planned.parameters:,} parameters")

    def skipped(self, planned: PlannedTrial) -> None:
        """A trial was finished by an earlier launch."""
        self.progress.set(planned, "skipped", time.monotonic())
        self._print(f"{_title(planned)}: finished before, not trained again (force=true would)")

    def measured(self, planned: PlannedTrial, event: str, values: Mapping[str, Any]) -> None:
        """A point of a curve."""
        self.progress.measured(planned, values)
        if event == "valid":
            left = self.progress.seconds_left(time.monotonic())
            eta = "" if left is None else f" · {duration(left)} left"
            self._print(f"{_title(planned)}: window {values['step']}, {self.progress.latest[planned.fingerprint]}{eta}")

    def finished(self, planned: PlannedTrial, outcome: Outcome) -> None:
        """A trial has a result, which may be that it diverged."""
        self.progress.set(planned, "done" if outcome.status == "FINISHED" else "diverged", time.monotonic())
        self._print(f"{_title(planned)}: {self._result(planned, outcome)}")

    def failed(self, planned: PlannedTrial, reason: str) -> None:
        """A trial raised an error."""
        self.progress.set(planned, "failed", time.monotonic())
        self.progress.latest[planned.fingerprint] = reason
        self._print(f"{_title(planned)}: failed, {reason}")

    def note(self, message: str) -> None:
        """Something a user should know that stops nothing."""
        self._print(f"note: {message}")

    def summary(self, report: Report, browse: str | None) -> None:
        """The table, the failures, and what to type next."""
        self.console.print()
        self.console.print(_as_rich(report))
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

    def _result(self, planned: PlannedTrial, outcome: Outcome) -> str:
        if outcome.status != "FINISHED" or outcome.valid_nll is None or outcome.test_nll is None:
            text = f"{outcome.status} at window {outcome.windows}: the loss is not a finite number"
        else:
            valid, test = perplexity(outcome.valid_nll), perplexity(outcome.test_nll)
            text = f"valid {valid:,.1f} · test {test:,.1f} · {duration(outcome.seconds)}"
        self.progress.latest[planned.fingerprint] = text
        return text

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

    def started(self, planned: PlannedTrial) -> None:
        """A trial starts."""
        self.progress.set(planned, "running", time.monotonic())

    def skipped(self, planned: PlannedTrial) -> None:
        """A trial was finished by an earlier launch."""
        self.progress.set(planned, "skipped", time.monotonic())

    def measured(self, planned: PlannedTrial, event: str, values: Mapping[str, Any]) -> None:
        """A point of a curve."""
        self.progress.measured(planned, values)

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


_STYLES = {"waiting": "dim", "skipped": "dim", "running": "bold", "failed": "red", "diverged": "red"}


def make_view(name: str, plan: Sequence[PlannedTrial]) -> View:
    """The live view on a terminal, plain lines elsewhere."""
    console = Console()
    if console.is_terminal:
        return LiveView(name, plan, console)
    # In a file there is no edge to wrap a table at.
    return View(name, plan, Console(width=_FILE_WIDTH))


def _around_current(progress: Progress) -> Sequence[PlannedTrial]:
    running = [i for i, p in enumerate(progress.plan) if progress.states[p.fingerprint] == "running"]
    first = max(0, min((running or [0])[0] - _ROWS_SHOWN // 2, len(progress.plan) - _ROWS_SHOWN))
    return progress.plan[first : first + _ROWS_SHOWN]


def _title(planned: PlannedTrial) -> str:
    return f"{planned.cell.label} · seed {planned.trial.seed}"


def _as_rich(report: Report) -> Table:
    table = Table()
    for i, heading in enumerate(report.table.columns):
        table.add_column(heading, justify="left" if i == 0 else "right")
    for row in report.table.itertuples(index=False):
        table.add_row(*(Text(str(value)) for value in row))
    return table
