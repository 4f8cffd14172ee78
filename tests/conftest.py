from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from copy import deepcopy
from dataclasses import replace
from functools import cache, partial
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace

import hydra
import matplotlib
import pytest
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from ablate import compose
from ablate.engines import worker
from ablate.engines.engine import Machine
from ablate.engines.local import LocalEngine
from ablate.knobs import fields_of
from ablate.launch import Launch
from ablate.study import plan
from ablate.study.cells import Job
from ablate.study.jobs import make_study
from ablate.study.pool import assign
from ablate.study.records import Reader
from ablate.tasks.language_model import LANGUAGE_MODEL
from ablate.tasks.language_model.config import Config
from ablate.train.machine import set_threads

ROOT = Path(__file__).parent.parent
os.environ.setdefault("MPLCONFIGDIR", matplotlib.get_cachedir())  # tests have caches of their own, but for its fonts
import matplotlib.font_manager  # noqa: E402  # on a new machine it looks for them, which takes seconds and is printed

sys.path.insert(0, str(Path(__file__).parent))
from warm import fork_server  # noqa: E402

# A model and a corpus that train in a blink: 500 windows a second.
TINY = [
    "data=synthetic", "data.vocab_size=30", "data.branching=3", "data.tokens=4000", "data.eval_tokens=600",
    "hidden=8", "batch=4", "window=5", "windows=40", "valid_every=20", "eval_batch=2", "eval_window=5",
    "sample_words=5", "threads=1", "init=fan_in", "embedding_std=0.3", "output_bias=zero", "forget_bias=0",
    "residual=false",
    "schedule=constant", "warmup=0", "lr_floor=0", "train_tokens=null", "workers=1",
]  # fmt: skip


# Files that take long, the longest first: then two processes that take file after file end at about the same time.
LONG = (
    "test_ray", "test_slurm", "test_postgres", "test_tracking", "test_auto", "test_docs", "test_plans", "test_kills",
    "test_packs", "test_cli", "test_claims", "test_page", "test_check", "test_words", "test_headlines", "test_inputs",
    "test_read",
    "test_instants", "test_mlflow", "test_checkpoints", "test_functions", "test_examples",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before what is not asked for is left out
def pytest_collection_modifyitems(items):
    """Long files first, the others in the order of their names; what kills processes and fills disks is slow."""
    for item in items:
        if item.path.parent.name == "faults":
            item.add_marker("slow")
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    """All is imported, and nothing has run: programs that start warm are forked from here."""
    fork_server()
    gc.set_threshold(100_000, 20, 100)  # else all that is imported is looked through again and again
    set_threads(1)  # two tests run at a time, and their models are small


def values_of(*overrides: str) -> dict:
    """The plain values that overrides resolve to."""
    return deepcopy(_composed(overrides))


@cache
def _composed(overrides: tuple[str, ...]) -> dict:
    # Hydra takes a tenth of a second: it composes the files once, and what is a value alone is set in a copy.
    alone = [text for text in overrides if _is_value(text)]
    knobs = deepcopy(_composed_files(tuple(text for text in overrides if text not in alone)))
    for override in map(compose.parsed, alone):
        OmegaConf.update(knobs, override.key_or_group, override.value(), merge=True)
    return compose.plain_values(knobs)


@cache
def _composed_files(overrides: tuple[str, ...]) -> DictConfig:
    folder, name = compose.primary(LANGUAGE_MODEL)
    with initialize_config_dir(folder, version_base="1.3"):
        return hydra.compose(name, overrides=list(overrides))


def _is_value(text: str) -> bool:
    name, _, value = text.partition("=")
    return (name in _VALUES or name.startswith("data.")) and value[:1] not in "{[\"'$"


_VALUES = {*fields_of(Config), *fields_of(Launch)} - {
    path.name for conf in (LANGUAGE_MODEL.presets, ROOT / "ablate" / "conf") for path in conf.iterdir()
}


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


CPU = Machine("cpu")


def make_plan(study, folder, results_of=None):
    """The plan of a study for this machine."""
    return plan.make_plan(study, folder, LocalEngine(study.launch, study.task), results_of)


def train_in_process(planned_trials):
    """What a worker process does with a pack, in this one; how each of its trials ended."""
    study, launch = study_of(*TINY), SimpleNamespace(command="c", id="a launch", results_of=None)
    return worker.train([assign(planned, study, launch, silent=None) for planned in planned_trials])


def killed_in_the_middle(planned, windows=50):
    """Train in a child that dies after so many windows; after 50, with the state of window 40 on disk."""
    if (child := os.fork()) == 0:
        from ablate.tasks.language_model import engine

        train, done = engine.train_window, []

        def dies(*arguments):
            done.append(1)
            if len(done) > windows:
                os.kill(os.getpid(), signal.SIGKILL)
            return train(*arguments)

        engine.train_window = dies
        train_in_process([planned])
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


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
    from ablate.track.mlflow.database import create_database

    own = tmp_path_factory.getbasetemp()
    path = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "empty" / "mlflow.db"  # for all processes
    path.parent.mkdir(exist_ok=True)
    create_database(path)  # of several at once one makes it
    return path


@pytest.fixture(autouse=True)
def _figures_where_they_are_looked_at(request, monkeypatch):
    """Reports of this process have no figures, which take seconds to draw, but those that a test is marked with."""
    mark = request.node.get_closest_marker("figures")
    if mark is None or mark.args:
        from ablate.report import write

        names = mark.args if mark else ()
        monkeypatch.setattr(write, "draw_all", partial(write.draw_all, names=names))


@pytest.fixture(scope="session", autouse=True)
def _no_server_is_left():
    """The server that workers are forked from ends before the tests do, and has written its coverage by then."""
    yield
    forkserver._forkserver._stop()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Tests share one cache of encodings, and never the user's."""
    for name in ("ABLATE_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path_factory.getbasetemp() / "cache"))
