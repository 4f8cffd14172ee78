"""MLflow may be down, slow, broken or full of other people's runs: training goes on, and nothing is there twice."""

from __future__ import annotations

import http.server
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from unittest import mock

import psutil
import pytest
from conftest import TINY
from mlflow import MlflowClient
from mlflow.entities import Metric
from pandas.testing import assert_frame_equal
from program import ROOT, inside, journals, kill_tree, start, wait_until
from recorded import Trial, launch, points_of
from written import assert_same

from ablate.knobs import KnobError
from ablate.study.mirroring import MirrorProcess
from ablate.track import __main__ as track_main
from ablate.track import journal as journal_module
from ablate.track import process as process_module
from ablate.track.folder import Folder
from ablate.track.journal import JOURNAL, Journal
from ablate.track.mlflow import liveness as liveness_module
from ablate.track.mlflow import mirror as mirror_module
from ablate.track.mlflow.database import create_database
from ablate.track.mlflow.liveness import FOLDER, folder_id
from ablate.track.mlflow.mirror import Mirror
from ablate.track.mlflow.store import Store
from ablate.track.process import is_dead, this_process
from ablate.track.read import read_study

LAUNCH = launch()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory, empty_store):
    """A real MLflow server, started as we tell users to but without the eight processes for its jobs; its port."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    shutil.copy(empty_store, folder / "db")
    arguments = ["--port", str(port), "--workers", "1", "--backend-store-uri"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "ui", *arguments, f"sqlite:///{folder}/db", "--default-artifact-root",
             "mlflow-artifacts:/", "--artifacts-destination", str(folder / "artifacts")],
            cwd=folder, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )  # fmt: skip
    wait_until(lambda: answers(port))
    yield port
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


class Proxy(http.server.ThreadingHTTPServer):
    """Stands before the real server and misbehaves: good, broken (500), hung, or deceitful (done, but answered 500)."""

    daemon_threads = True

    def __init__(self, upstream):
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream, self.behaviour, self.seen = upstream, "good", 0


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen += 1
        if self.server.behaviour == "hung":
            time.sleep(60)
            return
        status, data = 500, b"{}"
        if self.server.behaviour != "broken":
            status, data = self.forward(body)
        self.send_response(500 if self.server.behaviour == "deceitful" else status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(data)

    def forward(self, body):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.server.upstream}{self.path}", data=body or None, method=self.command
        )
        request.add_header("Content-Type", self.headers.get("Content-Type") or "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def log_message(self, *_):
        pass


@pytest.fixture
def proxy(server, monkeypatch):
    # What MLflow's client waits for an answer: longer than a server of a busy machine takes that does answer.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    made = Proxy(server)
    threading.Thread(target=made.serve_forever, args=[0.02], daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def uri(proxy):
    return f"http://127.0.0.1:{proxy.server_port}"


def runs_of(tracking_uri, study="s"):
    """The study's children, and how often each point of their curves is stored."""
    with mock.patch.dict(os.environ, MLFLOW_HTTP_REQUEST_TIMEOUT="60"):  # this is no part of what is tested
        client = MlflowClient(tracking_uri)
        experiment = client.get_experiment_by_name("ablate").experiment_id
        parents = client.search_runs([experiment], f"tags.`ablate.study` = '{study}'")
        children = [
            run
            for parent in parents
            for run in client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
        ]
        points = points_of(client, children)
    return parents, children, points


@pytest.mark.parametrize("behaviour", ["broken", "hung", "deceitful"])
def test_a_server_that_misbehaves_and_comes_back_is_told_everything_once(behaviour, proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror_module, "_POLL_SECONDS", 0.2)
    folder, study, notes = Folder(tmp_path), f"back-{behaviour}", []
    trial = Trial(folder)
    trial.start()
    mirror = Mirror(folder, uri(proxy), {**LAUNCH, "study": study}, notes.append)
    over, complete = threading.Event(), []
    thread = threading.Thread(target=lambda: complete.append(mirror.follow(over.wait)))
    thread.start()
    trial.log(20, value=2 + 1 / 20)
    wait_until(lambda: proxy.seen > 8)
    proxy.behaviour = behaviour
    trial.log(40, value=2 + 1 / 40)
    wait_until(lambda: notes)
    proxy.behaviour = "good"
    trial.log(60, value=2 + 1 / 60)
    trial.finish(steps=60)
    over.set()
    thread.join(60)
    assert complete == [True]
    assert len(notes) == 1
    assert notes[0].startswith("MLflow is not reachable, the journals go on (")
    parents, (child,), points = runs_of(uri(proxy), study)
    assert len(parents) == 1
    assert {step for _, key, step in points if key == "train_nll"} == {20, 40, 60}
    assert set(points.values()) == {1}
    assert child.info.status == "FINISHED"


def test_the_same_study_launched_twice_at_once_is_in_mlflow_once(tmp_path):
    arguments = ["-m", *TINY, "depth=1,2", "windows=200", "valid_every=100", "name=twice", "report=false"]
    one = start(["ablate", *arguments], tmp_path)
    wait_until(lambda: (tmp_path / "runs" / "studies" / "twice.jsonl").exists())  # its mirror starts now
    code, _, err = inside(*arguments, folder=tmp_path)
    assert (code, err) == (0, "")
    _, err = one.communicate(timeout=240)
    assert (one.returncode, err) == (0, "")
    parents, children, points = runs_of(f"sqlite:///{tmp_path}/runs/mlflow.db", "twice")
    assert (len(parents), len(children)) == (1, 2)
    assert set(points.values()) == {1}
    assert {run.info.status for run in (*parents, *children)} == {"FINISHED"}


@pytest.mark.parametrize("behaviour", ["broken", "hung"])
def test_training_goes_on_while_the_server_does_not_and_sync_replays_it_once(behaviour, proxy, tmp_path):
    proxy.behaviour = behaviour
    arguments = [*TINY, f"name=sync-{behaviour}", "tracking=server", f"tracking.uri={uri(proxy)}", "report=false"]
    code, out, err = inside(*arguments, folder=tmp_path)
    assert (code, err) == (0, "")
    assert "note: MLflow is behind; the same command typed again, or python -m ablate.track sync, catches it up" in out
    (events,) = journals(tmp_path).values()
    assert events[-1]["event"] == "finished"
    proxy.behaviour = "good"
    for _ in range(2):
        synced = inside("sync", "--uri", uri(proxy), folder=tmp_path, main=track_main.main)
        assert synced == (0, f"sync-{behaviour}: done\n", "")
        parents, children, points = runs_of(uri(proxy), f"sync-{behaviour}")
        assert (len(parents), len(children)) == (1, 1)
        assert set(points.values()) == {1}
        assert {step for _, key, step in points if key == "train_nll"} == {20, 40}
        assert children[0].data.metrics["test_perplexity"] > 1


def test_a_sync_that_reaches_no_server_is_one_line_and_code_1(proxy, tmp_path):
    finished_trial(Folder(tmp_path / "runs"))
    proxy.behaviour = "broken"
    process = start(["ablate.track", "sync", "--uri", uri(proxy)], tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.startswith("ablate.track: MLflow is not reachable (")
    assert len(err.splitlines()) == 1


def test_a_study_is_read_from_a_server_as_from_its_journals_once_it_answers(proxy, tmp_path):
    folder = Folder(tmp_path)
    finished_trial(folder, "served")
    Mirror(folder, uri(proxy), {**LAUNCH, "study": "served"}, print).sync()
    journals, store = read_study(folder, "served"), read_study(Store(uri(proxy)), "served")
    assert_frame_equal(journals.trials, store.trials)
    assert_frame_equal(journals.curves, store.curves)
    assert (journals.launched, journals.samples) == (store.launched, store.samples)
    for behaviour in ("broken", "hung"):
        proxy.behaviour = behaviour
        with pytest.raises(KnobError, match=f"http://127.0.0.1:{proxy.server_port}: this MLflow store cannot be read"):
            read_study(Store(uri(proxy)), "served")


CREATE = (
    "import sys; from pathlib import Path; from ablate.track.mlflow.database import create_database; "
    "create_database(Path(sys.argv[1]))"
)


def creating(path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen([sys.executable, "-c", CREATE, str(path)], env=environment, start_new_session=True)


def test_eight_processes_may_create_the_store_at_once(tmp_path):
    path = tmp_path / "mlflow.db"
    processes = [creating(path) for _ in range(8)]
    assert [process.wait(timeout=240) for process in processes] == [0] * 8
    assert MlflowClient(f"sqlite:///{path}").search_experiments()
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []


def test_kill_9_while_the_store_is_created_leaves_none_and_the_next_start_makes_it(tmp_path):
    path = tmp_path / "mlflow.db"
    process = creating(path)
    wait_until(lambda: any(p.is_dir() and any(p.iterdir()) for p in tmp_path.iterdir()))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not path.exists()
    create_database(path)
    assert MlflowClient(f"sqlite:///{path}").search_experiments()
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == [], "what the killed one left is swept"


@pytest.fixture
def mirrored(empty_store, tmp_path):
    """A study under way, more than a hundred points of which are in MLflow; its folder."""
    folder = Folder(tmp_path / "runs")
    folder.root.mkdir()
    shutil.copy(empty_store, folder.database())
    process = start(["ablate", *TINY, "windows=100000", "report=false", "name=under_way"], tmp_path)
    wait_until(lambda: list(folder.artifacts().glob(f"*/artifacts/{JOURNAL}")))
    wait_until(lambda: len(read_study(folder, "under_way").curves) > 100)
    yield folder, process
    if process.poll() is None:
        kill_tree(process)


def test_a_study_that_was_killed_is_the_same_from_both_sources_and_its_runs_end_as_killed_at_the_next_start(mirrored):
    folder, process = mirrored
    store = f"sqlite:///{folder.database()}"
    kill_tree(process)
    parents, children, _ = runs_of(store, "under_way")
    assert [run.info.status for run in (*parents, *children)] == ["RUNNING", "RUNNING"]
    code, out, _ = inside(*TINY, "name=lives", "report=false", folder=folder.root.parent)
    assert code == 0
    assert "MLflow is" not in out, "neither behind nor unreachable"
    parents, children, _ = runs_of(store, "under_way")
    assert [run.info.status for run in (*parents, *children)] == ["KILLED", "KILLED"]
    journals = read_study(folder, "under_way")
    assert list(journals.trials["status"]) == ["UNFINISHED"]
    assert len(journals.curves) > 100
    assert_same(journals, read_study(Store(store), "under_way"))


def test_a_signal_to_the_whole_group_ends_the_runs_too(mirrored):
    folder, process = mirrored
    os.killpg(process.pid, signal.SIGTERM)  # as `timeout` does, and a scheduler
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err == "ablate: stopped; the same command goes on with what is not finished\n"
    (parent,), (child,), _ = runs_of(f"sqlite:///{folder.database()}", "under_way")
    assert (parent.info.status, child.info.status) == ("FAILED", "KILLED")


def test_a_mirror_that_dies_is_told_at_once_and_the_study_does_not_wait_for_it(tmp_path):
    notes = []
    mirror = MirrorProcess(Folder(tmp_path), None, LAUNCH, notes.append)
    (child,) = [child for child in multiprocessing.active_children() if child.name == "mlflow-mirror"]
    os.kill(child.pid, signal.SIGKILL)
    wait_until(lambda: notes)
    assert notes == ["the process that copies to MLflow has died; python -m ablate.track sync catches MLflow up"]
    assert mirror.close([]) is False


@pytest.fixture(scope="module", autouse=True)
def _empty_store(empty_store):
    global EMPTY
    EMPTY = empty_store


def finished_trial(folder, study="s"):
    trial = Trial(folder)
    trial.start()
    for step in (20, 40, 60):
        trial.log(step, value=2 + 1 / step)
    trial.finish(steps=60)
    launch = {**LAUNCH, "study": study}
    Journal(folder.study(study)).append("launched", **{k: v for k, v in launch.items() if k != "event"})


def synced(folder):
    if not folder.database().exists():
        shutil.copy(EMPTY, folder.database())
    mirror = Mirror(folder, None, LAUNCH, print)
    mirror.sync()
    return f"sqlite:///{folder.database()}"


def test_foreign_runs_in_the_store_are_left_alone(tmp_path):
    folder = Folder(tmp_path)
    finished_trial(folder)
    client = MlflowClient(synced(folder))
    experiment = client.get_experiment_by_name("ablate").experiment_id
    foreign = client.create_run(experiment, run_name="someone else's").info.run_id
    tags = {FOLDER: folder_id(folder), "ablate.process": "another-host:1:2"}
    elsewhere = client.create_run(experiment, tags=tags).info.run_id
    store = synced(folder)
    assert client.get_run(foreign).info.status == "RUNNING"
    assert client.get_run(foreign).data.tags.keys() == {"mlflow.runName"}
    assert client.get_run(elsewhere).info.status == "RUNNING", "a sign of life minutes ago, from another machine"
    assert len(runs_of(store)[1]) == 1


def test_missing_and_duplicated_metrics_in_the_store_change_no_result(tmp_path):
    folder = Folder(tmp_path)
    finished_trial(folder)
    store = synced(folder)
    before = read_study(folder, "s").trials
    client = MlflowClient(store)
    (_, (child,), _) = runs_of(store)
    client.log_batch(
        child.info.run_id, metrics=[Metric("train_nll", 99.0, 0, 20), Metric("test_perplexity", 99.0, 0, 60)]
    )
    assert read_study(folder, "s").trials.equals(before)
    # Half of a run is there: the rest is filled in, and what is there stays once.
    client.delete_run(child.info.run_id)
    half = client.create_run(
        child.info.experiment_id,
        tags={**{k: v for k, v in child.data.tags.items() if not k.startswith("mlflow.user")}},
    )
    client.log_batch(half.info.run_id, metrics=[Metric("train_nll", 2.05, 0, 20)])
    _, (child,), points = runs_of(synced(folder))
    assert {step for _, key, step in points if key == "train_nll"} == {20, 40, 60}
    assert set(points.values()) == {1}
    assert child.info.status == "FINISHED"


def test_a_clock_set_back_one_hour_moves_nothing(tmp_path, monkeypatch):
    folder = Folder(tmp_path)

    class Back(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) - timedelta(hours=1)

    trial = Trial(folder)
    trial.start()
    trial.log(20, value=2 + 1 / 20)
    monkeypatch.setattr(journal_module, "datetime", Back)
    monkeypatch.setattr(liveness_module, "datetime", type("Both", (Back,), {"fromisoformat": datetime.fromisoformat}))
    trial.log(40, value=2 + 1 / 40)
    trial.log(60, value=2 + 1 / 60)
    trial.finish(steps=60)
    Journal(folder.study("s")).append("launched", **{k: v for k, v in LAUNCH.items() if k != "event"})
    results = read_study(folder, "s")
    assert list(results.curves["step"]) == [20, 40, 60]
    assert results.trials.loc[0, "status"] == "FINISHED"
    _, (child,), points = runs_of(synced(folder))
    assert child.info.status == "FINISHED"
    assert {step for _, key, step in points if key == "train_nll"} == {20, 40, 60}


@pytest.mark.parametrize(("minutes", "silent"), [(-5, False), (-60, True), (60, True)])
def test_a_run_on_another_machine_is_killed_when_it_is_silent_or_its_clock_was_set_back(minutes, silent, tmp_path):
    folder = Folder(tmp_path)
    finished_trial(folder)
    store = synced(folder)
    client = MlflowClient(store)
    beat = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
    tags = {FOLDER: folder_id(folder), "ablate.process": "another-host:1:2", "ablate.heartbeat": beat}
    run = client.create_run(client.get_experiment_by_name("ablate").experiment_id, tags=tags).info.run_id
    synced(folder)
    assert client.get_run(run).info.status == ("KILLED" if silent else "RUNNING")


def test_a_process_is_known_by_its_start_not_by_its_number_alone():
    assert is_dead(this_process()) is False
    host, pid, start_ = this_process().rsplit(":", 2)
    assert is_dead(f"{host}:{pid}:1@{start_.rpartition('@')[2]}") is True, "the number was given out again"
    done = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    start_of_done = process_module._start(done.pid)
    assert is_dead(f"{host}:{done.pid}:{start_of_done}") is False
    done.kill()
    wait_until(lambda: is_dead(f"{host}:{done.pid}:{start_of_done}"), seconds=20)  # nobody has asked for its code yet
    done.wait()
    assert is_dead(f"{host}:{done.pid}:1") is True
    assert is_dead("another-host:1:1") is None
    assert is_dead("nonsense") is None


def test_the_command_to_browse_serves_this_machine_alone(server):
    listening = [each for each in psutil.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    assert {each.laddr.ip for each in listening if each.laddr.port == server} == {"127.0.0.1"}
