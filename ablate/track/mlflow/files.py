"""The files of a run in MLflow: a trial's journal, its knobs, and what its model wrote."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.track.claims import read_bytes
from ablate.track.journal import JOURNAL, last_attempt, parse_events

if TYPE_CHECKING:
    from mlflow import MlflowClient

_CONFIG, _SAMPLE = "config.yaml", "sample.txt"


def log_record(client: MlflowClient, run_id: str, trial: Path, started: str | None) -> None:
    """Replace a run's copy of its trial's journal by the journal as it is now; add its knobs and its sample.

    Args:
        trial: its folder.
        started: when the run's attempt was started; the knobs and the sample of a later one are not the run's.
    """
    import yaml

    lines = read_bytes(trial)
    attempt = last_attempt(parse_events(lines))
    files = {JOURNAL: lines} if lines else {}
    if attempt and attempt[0]["time"] == started:
        files[_CONFIG] = yaml.safe_dump(attempt[0]["knobs"], allow_unicode=True).encode()
        if sample := attempt[-1].get("sample"):
            files[_SAMPLE] = sample.encode(errors="replace")
    if files:
        log_files(client, run_id, files)


def log_files(client: MlflowClient, run_id: str, files: dict[str, bytes]) -> None:
    """Give a run files: name → content."""
    # Copies, for what is still being written would grow under the upload.
    with tempfile.TemporaryDirectory() as scratch:
        for name, data in files.items():
            Path(scratch, name).write_bytes(data)
        client.log_artifacts(run_id, scratch)
