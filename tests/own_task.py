"""A small task of one's own, and what its tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

import ablate
from ablate.functions.fit import fit
from ablate.protocol import Trial
from ablate.train import Checkpoints

ERROR = ablate.Metric("error", unit="%")


@dataclass
class Config:
    width: int = 8
    dropout: float = 0.2
    lr: float = 0.05
    epochs: int = 4


class Killed(BaseException):
    """Stands for SIGKILL where a test needs no process of its own."""


class Stopping(Checkpoints):
    """Checkpoints that end the process after so many states."""

    left = 10**9

    def save(self, window, state):
        super().save(window, state)
        type(self).left -= 1
        if type(self).left == 0:
            raise Killed


class Trained:
    """A trial in a folder, with its journal."""

    def __init__(self, folder: Path, task, seed: int = 0, **knobs) -> None:
        self.folder, self.task, self.seed = folder, task, seed
        self.config = task._configuration.of(knobs)
        self.journal = folder / "log.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    def train(self, resumes: bool = False, stop_after: int = 10**9, save_seconds: float = 0.0):
        kept = Stopping(self.folder, "f")
        Stopping.left = stop_after
        state, refused = kept.newest(self.journal.stat().st_size) if resumes else (None, [])
        assert not refused
        with self.journal.open("ab") as file:
            file.truncate(state["journal_bytes"] if state else 0)
        return fit(self.task, Trial(self.config, self.seed), self.sink, kept, state, save_seconds=save_seconds)

    def sink(self, event, /, **values):
        with self.journal.open("ab") as file:
            file.write(json.dumps([values["step"], values["values"]]).encode() + b"\n")
            return file.tell()

    @property
    def logs(self):
        return [json.loads(line) for line in self.journal.read_bytes().splitlines()]

    def each_stop(self, saves: int):
        """Train with a stop after each of the first `saves` states; returns the outcome."""
        for stop in range(saves):
            with pytest.raises(Killed):
                self.train(resumes=stop > 0, stop_after=1)
        return self.train(resumes=True)


def resumes_equal(tmp_path, task, saves: int, **knobs):
    """Assert that a trial stopped after each of its states ends as one that never was; returns the latter."""
    once, stopped = Trained(tmp_path / "once", task, **knobs), Trained(tmp_path / "stopped", task, **knobs)
    expected, outcome = once.train(), stopped.each_stop(saves)
    assert stopped.logs == once.logs
    assert outcome.values == expected.values
    assert outcome.blocks == expected.blocks
    assert outcome.best_step == expected.best_step
    for kind in ("last", "best"):
        bytes_of = [[p.name for p in sorted(t.folder.glob(f"{kind}-*"))] for t in (once, stopped)]
        assert bytes_of[0] == bytes_of[1]  # their names hold their digests
    return once, expected


def data():
    x = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] * x[:, 1] > 0).long()


def model_of(config):
    return nn.Sequential(nn.Linear(6, config.width), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(config.width, 2))


def error_of(model):
    model.eval()
    x, y = data()
    with torch.no_grad():
        each = 100.0 * (model(x).argmax(1) != y).float()
    model.train()
    return each


def step_of(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


def returns(value, metric=ERROR):
    """A task that logs and returns this."""

    @ablate.task(Config, metric=metric)
    def train(config, run):
        for _ in run.epochs(1):
            run.log(valid_error=1.0)
        return value

    return train


def does(body, **declaration):
    """A task that calls body(run) and then trains."""

    @ablate.task(Config, metric=ERROR, **declaration)
    def train(config, run):
        body(run)
        for _ in run.epochs(2):
            run.log(valid_error=1.0)
        return {"test_error": 1.0}

    return train


def lambda_named_train(config, run):
    return {"test_error": 1.0}


SCRIPT = """
    import sys
    from dataclasses import dataclass, field
    import ablate

    @dataclass
    class Nested:
        rate: float = 0.1

    @dataclass
    class Config:
        width: int = 1
        nested: Nested = field(default_factory=Nested)
        seed: int = 9
        device: str = "cuda"

    @ablate.task(Config, metric=ablate.Metric("error"))
    def train(config, run):
        return {"test_error": config.width, "seed": config.seed, "device": config.device, "rate": config.nested.rate}
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def python(code: str, folder: Path):
    root = str(Path(ablate.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": root}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=100)
