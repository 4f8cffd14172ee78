"""A study at the terminal: a live table where there is one, plain lines where there is not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablate.metric import Metric
from ablate.output import make_console
from ablate.study.cells import LeftOut
from ablate.study.plan import PlannedTrial
from ablate.study.progress import Progress
from ablate.track.journal import Event
from ablate.track.lines import measured, result
from ablate.track.units import duration, how_many

if TYPE_CHECKING:
    from ablate.analyze.stopping import Look
    from ablate.report import Report

_ROWS_SHOWN = 24
_NAMES_SHOWN = 10


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
        self._print(f"study {self.name}: {how_many(cells, 'cell')}, {how_many(len(self.progress.plan), 'trial')}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def add(self, trials: Sequence[PlannedTrial]) -> None:
        """More trials are asked for."""
        self.progress.add(trials)

    def looked(self, look: Look, most: int) -> None:
        """Between two stages: how much is decided; `most`: seeds that may be trained."""
        self._print(describe_look(look, most))

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
            self._says(planned, _how_it_starts(planned, event, f"{self.step} {step}"))
        elif kind == "log":
            split, text = measured(event["values"], self.metric)
            self.progress.measured(planned, int(event["step"]), text, event.get("of"))
            if split == "valid":
                left = self.progress.seconds_left(time.monotonic())
                eta = "" if left is None else f" · {duration(left)} left"
                where = f"{self.step} {event['step']}, " if event["step"] else ""  # a task may have no steps
                self._says(planned, f"{where}{self.progress.latest[planned.fingerprint]}{eta}")
        elif kind == "finished":
            self.progress.set(planned, "done" if event["status"] == "FINISHED" else "diverged")
            self._ends(planned, result(event, self.metric, self.step))
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
    console = make_console()
    return (LiveView if console.is_terminal else View)(name, plan, metric, step, console)


def _around_current(progress: Progress) -> Sequence[PlannedTrial]:
    running = [i for i, p in enumerate(progress.plan) if progress.states[p.fingerprint] == "running"]
    first = max(0, min((running or [0])[0] - _ROWS_SHOWN // 2, len(progress.plan) - _ROWS_SHOWN))
    return progress.plan[first : first + _ROWS_SHOWN]


def describe_left_out(left_out: Sequence[LeftOut]) -> list[str]:
    """One line a reason: which cells a design has not, and why."""
    labels: dict[str, list[str]] = {}
    for one in left_out:
        labels.setdefault(one.reason, []).append(one.label)
    return [f"left out, {reason}: {_some(names)}" for reason, names in labels.items()]


def describe_look(look: Look, most: int) -> str:
    """How much is decided, and what follows from it."""
    known = f"{look.seeds} seeds: {len(look.decided)} of {look.comparisons} comparisons decided"
    if not look.comparisons:
        return f"{look.seeds} seeds: no comparison has a result; no more seeds are trained"
    if not look.undecided:
        return f"{known}; no more seeds are needed"
    left = f"{known}, {len(look.undecided)} undecided ({_some(look.undecided)})"
    return left + (f"; stopped by max_seeds={most}" if look.seeds >= most else "; one more seed of every cell")


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return " · ".join(names[:_NAMES_SHOWN]) + (f" · and {more} more" if more > 0 else "")


def _how_it_starts(planned: PlannedTrial, event: Event, where: str) -> str:
    if event["event"] == "resumed":
        return f"goes on at {where}" + (f" of {planned.steps}" if planned.steps else "")
    why = f"; trained again, {planned.why}" if planned.why else ""
    if changed := event.get("anew"):
        why = f"; from the start, because {changed} and the same bits would not come of what was saved"
    parameters = planned.facts.parameters
    return "started" + ("" if parameters is None else f", {parameters:,} parameters") + why


def _title(planned: PlannedTrial) -> str:
    return f"{planned.cell.label} · seed {planned.trial.seed}"


def _as_rich(report: Report, metric: Metric) -> Table:
    table = Table()
    # The page has it; a terminal is narrow.
    from ablate.report.tables import BESIDES  # it is there: a report was written

    shown = report.table.drop(columns=[*BESIDES, f"train {metric.name}"], errors="ignore")
    for i, heading in enumerate(shown.columns):
        table.add_column(heading, justify="left" if i == 0 else "right", overflow="fold")
    for row in shown.itertuples(index=False):
        table.add_row(*(Text(str(value)) for value in row))
    return table
