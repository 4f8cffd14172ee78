"""What `engine=slurm` asks of sbatch, and what is wrong with it as far as a login node can tell."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from ablate.knobs import KnobError
from ablate.launch import Launch, OnSlurm
from ablate.registry import suggest

_SIGNAL_SECONDS = 90
_OF_A_KNOB = {
    "cpus-per-task": "engine.cpus", "gpus": "engine.gpus", "gpus-per-node": "engine.gpus", "mem": "engine.memory",
    "partition": "engine.partition", "time": "engine.minutes",
}  # fmt: skip
_OF_THE_ENGINE = (
    "array", "error", "no-requeue", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "requeue", "signal",
    "wrap",
)  # fmt: skip


def settings_of(launch: Launch) -> OnSlurm:
    """The settings of the engine."""
    assert isinstance(launch.engine, OnSlurm)
    return launch.engine


def parameters(launch: Launch) -> dict[str, Any]:
    """What submitit's executor is given. Raises KnobError for an option that is not a user's to set."""
    asked = settings_of(launch)
    cpus = asked.cpus or launch.threads or 1
    gpus = int(launch.device == "cuda") if asked.gpus is None else asked.gpus
    found: dict[str, Any] = {
        "job_name": "ablate",
        "time": asked.minutes,
        "ntasks_per_node": 1,
        "cpus_per_task": cpus,
        "srun_args": [f"--cpus-per-task={cpus}"],  # which srun does not take from sbatch since SLURM 22.05
        "setup": [f"export OMP_NUM_THREADS={cpus}"],
        "signal_delay_s": signal_seconds(asked.minutes),
        "array_parallelism": asked.jobs,
        "additional_parameters": {"requeue": True, **_options(asked)},
    }
    if asked.partition is not None:
        found["partition"] = asked.partition
    if asked.memory is not None:
        found["mem"] = f"{round(asked.memory * 1024)}M"
    if gpus:
        found["gpus_per_node"] = gpus
    return found


def signal_seconds(minutes: int) -> int:
    """How long before the time limit of a job SLURM tells it."""
    return min(_SIGNAL_SECONDS, minutes * 60 // 4)


def _options(asked: OnSlurm) -> dict[str, str | int]:
    found = {name.lstrip("-").replace("_", "-"): value for name, value in (asked.options or {}).items()}
    for name in found:
        if name in _OF_A_KNOB:
            raise KnobError(f"engine.options.{name}: is set by {_OF_A_KNOB[name]}; use that")
        if name in _OF_THE_ENGINE:
            raise KnobError(f"engine.options.{name}: is set by the engine; leave it out")
    return found


def check_login_node(asked: OnSlurm) -> None:
    """Raise KnobError for what this machine can tell: SLURM or submitit that is missing, an unknown partition."""
    if find_spec("submitit") is None:
        raise KnobError("engine=slurm: submitit is not installed; pip install 'ablate-lm[slurm]'")
    if shutil.which("sbatch") is None:
        raise KnobError(
            "engine=slurm: there is no sbatch on this machine; use a login node of the cluster, or engine=local"
        )
    try:
        partitions = output_of(["sinfo", "--noheader", "--format=%R"]).split()
    except OSError as error:
        raise KnobError(f"engine=slurm: SLURM does not answer ({error}); try sinfo") from error
    if asked.partition is not None and asked.partition not in partitions:
        raise KnobError(
            f"engine.partition={asked.partition}: no such partition{suggest(asked.partition, partitions)}; there are "
            f"{', '.join(sorted({*partitions}))}"
        )


def output_of(command: Sequence[str]) -> str:
    """What one of SLURM's programs prints. Raises OSError with what it says where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{command[0]} took more than a minute") from error
    if done.returncode != 0:
        raise OSError((done.stderr.strip().splitlines() or [f"{command[0]} failed"])[-1])
    return done.stdout
