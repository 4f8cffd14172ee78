"""A study from its cells to its report: plan, train, mirror, report."""

from __future__ import annotations

import shlex
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.knobs import KnobError
from ablate.study.cells import Cell, Study
from ablate.study.estimate import show_plan
from ablate.study.mirroring import MirrorProcess
from ablate.study.packs import make_packs
from ablate.study.plan import PlannedTrial, make_plan
from ablate.study.pool import Pool
from ablate.study.records import task_record
from ablate.study.view import describe_left_out, make_view
from ablate.study.workers import choose_workers
from ablate.track.journal import Event, Folder, Journal, now, replace_text
from ablate.track.mlflow.client import tracking_uri
from ablate.train import Checkpoints

if TYPE_CHECKING:
    from ablate.report import Report


def run_study(study: Study, command: str) -> int:
    """Train what is not finished yet, write the report, and return the exit code.

    Args:
        command: what the user typed, for the record.

    Returns:
        0: every trial finished, or only the plan was asked for; 1: some failed or diverged, the others stand.

    Raises:
        KnobError: before anything is trained, with everything that is wrong.
    """
    launch = study.launch
    folder = Folder(launch.runs)
    plan = make_plan(study, folder)
    if launch.plan:
        show_plan(study, plan)
        return 0
    if launch.report:
        _check_reports(Path(launch.reports))
        # Pandas, scipy and matplotlib take seconds to import: meanwhile the first trials train.
        threading.Thread(target=import_module, args=["ablate.report"], daemon=True).start()
    launched = _record_launch(folder, study, command, plan)
    view = make_view(study.name, plan, study.task.metrics[0], study.task.step)
    mirror = None
    reports: list[Path] = []
    report = None
    try:
        if launch.tracking.enabled:
            mirror = MirrorProcess(folder, launch.tracking.uri, launched, view.note)
        with view:
            for note in describe_left_out(study.left_out):
                view.note(note)
            for planned in plan:
                if planned.is_done:
                    view.skipped(planned)
                    Checkpoints(planned.folder, planned.fingerprint).finish()  # where a kill came just before it
            packs = make_packs((planned for planned in plan if not planned.is_done), study)
            with Pool(study, choose_workers(packs, study), command, view) as pool:
                pool.run(packs)
        if launch.report:
            report = _report(folder, launched, Path(launch.reports))
            reports.append(report.folder)
    finally:  # also when a user stops the study
        if mirror is not None and not mirror.close(reports):
            view.note("MLflow is behind; the same command typed again, or python -m ablate.track sync, catches it up")
    browse = _how_to_browse(folder, launch.tracking.uri, mirror.page) if mirror is not None else None
    if report is None:
        return view.end_without_report(browse)
    view.summary(report, browse)
    return _exit_code(report)


def _report(folder: Folder, launched: Event, reports: Path) -> Report:
    from ablate.report import write_report
    from ablate.track.read import read_study

    # This launch, not the newest: another process may have launched a study of this name over other cells meanwhile.
    return write_report(read_study(folder, launched["study"], launched), reports)


def _check_reports(folder: Path) -> None:
    """Refuse before anything is trained what could not be written after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise KnobError(f"reports={folder}: cannot be written ({error.strerror}); name another folder") from error


def _record_launch(folder: Folder, study: Study, command: str, plan: Sequence[PlannedTrial]) -> Event:
    trials: dict[str, tuple[Cell, list[dict[str, object]]]] = {}
    for planned in plan:
        trials.setdefault(planned.cell.label, (planned.cell, []))[1].append(
            {"seed": planned.trial.seed, "fingerprint": planned.fingerprint}
        )
    launched: Event = {
        "time": now(),
        "study": study.name,
        "command": command,
        "design": study.record(),
        "task": task_record(study.task),
        "metrics": [asdict(metric) for metric in study.task.metrics],
        "reports": study.launch.reports,
        "cells": [
            {"label": label, "levels": dict(cell.levels), "components": dict(cell.components), "trials": rows}
            for label, (cell, rows) in trials.items()
        ],
    }
    Journal(folder.study(study.name)).append("launched", **launched)
    replace_text(folder.latest(), study.name)
    return launched


def _how_to_browse(folder: Folder, uri: str | None, page: str | None) -> str:
    """What to type and which address to open; `page` is None where the store could not be reached."""
    if uri is not None and uri.startswith(("http://", "https://")):
        return uri.rstrip("/") + (page or "")
    command = f"mlflow ui --backend-store-uri {shlex.quote(tracking_uri(folder, uri))}"
    return command if page is None else f"{command}\nthen open http://127.0.0.1:5000{page}"


def _exit_code(report: Report) -> int:
    return 0 if report.all_finished else 1
