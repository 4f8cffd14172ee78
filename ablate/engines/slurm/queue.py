"""Jobs of SLURM's: sent by submitit, looked at all at once, and what became of each."""

from __future__ import annotations

import os
import pickle
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from ablate.engines.engine import Died, Lost
from ablate.engines.slurm.settings import output_of
from ablate.knobs import KnobError

_MOST_OF_AN_ARRAY = 1000  # MaxArraySize, where a cluster does not say otherwise
_FIRST_SECONDS, _MOST_SECONDS = 2.0, 10.0  # between two looks at the queue: longer as nothing happens
_RESULT_SECONDS = 30.0  # until what a job has written is seen here: folders that machines share are late
_FAILED_SECONDS = 3.0  # that a job has failed for: one that is queued again shows other states on the way
_OVER = {
    "COMPLETED": "ended without a result; its log may say why",
    "FAILED": "failed; its log may say why",
    "OUT_OF_MEMORY": "ran out of memory; raise engine.memory",
    "TIMEOUT": "ran into its time limit before it could be queued again; raise engine.minutes",
    "DEADLINE": "ran into its deadline",
    "CANCELLED": "was cancelled",
}
_OF_THE_NODE = {"NODE_FAIL": "its node failed", "PREEMPTED": "it was preempted", "BOOT_FAIL": "its node did not start"}


@dataclass(frozen=True)
class SentJob:
    """A job of SLURM's.

    Attributes:
        id: "12", or "12_3" of an array.
        folder: where submitit keeps what it is given and what it says.
    """

    id: str
    folder: Path

    @property
    def log(self) -> Path:
        """What it printed, errors of Python's included."""
        return self.folder / f"{self.id}_0_log.err"

    @property
    def result(self) -> Path:
        """What its function returned, once there is any."""
        return self.folder / f"{self.id}_0_result.pkl"


class Queue:
    """The jobs of this user.

    Args:
        folder: of what jobs are given and what they say; nobody else can read it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._states: Mapping[str, str] = {}
        self._looked = self._listed = -float("inf")
        self._seconds = _FIRST_SECONDS
        self._results: set[Path] = set()
        self._over_since: dict[str, float] = {}

    def send(self, functions: Sequence[Callable[[], Any]], parameters: Mapping[str, Any]) -> list[SentJob]:
        """Submit jobs, as arrays. Raises KnobError where SLURM refuses them."""
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError

        folder = self._folder / uuid.uuid4().hex[:12]
        make_private(folder)
        executor = SlurmExecutor(folder, max_num_timeout=1_000_000)
        executor.update_parameters(**parameters)
        sent = []
        for first in range(0, len(functions), _MOST_OF_AN_ARRAY):
            try:
                with redirect_stderr(StringIO()):  # where submitit prints what it raises
                    jobs = executor.submit_array(functions[first : first + _MOST_OF_AN_ARRAY])
            except FailedJobError as error:
                said = [line for line in str(error).splitlines() if line.startswith("sbatch: ")] or [str(error)]
                hint = "; engine.gpus=0 asks for no GPU" if "gres" in said[-1] else ""
                raise KnobError(f"engine=slurm: SLURM refuses the job ({said[-1]}){hint}") from error
            sent += [SentJob(job.job_id, folder) for job in jobs]
        self._looked = -float("inf")
        return sent

    def look(self, jobs: Sequence[SentJob]) -> None:
        """Take in what has changed, at most so often that SLURM and a shared folder do not mind."""
        now = time.monotonic()
        if now - self._listed > 1:
            self._listed = now
            self._results = {Path(found) for folder in {job.folder for job in jobs} for found in _results_in(folder)}
        if now - self._looked < self._seconds:
            return
        with suppress(OSError):  # SLURM does not answer: nothing is known to have changed
            found = _states()
            self._seconds = _FIRST_SECONDS if found != self._states else min(1.5 * self._seconds, _MOST_SECONDS)
            self._states = found
            for job in jobs:
                if self._is_over(job):
                    self._over_since.setdefault(job.id, now)
                else:
                    self._over_since.pop(job.id, None)
        self._looked = now

    def has_ended(self, job: SentJob) -> bool:
        """Whether there is a result, or will be none, by the last look."""
        if job.result in self._results:
            return True
        since = self._over_since.get(job.id)
        may_be_late = self._states.get(job.id) in (None, "COMPLETED")
        return since is not None and time.monotonic() - since > (_RESULT_SECONDS if may_be_late else _FAILED_SECONDS)

    def _is_over(self, job: SentJob) -> bool:
        """Jobs of nodes that failed are queued again by SLURM itself: they are over when it lists them no more."""
        return self._states.get(job.id) in (None, *_OVER)

    def result(self, job: SentJob) -> Any:
        """What its function returned. Raises Died or Lost where it returned nothing."""
        if job.result.exists():
            outcome, value = pickle.loads(job.result.read_bytes())
            for path in (job.result, job.folder / f"{job.id}_submitted.pkl"):
                path.unlink(missing_ok=True)
            if outcome == "success":
                return value
            raise Died(f"job {job.id} failed: {value.strip().splitlines()[-1]}")
        state = self._states.get(job.id) or _accounted(job)
        if state in _OVER:
            raise Died(f"job {job.id} {_OVER[state]}")
        raise Lost(f"job {job.id} is gone ({_OF_THE_NODE.get(state, 'SLURM does not list it any more')})")

    def state(self, job: SentJob) -> str:
        """As SLURM calls it; "" where it does not list it."""
        return self._states.get(job.id, "")


def cancel(jobs: Sequence[SentJob]) -> None:
    """End jobs, whatever they do."""
    if jobs:
        with suppress(OSError):  # they have ended
            output_of(["scancel", *(job.id for job in jobs)])


def in_words(jobs: Sequence[SentJob]) -> str:
    """Ids as scancel takes them: an array is one."""
    return " ".join(dict.fromkeys(job.id.partition("_")[0] for job in jobs))


def make_private(folder: Path) -> None:
    """A folder that nobody else can read or write: what is pickled there is executed."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def _results_in(folder: Path) -> list[str]:
    try:
        return [str(folder / name) for name in os.listdir(folder) if name.endswith("_result.pkl")]
    except OSError:
        return []


def _states() -> dict[str, str]:
    """Id → state of every job of this user that SLURM remembers: those that ended, for some minutes."""
    command = ["squeue", f"--user={os.getuid()}", "--noheader", "--array", "--states=all", "--format=%i %T"]
    lines = output_of(command).splitlines()
    return dict(line.split() for line in lines if len(line.split()) == 2)


def _accounted(job: SentJob) -> str:
    """The state of a job that SLURM does not remember, where it keeps accounts; "" else."""
    try:
        lines = output_of(["sacct", "-X", "-n", "-P", "-o", "State", "-j", job.id]).split()
    except OSError:
        return ""
    return lines[0] if lines else ""
