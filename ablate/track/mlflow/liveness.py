"""Which runs in MLflow are alive: heartbeats, runs of dead processes marked as killed, ended runs opened again."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.track.journal import Folder
from ablate.track.mlflow.client import search
from ablate.track.mlflow.files import log_record
from ablate.track.process import is_dead, this_process

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# Tags that say how a run has ended.
STATUS, REASON = "ablate.status", "ablate.reason"
_HEARTBEAT, _PROCESS = "ablate.heartbeat", "ablate.process"
_SILENT_SECONDS = 600.0


def owner() -> dict[str, str]:
    """The tag of a new run that says which process keeps it up to date."""
    return {_PROCESS: this_process()}


def beat(client: MlflowClient, run_ids: Iterable[str]) -> None:
    """Say of runs that their process is alive."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for run_id in run_ids:
        client.set_tag(run_id, _HEARTBEAT, now)


def reopen(client: MlflowClient, run_id: str) -> None:
    """Set a run to RUNNING again, without the tags that say how it had ended."""
    client.update_run(run_id, status="RUNNING")
    for name in {STATUS, REASON} & client.get_run(run_id).data.tags.keys():
        client.delete_tag(run_id, name)
    client.set_tag(run_id, _PROCESS, this_process())


def mark_killed(client: MlflowClient, run_id: str, trial: Path, started: str | None) -> None:
    """End a trial's run as KILLED, with the journal as it is now; `started` as in `log_record`."""
    log_record(client, run_id, trial, started)
    client.set_terminated(run_id, status="KILLED")


def mark_abandoned(client: MlflowClient, experiment: str, folder: Folder) -> None:
    """End runs that a dead process left open as KILLED; runs that ablate did not make are left alone."""
    for run in search(client, experiment, "attributes.status = 'RUNNING'"):
        if not _is_abandoned(run):
            continue
        tags = run.data.tags
        if fingerprint := tags.get("ablate.fingerprint"):
            mark_killed(client, run.info.run_id, folder.trial(fingerprint), tags.get("ablate.started"))
        else:
            client.set_terminated(run.info.run_id, status="KILLED")


def _is_abandoned(run: Run) -> bool:
    process = run.data.tags.get(_PROCESS)
    if process is None:
        return False
    dead = is_dead(process)
    return _is_silent(run) if dead is None else dead


def _is_silent(run: Run) -> bool:
    """Whether a run on another machine gives no sign of life; a sign from the future is none: a clock was set back."""
    last = run.data.tags.get(_HEARTBEAT)
    when = datetime.fromisoformat(last) if last else datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    return abs((datetime.now(UTC) - when).total_seconds()) > _SILENT_SECONDS
