"""A study at the terminal: a live table where there is one, plain lines where there is not."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablate.study.cells import LeftOut
from ablate.study.plan import PlannedTrial
from ablate.track.journal import Event
from ablate.track.units import duration, perplexity

if TYPE_CHECKING:
    from ablate.report import Report

_ROWS_SHOWN = 24
_NAMES_SHOWN = 10
FILE_WIDTH = 160


@dataclass
class Progress:
    """Where a study stands; `now` is the clock, in seconds."""

    plan: Sequence[PlannedTrial]
    states: dict[str, str] = field(default_factory=dict)
    latest: dict[str, str] = field(default_factory=dict)
    _shares: dict[str, float] = field(default_factory=dict)  # of its training, by trial
    _shares_at_start: dict[str, float] = field(default_factory=dict)
    _began: float | None = None

    def __post_init__(self) -> None:
        self.states = {p.fingerprint: "waiting" for p in self.plan}

    def set(self, planned: PlannedTrial, state: str) -> None:
        """Note that a trial is now running, done, skipped, busy, failed or diverged."""
        self.states[planned.fingerprint] = state

    def starts(self, planned: PlannedTrial, window: int, now: float) -> None:
        """A trial is trained from this window on."""
        self.set(planned, "running")
        share = window / max(1, planned.windows)
        self._shares[planned.fingerprint] = self._shares_at_start[planned.fingerprint] = share
        if self._began is None:
            self._began = now

    def measured(self, planned: PlannedTrial, values: Mapping[str, Any]) -> None:
        """Take in a point of a curve."""
        share = int(values["step"]) / max(1, planned.windows)
        # Its start is not always seen: another study may have begun it just before this one looked.
        self._shares_at_start.setdefault(planned.fingerprint, share)
        self._shares[planned.fingerprint] = share
        split = "train" if "train_nll" in values else "valid"
        value = perplexity(float(values[f"{split}_nll"]))
        self.latest[planned.fingerprint] = f"{split} perplexity {value:,.1f} · {share:.0%}"

    def seconds_left(self, now: float) -> float | None:
        """Estimate from the arithmetic still to do and the speed so far; None before there is one."""
        done = sum((share - self._shares_at_start[p]) * self._work(p) for p, share in self._shares.items())
        if self._began is None or done == 0:
            return None
        open_ = ("waiting", "running", "busy")
        left = sum(p.work for p in self.plan if self.states[p.fingerprint] in open_)
        left -= sum(share * self._work(p) for p, share in self._shares.items() if self.states[p] in open_)
        return max(0.0, left * (now - self._began) / done)

    def _work(self, fingerprint: str) -> float:
        return next(p.work for p in self.plan if p.fingerprint == fingerprint)

    def counts(self) -> str:
        """For example: 2 done, 1 running, 3 waiting."""
        order = ("done", "skipped", "running", "busy", "failed", "diverged", "waiting")
        values = list(self.states.values())
        return ", ".join(f"{values.count(state)} {state}" for state in order if state in values)


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
            window = int(event.get("window", 0))
            self.progress.starts(planned, window, time.monotonic())
            self._says(planned, _how_it_starts(planned, kind, window))
        elif kind in ("train", "valid"):
            self.progress.measured(planned, event)
            if kind == "valid":
                left = self.progress.seconds_left(time.monotonic())
                eta = "" if left is None else f" · {duration(left)} left"
                self._says(planned, f"window {event['step']}, {self.progress.latest[planned.fingerprint]}{eta}")
        elif kind == "finished":
            self.progress.set(planned, "done" if event["status"] == "FINISHED" else "diverged")
            self._ends(planned, result(event))
        elif kind == "failed":
            self.progress.set(planned, "failed")
            self._ends(planned, f"failed, {event['reason']}")

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
        self.console.print(_as_rich(report))
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


def make_view(name: str, plan: Sequence[PlannedTrial]) -> View:
    """The live view on a terminal, plain lines elsewhere."""
    console = Console()
    if console.is_terminal:
        return LiveView(name, plan, console)
    # In a file there is no edge to wrap a table at.
    return View(name, plan, Console(width=FILE_WIDTH))


def _around_current(progress: Progress) -> Sequence[PlannedTrial]:
    running = [i for i, p in enumerate(progress.plan) if progress.states[p.fingerprint] == "running"]
    first = max(0, min((running or [0])[0] - _ROWS_SHOWN // 2, len(progress.plan) - _ROWS_SHOWN))
    return progress.plan[first : first + _ROWS_SHOWN]


def result(finished: Event) -> str:
    """What a trial came to, in a line."""
    if finished["status"] != "FINISHED":
        return f"{finished['status']} at window {finished['diverged_at']}: the loss is not a finite number"
    valid, test = perplexity(finished["valid_nll"]), perplexity(finished["test_nll"])
    return f"valid {valid:,.1f} · test {test:,.1f} · {duration(finished['seconds'])}"


def describe_left_out(left_out: Sequence[LeftOut]) -> list[str]:
    """One line a reason: which cells a design has not, and why."""
    labels: dict[str, list[str]] = {}
    for one in left_out:
        labels.setdefault(one.reason, []).append(one.label)
    return [f"left out, {reason}: {_some(names)}" for reason, names in labels.items()]


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return " · ".join(names[:_NAMES_SHOWN]) + (f" · and {more} more" if more > 0 else "")


def _how_it_starts(planned: PlannedTrial, kind: str, window: int) -> str:
    if kind == "resumed":
        return f"goes on at window {window} of {planned.windows}"
    why = f"; trained again, {planned.why}" if planned.why else ""
    return f"started, {planned.parameters:,} parameters{why}"


def _title(planned: PlannedTrial) -> str:
    return f"{planned.cell.label} · seed {planned.trial.seed}"


def _as_rich(report: Report) -> Table:
    table = Table()
    # The page has it; a terminal is narrow.
    shown = report.table.drop(columns=["P(better)", "train perplexity"], errors="ignore")
    for i, heading in enumerate(shown.columns):
        table.add_column(heading, justify="left" if i == 0 else "right", overflow="fold")
    for row in shown.itertuples(index=False):
        table.add_row(*(Text(str(value)) for value in row))
    return table
