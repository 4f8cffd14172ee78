"""Whose a run in MLflow is, and whether it is alive: heartbeats, runs of dead processes killed, ended ones reopened.

A run belongs to a runs folder: people who share a store may have machines and studies of the same name.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from filelock import FileLock

from ablate.disk import replacing
from ablate.track.folder import Folder
from ablate.track.mlflow.client import search
from ablate.track.mlflow.files import log_record
from ablate.track.process import is_dead, this_process

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# Tags that say how a run has ended.
STATUS, REASON = "ablate.status", "ablate.reason"
_HEARTBEAT, _PROCESS = "ablate.heartbeat", "ablate.process"
FOLDER = "ablate.folder"
_SILENT_SECONDS = 600.0


def folder_id(folder: Folder) -> str:
    """What tells a runs folder from every other, wherever it is moved; made once."""
    path = folder.root / "id"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        known = path.read_text(encoding="utf-8").strip() if path.exists() else ""
        if not known:
            known = str(uuid4())
            with replacing(path) as file:
                file.write(known.encode())
    return known


def owner(folder: str) -> dict[str, str]:
    """The tags of a new run that say to which folder it belongs, and which process keeps it up to date."""
    return {FOLDER: folder, _PROCESS: this_process()}


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
    """End runs of a folder that a dead process left open as KILLED; all others in the store are left alone."""
    own = folder_id(folder)
    for run in search(client, experiment, "attributes.status = 'RUNNING'"):
        if not _is_abandoned(run, own):
            continue
        tags = run.data.tags
        if fingerprint := tags.get("ablate.fingerprint"):
            mark_killed(client, run.info.run_id, folder.trial(fingerprint), tags.get("ablate.started"))
        else:
            client.set_terminated(run.info.run_id, status="KILLED")


def _is_abandoned(run: Run, own: str) -> bool:
    process, folder = run.data.tags.get(_PROCESS), run.data.tags.get(FOLDER)
    if process is None or folder not in (own, None):
        return False
    dead = is_dead(process)
    if dead is None and folder == own:
        return _is_silent(run)
    return bool(dead)  # a run without a folder was made before runs had one: it may be anybody's


def _is_silent(run: Run) -> bool:
    """Whether a run on another machine gives no sign of life; a sign from the future is none: a clock was set back."""
    last = run.data.tags.get(_HEARTBEAT)
    when = datetime.fromisoformat(last) if last else datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    return abs((datetime.now(UTC) - when).total_seconds()) > _SILENT_SECONDS
