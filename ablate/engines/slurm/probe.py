"""What has to be asked of a node: its device, what it settles, and whether it has the code, the data and the folder."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ablate.code import differing
from ablate.disk import replacing
from ablate.engines.engine import Died, Lost
from ablate.engines.slurm.queue import Queue, SentJob, cancel
from ablate.find_task import load_task
from ablate.knobs import KnobError, plain, read
from ablate.names import some
from ablate.protocol import Task

_MINUTES = 15  # time limit of the job: it imports torch and reads the data
_LOOK_SECONDS = 0.5
_WHICH_NODE = ("partition", "cpus_per_task", "gpus_per_node", "mem", "additional_parameters")  # choose where a job runs
_TOGETHER = ("torch", "numpy")  # versions that decide bits


class Probe:
    """A job of the kind that trains, which answers a question; the answer is kept.

    Args:
        folder: of the answers.
        parameters: of the jobs that train.
        runs: the runs folder, as the user named it.
    """

    def __init__(self, folder: Path, queue: Queue, parameters: Mapping[str, Any], runs: str) -> None:
        self._folder = folder
        self._queue = queue
        self._parameters = {**parameters, "job_name": "ablate-probe", "time": min(_MINUTES, parameters["time"])}
        self._runs = runs

    def answer(self, task: Task, configs: Sequence[Any], device: str) -> dict[str, Any]:
        """What `answer` below has found out on a node. Raises KnobError where it cannot train there."""
        question = {
            "task": task.reference,
            "device": device,
            "configs": [plain(config) for config in configs],
            "versions": _versions(),
            "sources": _sources(task, configs),
        }
        kind = {name: self._parameters.get(name) for name in _WHICH_NODE}
        asked = json.dumps([question, kind], sort_keys=True, default=str)
        path = self._folder / f"{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"
        if path.is_file():
            kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return kept
        found = self._ask(question)
        if problems := _problems(found, question):
            raise KnobError(*problems)
        if all("problems" not in each for each in found["configs"]):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(json.dumps(found).encode())
        return found

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        (job,) = self._queue.send([Question(question)], self._parameters)
        print(f"engine=slurm: job {job.id} asks a node what it can train", flush=True)
        try:
            while not self._queue.has_ended(job):
                self._queue.look([job])
                time.sleep(_LOOK_SECONDS)
        except BaseException:
            cancel([job])
            raise
        try:
            found: dict[str, Any] = self._queue.result(job)
        except (Died, Lost) as error:
            raise KnobError(self._why_not(job, str(error))) from error
        return found

    def _why_not(self, job: SentJob, reason: str) -> str:
        if not job.log.exists():
            return (
                f"runs={self._runs}: the node that was to train does not see this folder (the {reason}); name one on a "
                "file system that all nodes share"
            )
        said = job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"engine=slurm: the node cannot train: {said[-1] if said else reason} (log: {job.log})"


class Question:
    """Answers a question on a node: a function of no arguments, as submitit wants it."""

    def __init__(self, question: Mapping[str, Any]) -> None:
        self._question = question

    def __call__(self) -> dict[str, Any]:
        """See `answer`."""
        return answer(self._question)


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """On the node: its host, its versions, what of the code differs, and what it makes of each configuration."""
    from ablate.engines.probe import settled, this_machine  # torch

    found: dict[str, Any] = {"host": socket.gethostname(), "python": sys.executable, "versions": _versions()}
    try:
        task = load_task(question["task"])
        configs = [read(task.Config, values) for values in question["configs"]]
        found["sources"] = _sources(task, configs)
        machine = this_machine(question["device"])
    except KnobError as error:
        return {**found, "problems": list(error.problems)}
    found |= {"device": machine.device, "gpu_bytes": machine.gpu_bytes}
    return {**found, "configs": [_settled(task, each) for each in settled(task, configs, question["device"])]}


def _settled(task: Task, config: Any) -> dict[str, Any]:
    try:
        if isinstance(config, KnobError):
            raise config
        task.describe(config)  # its data are there
    except KnobError as error:
        return {"problems": list(error.problems)}
    return {"values": plain(config)}


def _problems(found: Mapping[str, Any], question: Mapping[str, Any]) -> list[str]:
    """What keeps this kind of node from training as it was planned here."""
    host = found["host"]
    for name, here in question["versions"].items():
        if (there := found["versions"][name]) != here:
            what = f"{host} has {name} {there}, this machine {here}"
            return [f"engine=slurm: {what}; use one environment, on a file system that all nodes share"]
    if "problems" in found:
        hint = "; engine.gpus=1 asks for a GPU" if question["device"] == "cuda" else ""
        return [f"{problem} (so says {host}, a node of SLURM's{hint})" for problem in found["problems"]]
    if changed := differing(question["sources"], found["sources"]):
        return [f"engine=slurm: {host} has other code than this machine ({some(changed, 3)}); install it anew"]
    return []


def _sources(task: Task, configs: Sequence[Any]) -> dict[str, str]:
    return {name: sha for config in configs for name, sha in task.sources(config).items()}


def _versions() -> dict[str, str]:
    """Without the part that names a build: "2.13.0" of "2.13.0+cpu"."""
    found = {}
    for name in _TOGETHER:
        try:
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            found[name] = "none"
    return found
