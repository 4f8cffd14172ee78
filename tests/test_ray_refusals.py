"""engine=ray: what is refused before anything trains, in one line."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from clusters import cluster, need_ray, study_in
from conftest import TINY, study_of

from ablate.engines.engine import make_engine
from ablate.find_task import load_task
from ablate.knobs import KnobError

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def joined():
    """The address of a cluster that this process has joined."""
    with cluster() as made:
        import ray

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(made.address, log_to_driver=False, logging_level="ERROR")
        yield made.address
        ray.shutdown()


@pytest.fixture
def only_here(tmp_path):
    """A folder under a path that leads nowhere on a node."""
    opened = os.open(tmp_path, os.O_RDONLY)
    here_alone = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 900)  # processes of a node have fewer files open
    os.close(opened)
    yield f"/proc/self/fd/{here_alone}"
    os.close(here_alone)


def settled(study):
    """Have a study's cells settled, as its plan does."""
    engine = make_engine(study.launch, study.task)
    assert engine.machine.device == "cpu"
    for config in engine.settle([cell.config for cell in study.cells]):
        if isinstance(config, KnobError):
            raise config


def refusal(*overrides):
    """What a study is refused with."""
    without_data = [text for text in TINY if not text.startswith("data")]
    study = study_of(*(without_data if "data=text" in overrides else TINY), "engine=ray", *overrides)
    with pytest.raises(KnobError) as refused:
        settled(study)
    assert all("\n" not in problem for problem in refused.value.problems)
    return str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["engine.address=cluster"], "engine.address=cluster: HOST:PORT of the head"),
        (["engine.address=127.0.0.1:1"], "engine.address=127.0.0.1:1: nothing answers there; on the head, ray start"),
    ],
)
def test_an_address_at_which_there_is_no_cluster_is_refused(overrides, message):
    need_ray()
    assert message in refusal(*overrides)


def test_a_server_that_is_no_head_of_ray_is_refused_at_once():
    need_ray()
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        message = refusal(f"engine.address=127.0.0.1:{server.server_port}")
        server.shutdown()
        serving.join()
    assert "what answers there is no head of Ray" in message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["engine.address=10.0.0.1:6379"], "this process has joined the cluster at"),
        (["engine.cpus=64"], "engine.cpus=64: no node of the Ray cluster at"),
        (["engine.memory=9000"], "engine.cpus=1 engine.memory=9000: no node of the Ray cluster at"),
        (["device=cuda"], "has a GPU; use device=cpu, or device=auto"),
        (["device=cuda", "engine.gpus=0"], "engine.gpus=0: device=cuda needs one"),
        (["device=cpu", "engine.gpus=1"], "engine.gpus=1: device=cpu uses none"),
    ],
)
def test_what_no_node_can_give_is_refused(joined, overrides, message):
    assert message in refusal(*overrides)


def test_ray_that_is_not_installed_is_told_with_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert refusal() == "engine=ray: Ray is not installed here; pip install 'ablate-lm[ray]'"


def test_a_cluster_with_other_versions_is_refused(joined, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1.0")
    assert "torch 2" in refusal()
    assert "there, 1.0 here; install the same on all nodes" in refusal()


def test_a_runs_folder_that_nodes_do_not_see_is_refused(joined, only_here):
    message = refusal(f"runs={only_here}/runs")
    assert f"runs={only_here}/runs: it does not see this folder" in message
    assert "engine.shared=false" in message
    assert len(message.splitlines()) == 1, "told once for both nodes"


def test_data_that_a_node_lacks_is_told_with_the_node(joined, only_here, tmp_path):
    (tmp_path / "mine.txt").write_text("a b c\n" * 400)
    message = refusal("data=text", f"data.path={only_here}/mine.txt", f"runs={tmp_path}/runs")
    assert message.startswith("node ")
    assert f"data.path={only_here}/mine.txt" in message


def test_code_that_differs_on_a_node_is_named(joined, tmp_path):
    file = study_in(tmp_path) / "task.py"
    task = load_task(f"{file}:train")
    study = study_of(*TINY, "engine=ray", f"runs={tmp_path}/runs")
    engine = make_engine(study.launch, task)
    config = task._configuration.of({"width": 4, "lr": 0.1})
    assert not isinstance(engine.settle([config])[0], KnobError)
    file.write_text(file.read_text() + "\n# edited\n")
    (refused,) = engine.settle([config])
    assert isinstance(refused, KnobError)
    assert "task: its code differs there (task.py); have the same on all nodes" in str(refused)
