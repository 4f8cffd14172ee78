"""A study from its jobs to its report: check, plan, train, mirror, report."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ablate.config import KnobError
from ablate.report import Report, write_report
from ablate.study.cells import Cell, Job, make_cells, study_name
from ablate.study.plan import PlannedTrial, code_digest, git_facts, make_plan
from ablate.study.view import View, make_view
from ablate.track.journal import JOURNAL, Folder, Journal
from ablate.track.mirror import Followed, Mirror, tracking_uri
from ablate.track.read import read_study
from ablate.train import fit
from ablate.train.machine import machine_facts


def run_study(jobs: Sequence[Job]) -> int:
    """Train what is not finished yet, write the report, and return the exit code.

    Returns:
        0: every trial finished; 1: some failed or diverged, the others stand.

    Raises:
        KnobError: before anything is trained, with everything that is wrong.
    """
    cells = make_cells(jobs)
    knobs = cells[0].knobs
    folder = Folder(knobs.runs)
    plan = make_plan(cells, folder)
    name = study_name(cells)
    command = _command()
    _record_launch(folder, name, command, plan)
    view = make_view(name, plan)
    mirror = _mirror(folder, name, command, plan, view) if knobs.tracking.enabled else None
    try:
        with view:
            for planned in plan:
                if mirror is not None:
                    mirror.follow(Followed(planned.folder, planned.fingerprint, planned.cell.label))
                if planned.is_done:
                    view.skipped(planned)
                else:
                    _train(planned, command, view)
        report = write_report(read_study(folder, name), Path(knobs.reports))
        if mirror is not None:
            mirror.attach(report.folder)
    finally:  # also when a user stops the study
        if mirror is not None and not mirror.close():
            view.note("MLflow is behind; the same command, typed again, brings it up to date")
    view.summary(report, _how_to_browse(folder, knobs.tracking.uri, mirror.page()) if mirror is not None else None)
    return _exit_code(report)


def _train(planned: PlannedTrial, command: str, view: View) -> None:
    """Train one trial; whatever it raises is its own: the others go on."""
    planned.folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(planned.folder / JOURNAL)
    knobs, corpus = planned.trial.knobs, planned.corpus
    facts = {
        "data": corpus.name,
        "data_digest": corpus.digest,
        "code": code_digest(knobs.rnn),
        **git_facts(),
        **machine_facts(knobs),
    }
    journal.append(
        "started",
        fingerprint=planned.fingerprint,
        seed=planned.trial.seed,
        command=command,
        knobs=knobs.flat(),
        facts=facts,
        parameters=planned.parameters,
        data={
            "name": corpus.name,
            "digest": corpus.digest,
            "tokens": corpus.counts(),
            "vocabulary": len(corpus.words),
            "floor_nll": corpus.floor_nll,
        },
    )
    view.started(planned)

    def sink(event: str, /, **values: float | int | str | None) -> None:
        journal.append(event, **values)
        view.measured(planned, event, values)

    try:
        outcome = fit(planned.trial, corpus, sink, planned.folder)
    except KeyboardInterrupt:
        journal.append("interrupted", reason="stopped by the user")
        raise
    except Exception as error:
        log = planned.folder / "error.log"
        log.write_text(traceback.format_exc(), encoding="utf-8")
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        journal.append("failed", reason=reason, log=str(log))
        view.failed(planned, reason)
        return
    journal.append("finished", **asdict(outcome))
    view.finished(planned, outcome)


def _record_launch(folder: Folder, name: str, command: str, plan: Sequence[PlannedTrial]) -> None:
    trials: dict[str, tuple[Cell, list[dict[str, object]]]] = {}
    for planned in plan:
        trials.setdefault(planned.cell.label, (planned.cell, []))[1].append(
            {"seed": planned.trial.seed, "fingerprint": planned.fingerprint}
        )
    Journal(folder.study(name)).append(
        "launched",
        command=command,
        cells=[{"label": label, "levels": dict(cell.levels), "trials": rows} for label, (cell, rows) in trials.items()],
    )


def _mirror(folder: Folder, name: str, command: str, plan: Sequence[PlannedTrial], view: View) -> Mirror:
    digest = hashlib.sha256("|".join([name, *sorted(p.fingerprint for p in plan)]).encode()).hexdigest()
    tags = {"mlflow.source.name": command, "mlflow.source.type": "LOCAL", "ablate.command": command}
    mirror = Mirror(folder, plan[0].trial.knobs.tracking.uri, name, digest, tags, view.note)
    mirror.start()
    return mirror


def _command() -> str:
    """The command line that started this process, without a tracking URI, which may hold a password."""
    arguments = [
        "tracking.uri=***" if re.match(r"\+*tracking\.uri=", argument) else argument for argument in sys.argv[1:]
    ]
    return shlex.join(["python", "-m", "ablate", *arguments])


def _how_to_browse(folder: Folder, uri: str | None, page: str | None) -> str:
    """What to type and which address to open; `page` is None where the store could not be reached."""
    if uri is not None and uri.startswith(("http://", "https://")):
        return uri.rstrip("/") + (page or "")
    command = f"mlflow ui --backend-store-uri {shlex.quote(tracking_uri(folder, uri))}"
    return command if page is None else f"{command}\nthen open http://127.0.0.1:5000{page}"


def _exit_code(report: Report) -> int:
    return 0 if report.all_finished else 1


__all__ = ["KnobError", "run_study"]
