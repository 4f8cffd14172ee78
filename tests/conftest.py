from __future__ import annotations

import os
import shutil
import sys
from copy import deepcopy
from dataclasses import replace
from functools import cache
from multiprocessing import forkserver
from pathlib import Path

import pytest

from ablate import compose
from ablate.study import worker
from ablate.study.cells import Job
from ablate.study.jobs import make_study
from ablate.study.records import Reader
from ablate.study.worker import assign
from ablate.tasks.language_model import LANGUAGE_MODEL
from ablate.train.machine import set_threads

sys.path.insert(0, str(Path(__file__).parent))
set_threads(1)  # two tests run at a time, and their models are small

# A model and a corpus that train in a blink: 500 windows a second.
TINY = [
    "data=synthetic", "data.vocab_size=30", "data.branching=3", "data.tokens=4000", "data.eval_tokens=600",
    "hidden=8", "batch=4", "window=5", "windows=40", "valid_every=20", "eval_batch=2", "eval_window=5",
    "sample_words=5", "threads=1", "init=fan_in", "embedding_std=0.3", "output_bias=zero", "forget_bias=0",
    "residual=false",
    "schedule=constant", "warmup=0", "lr_floor=0", "train_tokens=null", "workers=1",
]  # fmt: skip


def values_of(*overrides: str) -> dict:
    """The plain values that overrides resolve to."""
    return deepcopy(_composed(overrides))


@cache
def _composed(overrides: tuple[str, ...]) -> dict:
    return compose.values_of(LANGUAGE_MODEL, overrides)


def parse(values: dict):
    """The language model's configuration, of the values of a whole command line."""
    _, config = Reader(LANGUAGE_MODEL).both(values)
    LANGUAGE_MODEL.check(config)
    return config


def knobs_of(*overrides: str):
    return parse(values_of(*overrides))


def study_of(*overrides: str, name: str = "s"):
    """The study of one command line without a comma."""
    return study_of_jobs([Job((), values_of(*overrides))], name)


def study_of_jobs(jobs, name="s"):
    study = make_study(jobs)
    return replace(study, launch=study.launch.model_copy(update={"name": name}))


def train_in_process(plan):
    """What a worker process does with a pack, in this one; how each of its trials ended."""
    study = study_of(*TINY)
    return worker.train([assign(planned, study, "c") for planned in plan])


def program_or_skip(*names: str, package: str) -> str:
    """The path of a program that a test needs; where it is not installed the test is skipped, with what to install.

    Where nothing may be skipped (ABLATE_TESTS_SKIP_NOTHING, as in .ci/run) the test fails instead.
    """
    for name in names:
        if found := shutil.which(name):
            return found
    reason = f"no {names[0]} on this machine; on Debian: apt-get install {package}"
    if os.environ.get("ABLATE_TESTS_SKIP_NOTHING"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A store as MLflow makes it, which takes seconds: one to copy where its making is not what is tested."""
    from ablate.track.mlflow.client import create_database

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    create_database(path)
    return path


@pytest.fixture(scope="session", autouse=True)
def _no_server_is_left():
    """The server that workers are forked from ends before the tests do, and has written its coverage by then."""
    yield
    forkserver._forkserver._stop()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Tests share one cache of encodings, and never the user's."""
    monkeypatch.setenv("ABLATE_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
