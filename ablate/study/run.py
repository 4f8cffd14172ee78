"""A study from its cells to its report: plan, train, mirror, report."""

from __future__ import annotations

import shlex
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from ablate.address import refusal_of_address, without_secrets
from ablate.engines.engine import Engine, Left, make_engine
from ablate.knobs import KnobError
from ablate.launch import Launch, Tracking
from ablate.study.cells import Study
from ablate.study.estimate import show_plan
from ablate.study.launched import LaunchRecord
from ablate.study.mirroring import MirrorProcess
from ablate.study.naming import named
from ablate.study.plan import PlannedTrial, make_plan
from ablate.study.pool import Pool
from ablate.study.stages import Stages
from ablate.study.view import View, describe_left_out, make_view
from ablate.track.folder import Folder
from ablate.track.journal import Event
from ablate.track.mlflow.client import tracking_uri

if TYPE_CHECKING:
    from ablate.report import Report
    from ablate.track.read import Results


@dataclass(frozen=True)
class Ended:
    """A study that was run.

    Attributes:
        code: 0: every trial finished, or only the plan was asked for; 1: some failed or diverged, the others stand; or
            no cell has learned anything.
        runs: the runs folder.
        launched: the launch as it is recorded, or with plan=true as it would be.
    """

    code: int
    runs: str
    launched: Event


def run_study(study: Study, program: str, arguments: str) -> Ended:
    """Train what is not finished yet, and write the report.

    Args:
        program, arguments: what the user typed, for the record.

    Raises:
        KnobError: before anything is trained, with everything that is wrong.
    """
    launch = study.launch
    _check_tracking(launch.tracking)
    if not launch.plan:
        _check_folder("runs", Path(launch.runs))
        if launch.report:
            _check_folder("reports", Path(launch.reports))
    command = f"{program} {arguments}".rstrip()
    folder = Folder(launch.runs)
    with closing(make_engine(launch, study.task)) as engine:
        if launch.plan:
            found = _planned(study, folder, engine, program, command)
            show_plan(found.study, found.stages, engine)
            if found.note:
                print(f"note: {found.note}")
            return Ended(0, launch.runs, found.record.event(found.stages.up_to(found.stages.seeds)))
        _import_meanwhile(launch)
        found, launched = _launched(study, folder, engine, program, command)
        return _run(found, launched, folder, engine)


def _run(found: _Planned, launched: Event, folder: Folder, engine: Engine) -> Ended:
    study, record, stages, launch = found.study, found.record, found.stages, found.study.launch
    first = stages.up_to(stages.seeds)
    view = make_view(study.name, first, study.task.metrics[0], study.task.step)
    mirror = None
    reports: list[Path] = []
    report = left = None
    try:
        if launch.tracking.enabled:
            mirror = MirrorProcess(folder, launch.tracking.uri, launched, view.note)
        with view:
            for note in (*([found.note] if found.note else ()), *describe_left_out(study.left_out)):
                view.note(note)
            if (advice := engine.advice(stages.largest())) is not None:
                view.note(advice)
            with Pool(study, engine, record, view) as pool:
                _train(first, stages, pool, view)
                if launch.seeds == "auto":
                    launched = _add_seeds(stages, record, study, pool, view)
            record.end()
        if launch.report:
            report = _report(folder, launched, Path(launch.reports))
            reports.append(report.folder)
    except Left as error:
        left = str(error)
    except KeyboardInterrupt:
        view.note(f"python -m ablate.report {study.name} shows what is finished so far")
        raise
    finally:  # also when a user stops the study
        if mirror is not None and not mirror.close(reports):
            view.note("MLflow is behind; the same command typed again, or python -m ablate.track sync, catches it up")
    if left is not None:
        view.note(f"{left}; python -m ablate.track watch {study.name} follows")
        return Ended(0, launch.runs, launched)
    browse = _how_to_browse(folder, launch.tracking.uri, mirror.page) if mirror is not None else None
    if report is None:
        return Ended(view.end_without_report(browse), launch.runs, launched)
    view.summary(report, browse)
    return Ended(_exit_code(report), launch.runs, launched)


@dataclass(frozen=True)
class _Planned:
    """A study under its name, and what it will do; `note`: what to tell of the name."""

    study: Study
    note: str
    record: LaunchRecord
    stages: Stages


def _planned(study: Study, folder: Folder, engine: Engine, program: str, command: str) -> _Planned:
    mine = named(study, folder)
    record = LaunchRecord(folder, mine.study, program, command)
    plan = make_plan(mine.study, folder, engine, record.results_of)
    stages = Stages(mine.study, plan, engine, lambda trials: _results(folder, record.event(trials)))
    return _Planned(mine.study, mine.note, record, stages)


def _launched(study: Study, folder: Folder, engine: Engine, program: str, command: str) -> tuple[_Planned, Event]:
    """Plan a study and write down that it was launched, under a name that no other has taken meanwhile."""
    while True:
        found = _planned(study, folder, engine, program, command)
        first = found.stages.up_to(found.stages.seeds)
        folder.names_lock().parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.names_lock()):
            if named(study, folder).study.name == found.study.name:
                return found, found.record.write(first)


def _import_meanwhile(launch: Launch) -> None:
    """Pandas, scipy and matplotlib take seconds to import: meanwhile the first trials train."""
    needed = "ablate.report" if launch.report else "ablate.analyze.stopping" if launch.seeds == "auto" else None
    if needed is not None:
        threading.Thread(target=import_module, args=[needed], daemon=True).start()


def _train(trials: Sequence[PlannedTrial], stages: Stages, pool: Pool, view: View) -> None:
    """Train what has no result yet."""
    for planned in trials:
        if planned.is_done:
            view.skipped(planned)
    pool.run(stages.packs(trials))


def _add_seeds(stages: Stages, record: LaunchRecord, study: Study, pool: Pool, view: View) -> Event:
    """Look at the results, and train one more seed of every cell until that is enough; the launch as it then is."""
    seeds, most = stages.seeds, study.launch.most_seeds
    while True:
        look = stages.look(seeds)
        view.looked(look, most)
        if stages.is_enough(look):
            return record.write(stages.up_to(seeds), look)
        seeds += 1
        record.write(stages.up_to(seeds))
        view.add(stages.added(seeds))
        _train(stages.added(seeds), stages, pool, view)


def _results(folder: Folder, launched: Event) -> Results:
    from ablate.track.read import read_study

    return read_study(folder, launch=launched)


def _report(folder: Folder, launched: Event, reports: Path) -> Report:
    from ablate.report import write_report

    # This launch, not the newest: another process may have launched a study of this name over other cells meanwhile.
    results = _results(folder, launched)
    try:
        return write_report(results, reports)
    except OSError as error:
        raise KnobError(
            f"reports={reports}: the report cannot be written ({error}); all that was trained stands, and "
            f"python -m ablate.report {results.name} writes it later"
        ) from error


def _check_tracking(tracking: Tracking) -> None:
    """Refuse an address that no store can have."""
    if tracking.enabled and tracking.uri is not None and (refusal := refusal_of_address(tracking.uri)) is not None:
        raise KnobError(f"tracking.uri={without_secrets(tracking.uri)}: {refusal}")


def _check_folder(name: str, folder: Path) -> None:
    """Refuse before anything is trained what could not be written then or after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise KnobError(f"{name}={folder}: cannot be written ({error.strerror}); name another folder") from error


def _how_to_browse(folder: Folder, uri: str | None, page: str | None) -> str:
    """What to type and which address to open; `page` is None where the store could not be reached."""
    shown = without_secrets(tracking_uri(folder, uri))
    if shown.startswith(("http://", "https://")):
        return shown.rstrip("/") + (page or "")
    command = f"mlflow ui --backend-store-uri {shlex.quote(shown)}"
    return command if page is None else f"{command}\nthen open http://127.0.0.1:5000{page}"


def _exit_code(report: Report) -> int:
    return 0 if report.all_finished and not report.learned_nothing else 1
