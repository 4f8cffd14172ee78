"""One trial of the check, in a process of its own: trained, stopped or resumed, and what could be seen of it."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.functions.observe import (
    Orders,
    digest_array,
    digest_state,
    frame_of,
    tensors_of,
    variables_of,
    watched_order,
)
from ablate.functions.run import Run

if TYPE_CHECKING:
    from ablate.functions.task import FunctionTask
    from ablate.protocol import Outcome

STOPPED = 3  # exit code of a process that ended after a checkpoint, as it was asked to


@dataclass
class Seen:
    """What a process saw.

    Attributes:
        logs: [step, values] of everything logged.
        result: values of the outcome; each: digests of the arrays; kept: digest of the kept state at the end.
        saves: checkpoints in this process; saved_at: their steps.
        initial: name → [shape, digest] of the tensors of kept modules when the loop started, constant ones left out.
        orders: what was drawn first to shuffle with, in each of the first epochs; loaders: what is special of them.
        suspects: what changes in the loop and is not kept, a phrase each.
        effects: what importing the file has changed in the process.
    """

    error: str = ""
    status: str = ""
    logs: list[Any] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    each: dict[str, str] = field(default_factory=dict)
    kept: str = ""
    loop: str | None = None
    saved_at: list[int] = field(default_factory=list)
    resumed_at: int | None = None
    refused: list[str] = field(default_factory=list)
    initial: dict[str, Any] = field(default_factory=dict)
    orders: Orders = field(default_factory=dict)
    loaders: list[str] = field(default_factory=list)
    suspects: list[str] = field(default_factory=list)
    effects: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unsaved: list[str] = field(default_factory=list)
    data: str = ""
    sources: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def warm_up() -> None:
    """Import what every job needs, and what torch imports when the first optimizer is made."""
    import torch

    import ablate.functions.fit
    import ablate.train  # noqa: F401 (imported for whoever comes after)

    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def run_job(path: Path) -> None:
    """Do what a job's file says, write what was seen beside it, and end the process."""
    job = json.loads(path.read_text(encoding="utf-8")) | {"path": str(path)}
    seen = Seen()
    code = 1
    output = path.with_suffix(".txt")
    try:
        with output.open("a", encoding="utf-8") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (until the process ends)
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        os.chdir(job["folder_of_process"])
        _train(job, seen, path)
        code = 0
    except BaseException as error:
        traceback.print_exc()
        seen.error = f"{type(error).__name__}: {error}".strip()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
        seen.warnings = [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]
        write(path, seen)
        os._exit(code)


def write(path: Path, seen: Seen) -> None:
    """Beside a job's file."""
    path.with_suffix(".pickle").write_bytes(pickle.dumps(asdict(seen)))


def read(path: Path) -> Seen:
    """What a job's process saw; an error, where it ended before it could say so."""
    try:
        return Seen(**pickle.loads(path.with_suffix(".pickle").read_bytes()))
    except FileNotFoundError:
        return Seen(error="the process ended at once")


def _train(job: Mapping[str, Any], seen: Seen, path: Path) -> None:
    from ablate.functions.load import load_task

    before = _surroundings()
    task = load_task(job["reference"])
    seen.effects = [name for name, value in _surroundings().items() if value != before[name]]
    for index, (values, seed) in enumerate(job["first"]):
        other = Seen()
        _one(task, values, seed, path.parent / f"first{index}", other, stop_after=None, job=job)
        write(path.with_name(f"{path.stem}-first{index}.json"), other)
    _one(task, job["values"], job["seed"], path.parent / job["trial"], seen, job["stop_after"], job)


def _one(
    task: FunctionTask, values: Any, seed: int, folder: Path, seen: Seen, stop_after: int | None, job: Mapping[str, Any]
) -> None:
    from ablate.functions.fit import fit
    from ablate.knobs import read as read_record
    from ablate.protocol import Trial
    from ablate.train import Checkpoints
    from ablate.train.examples import EXAMPLES

    config: Any = read_record(task.Config, values)
    seen.data, seen.sources = task.describe(config).digest, dict(task.sources(config))
    folder.mkdir(parents=True, exist_ok=True)
    kept, log = Checkpoints(folder, "check"), folder / "log.jsonl"
    state = None
    if job["resumes"]:
        state, seen.refused = kept.newest(log.stat().st_size if log.exists() else 0)
    with log.open("ab") as file:
        file.truncate(0 if state is None else state["journal_bytes"])

    def sink(event: str, /, **values: Any) -> int:
        with log.open("ab") as file:
            file.write(json.dumps([values["step"], values["values"]]).encode() + b"\n")
            return file.tell()

    runs: list[Run] = []
    watcher = _watched(seen, stop_after, str(task.file), runs, lambda: finish(None))
    started = time.perf_counter()

    def finish(outcome: Outcome | None) -> None:
        seen.seconds = time.perf_counter() - started
        seen.logs = [json.loads(line) for line in log.read_bytes().splitlines()]
        if outcome is None:
            write(Path(job["path"]), seen)
            os._exit(STOPPED)
        seen.status, seen.result = outcome.status, dict(outcome.values)
        by_example = sorted([*folder.glob("*_each.npy"), *folder.glob(EXAMPLES)])
        seen.each = {file.stem: digest_array(np.load(file)) for file in by_example}

    with watched_order(seen.orders, lambda: step_of(runs), seen.loaders):
        finish(fit(task, Trial(config, seed, job["device"]), sink, kept, state, kind=watcher, save_seconds=0.0))


def step_of(runs: list[Run]) -> int | None:
    """The epoch or step of the trial that trains now; None: it is not in its loop."""
    return runs[-1].step if runs else None


def _watched(seen: Seen, stop_after: int | None, file: str, runs: list[Run], stop: Callable[[], None]) -> type[Run]:
    class Watched(Run):
        """Sees the state of the loop as it starts, and at each checkpoint."""

        _frame: FrameType | None = None
        _found: dict[str, str] | None = None

        def _begin(self) -> int:
            step = super()._begin()
            runs.append(self)
            seen.resumed_at, seen.loop = self.resumed_at, self.loop
            seen.unsaved = self._kept.unsaved
            if self.resumed_at is None:
                seen.initial = tensors_of(self._kept.objects)
            self._frame = frame_of(sys._getframe(1), file)
            self._found = variables_of(self._frame, self._kept.objects)
            return step

        def _save(self) -> None:
            super()._save()
            if not self._kept.unsaved:
                seen.saved_at.append(self.step)
            if self._frame is not None and self._found is not None:
                now = variables_of(self._frame, self._kept.objects)
                changed = [name for name, value in now.items() if self._found.get(name, value) != value]
                seen.suspects = list(dict.fromkeys([*seen.suspects, *changed]))
            if stop_after is not None and len(seen.saved_at) == stop_after:
                stop()

        def finish(self) -> None:
            super().finish()
            self._frame = None
            seen.kept = digest_state(self._kept.state()["objects"])

    return Watched


def _surroundings() -> dict[str, Any]:
    import torch

    return {
        "sys.argv": list(sys.argv),
        "the working directory": os.getcwd(),
        "environment variables": dict(os.environ),
        "torch's number of threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
    }
