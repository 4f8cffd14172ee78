"""Which job has which trials, kept on disk for the next launch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ablate.disk import replacing
from ablate.engines.assignment import Assignment
from ablate.engines.slurm.queue import SentJob, make_private
from ablate.track.claims import newest_claim


@dataclass(frozen=True)
class KeptJob:
    """A job whose end nobody has heard yet; `launch`: the id of that which submitted it."""

    job: SentJob
    launch: str


class KeptJobs:
    """A file for each trial that is with SLURM.

    Args:
        folder: of these files; jobs: of the jobs.
    """

    def __init__(self, folder: Path, jobs: Path) -> None:
        self._folder = folder
        self._jobs = jobs

    def find(self, pack: Sequence[Assignment]) -> KeptJob | None:
        """The job that was given exactly these trials, by a launch whose results stand."""
        try:
            record = json.loads(self._path(pack[0]).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        of_launches = pack[0].results_of
        if record["pack"] != _names(pack) or (of_launches is not None and record["launch"] not in of_launches):
            return None
        job = SentJob(record["job"], self._jobs / record["folder"])
        if job.result.exists() and not any(newest_claim(each.folder) for each in pack):
            return None  # what it trained was deleted since
        return KeptJob(job, record["launch"])

    def keep(self, pack: Sequence[Assignment], job: SentJob) -> None:
        """Write down which job has a pack."""
        make_private(self._folder)
        record = {"job": job.id, "folder": job.folder.name, "launch": pack[0].launch, "pack": _names(pack)}
        for each in pack:
            with replacing(self._path(each)) as file:
                file.write(json.dumps(record).encode())

    def forget(self, pack: Sequence[Assignment]) -> None:
        """Its end was heard."""
        for each in pack:
            self._path(each).unlink(missing_ok=True)

    def _path(self, each: Assignment) -> Path:
        return self._folder / f"{each.fingerprint[:16]}.json"


def _names(pack: Sequence[Assignment]) -> list[str]:
    return [each.fingerprint for each in pack]
