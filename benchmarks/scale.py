"""What a study of many trials on many nodes asks of the one process that plans, watches and reports."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from ablate.compose import values_of
from ablate.engines.engine import Engine, Machine
from ablate.study.cells import Cell, Job, Study
from ablate.study.jobs import make_study
from ablate.study.launched import LaunchRecord
from ablate.study.plan import PlannedTrial, make_plan
from ablate.study.view import View
from ablate.tasks.language_model import LANGUAGE_MODEL
from ablate.track.alive import Silence
from ablate.track.claims import TrialTail, claimed
from ablate.track.folder import Folder
from ablate.track.journal import JOURNAL, to_line
from benchmarks.common import Table
from benchmarks.report_scale import journal_of, measured, synthesise

_FILE_SERVER_MS = 0.5  # of one look-up or opening on a file server; an assumption, and told as one
_POINTS = 50  # measurements of a trial


def scale(cells: int = 1000, seeds: int = 10, nodes: int = 1000) -> Table:
    """Costs of one trial, one event, one look; and what they come to at 100,000 trials on 1,000 nodes."""
    rows: list[list[str]] = []

    def row(what: str, each: float, unit: str, times: int, at: str) -> None:
        rows.append([what, f"{each:.3g} {unit}", f"{each * times / (1e3 if unit == 'ms' else 1):,.0f} {at}"])

    with tempfile.TemporaryDirectory() as scratch:
        folder = Folder(Path(scratch, "runs"))
        study = _study(cells, seeds)
        trials = cells * seeds
        plan, seconds, _ = _timed(lambda: make_plan(study, folder, cast(Engine, _Engine())))
        row("planning a trial that nobody has trained", 1e3 * seconds / trials, "ms", 100_000, "s")
        line = to_line(LaunchRecord(folder, study, "p", "c").event(plan))
        row("the launch's line, a trial", len(line) / trials, "bytes", 100_000, "bytes")
        for planned in plan:
            _finish(planned)
        _, seconds, found = _timed(lambda: make_plan(study, folder, cast(Engine, _Engine())))
        row("planning a trial that is finished", 1e3 * seconds / trials, "ms", 100_000, "s")
        row("… files and folders opened for it", sum(found.values()) / trials, "", 100_000, "")
        bytes_each = sum(path.stat().st_size for path in folder.root.rglob(JOURNAL)) / trials
        row("a journal", bytes_each / 2**10, "KiB", 100_000, "KiB")
        rows += _watching(plan[:nodes], Path(scratch))
        (few, low), (many, high) = (_report(Path(scratch, str(n)), n, seeds) for n in (cells // 4, cells))
        further = (cells - cells // 4) * seeds
        row("a report, a further trial", 1e3 * (many - few) / further, "ms", 100_000, "s")
        row("… its memory", (high - low) / further, "MiB", 100_000, "MiB")
    return Table(
        title="What a thousand nodes ask of the process that plans, watches and reports",
        command="python -m benchmarks scale",
        headings=["", "each", "at 100,000 trials, 1,000 of them training"],
        rows=rows,
        note=f"Measured on {trials:,} trials ({cells:,} cells, {seeds} seeds) with {_POINTS} measurements each, on a "
        "local disk; the last column multiplies.",
    )


def _report(folder: Path, cells: int, seeds: int) -> tuple[float, float]:
    """Seconds and MiB of a report on so many cells."""
    synthesise(Folder(folder / "runs"), cells, seeds, _POINTS)
    seconds, peak, _ = measured(["-m", "ablate.report"], folder)
    return seconds, peak


def _watching(plan: list[PlannedTrial], scratch: Path) -> list[list[str]]:
    """One look at every trial that trains: its new events, its sign of life."""
    view = View("scale", plan, LANGUAGE_MODEL.metrics[0], "window", Console(file=StringIO()))
    tails = [TrialTail(planned.folder) for planned in plan]
    for tail in tails:
        tail.read()
    silences = [Silence(planned.folder) for planned in plan]

    def look() -> int:
        events = 0
        for planned, tail, silence in zip(plan, tails, silences, strict=True):
            for event in tail.read():
                view.event(planned, event)
                events += 1
            silence.look()
        return events

    _, idle, opened = _timed(look)
    for planned in plan:
        newest = max(planned.folder.glob("claim-*"))
        with (newest / JOURNAL).open("ab") as file:
            file.writelines(to_line(_log(step)) for step in range(10))
    events, busy, _ = _timed(look)
    each, files = 1e3 * idle / len(plan), sum(opened.values()) / len(plan)
    return [
        ["a look at a trial that trains", f"{each:.3g} ms", f"{idle:.2f} s for {len(plan):,}"],
        [
            "… files and folders opened for it",
            f"{files:.3g}",
            f"{files * len(plan) * _FILE_SERVER_MS / 1e3:.1f} s a round at {_FILE_SERVER_MS} ms each, of a file server",
        ],
        ["an event more", f"{1e3 * (busy - idle) / events:.3g} ms", f"{events / (busy - idle):,.0f} events/s"],
    ]


def _log(step: int) -> dict[str, Any]:
    return {"event": "log", "time": "2026-01-01T00:00:00.000+00:00", "step": step, "seen": step, "seconds": 1.0,
            "values": {"epoch": 0.1, "train_nll": 4.0, "lr": 0.003, "grad_norm": 0.2}}  # fmt: skip


def _study(cells: int, seeds: int) -> Study:
    values = values_of(LANGUAGE_MODEL, ["data=synthetic", "data.tokens=2000", "train_tokens=null", "windows=5"])
    study = make_study([Job((), values)])
    (only,) = study.cells
    made = [_cell(only, 0.0001 * (1 + number), seeds) for number in range(cells)]
    return replace(study, cells=made, launch=study.launch.model_copy(update={"seeds": seeds, "name": "scale"}))


def _cell(cell: Cell, rate: float, seeds: int) -> Cell:
    name = f"{rate:.4f}"
    return replace(
        cell,
        label=f"lr={name}",
        levels={"lr": name},
        config=cell.config.model_copy(update={"lr": rate}),
        seeds=tuple(range(seeds)),
    )


def _finish(planned: PlannedTrial) -> None:
    with claimed(planned.folder, "a launch") as claim:
        text = journal_of(0, {"depth": 1, "hidden": 100, "tie": True}, planned.trial.seed, planned.fingerprint, _POINTS)
        (claim.folder / JOURNAL).write_text(text, encoding="utf-8")


class _Engine:
    machine = Machine("cpu")

    def settle(self, configs: list[Any]) -> list[Any]:
        return [config.model_copy(update={"precision": "fp32"}) for config in configs]


_counted: Counter[str] | None = None


def _count(event: str, arguments: tuple[Any, ...]) -> None:
    if _counted is not None and event in ("open", "os.listdir", "os.scandir"):
        _counted[event] += 1


@contextmanager
def _counting() -> Iterator[Counter[str]]:
    """The files and folders that are opened in this block."""
    global _counted
    if not _hooked:
        sys.addaudithook(_count)
        _hooked.append(True)
    _counted = Counter()
    try:
        yield _counted
    finally:
        _counted = None


_hooked: list[bool] = []


def _timed(what: Callable[[], Any]) -> tuple[Any, float, Counter[str]]:
    with _counting() as found:
        began = time.perf_counter()
        result = what()
        return result, time.perf_counter() - began, found
