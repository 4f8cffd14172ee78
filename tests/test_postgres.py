"""MLflow on PostgreSQL, behind a server with an artifact proxy, as deploy/mlflow_server.py starts it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import TINY, program_or_skip
from mlflow import MlflowClient
from program import ROOT, inside, journals, start, wait_until
from recorded import points_of
from written import assert_same

from ablate.report import __main__ as report_main
from ablate.track.folder import Folder
from ablate.track.journal import JOURNAL
from ablate.track.mlflow.client import connect, find_or_create_experiment
from ablate.track.mlflow.liveness import FOLDER, folder_id
from ablate.track.mlflow.store import Store
from ablate.track.read import read_study

pytestmark = pytest.mark.services

# A trial that goes on once the test lets it.
GATED = """
from dataclasses import dataclass
from pathlib import Path
import time
import ablate

@dataclass
class Config:
    width: int = 1

@ablate.task(Config, metric=ablate.Metric("error"))
def train(config, run):
    for epoch in run.epochs(6):
        while not Path(f"open-{epoch}").exists():
            time.sleep(0.02)
        run.log(valid_error=config.width + 1 / (epoch + 1))
    return {"test_error": float(config.width)}
"""


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [str(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Deployed:
    """The servers that deploy/mlflow_server.py keeps in a folder."""

    def __init__(self, folder):
        self.folder, (self.port, self.postgres_port) = folder, free_ports(2)
        self.address = f"http://127.0.0.1:{self.port}"

    def does(self, action):
        """What the script does and says: exit code and output."""
        options = ["--port", self.port, "--postgres-port", self.postgres_port, "--workers", "1"]
        command = [sys.executable, ROOT / "deploy" / "mlflow_server.py", action, self.folder, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        return done.returncode, done.stdout + done.stderr

    def database(self, name="mlflow", scheme="postgresql+psycopg"):
        return f"{scheme}://ablate@127.0.0.1:{self.postgres_port}/{name}"

    def processes(self):
        """Of both servers, by their command lines."""
        return [process for process in psutil.process_iter() if self._has(process)]

    def _has(self, process):
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:  # it is gone, or a zombie
            return False
        return f"{self.folder}/" in line or f"--port {self.port}" in line

    def signal(self, number):
        """Send it to both servers."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # PostgreSQL's end when the first of them does
                process.send_signal(number)

    def runs(self, folder, study):
        """Of a runs folder's study: parents, children, and how often each point of their curves is there."""
        client = MlflowClient(self.address)
        if (experiment := client.get_experiment_by_name("ablate")) is None:
            return [], [], Counter()
        own = client.search_runs([experiment.experiment_id], f"tags.`{FOLDER}` = '{folder_id(folder)}'")
        parents = [run for run in own if run.data.tags.get("ablate.study") == study]
        ids = [parent.info.run_id for parent in parents]
        children = [run for run in own if run.data.tags.get("mlflow.parentRunId") in ids]
        return parents, children, points_of(client, children)


@pytest.fixture(scope="module")
def deployed():
    program_or_skip("pg_ctlcluster", "initdb", package="postgresql")
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)  # pytest's own are closed to the user postgres
    servers = Deployed(place / "mlflow")
    code, said = servers.does("start")
    assert code == 0, said
    yield servers
    assert servers.does("stop") == (0, "stopped\n")
    assert servers.processes() == []
    shutil.rmtree(place)


@pytest.fixture(autouse=True)
def _passwords(request, monkeypatch):
    """Whoever asks for a database has its password from a file."""
    if "deployed" in request.fixturenames:
        monkeypatch.setenv("PGPASSFILE", str(request.getfixturevalue("deployed").folder / "pgpass"))


def trained(deployed, folder, *arguments):
    """What a study says that is copied to the server."""
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", deployed.address)
        code, out, err = inside("-m", "tracking=server", *arguments, folder=folder)
    assert (code, err) == (0, ""), out
    return out


def assert_in_store_as_in_journals(deployed, folder, study, trials):
    """The study's runs are there once each, with their whole curves."""
    parents, children, points = deployed.runs(folder, study)
    assert (len(parents), len(children)) == (1, trials)
    assert {run.info.status for run in (*parents, *children)} == {"FINISHED"}
    assert set(points.values()) == {1}
    assert_same(read_study(folder, study), read_study(Store(deployed.address), study))
    return parents[0], children


def test_the_servers_are_reached_from_this_machine_alone_and_no_command_line_shows_the_password(deployed):
    password = (deployed.folder / "password").read_text().strip()
    assert len(password) > 20
    for name in ("password", "pgpass"):
        assert (deployed.folder / name).stat().st_mode & 0o077 == 0
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if password in line]
    ports = {int(deployed.port), int(deployed.postgres_port)}
    listening = [c.laddr for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port in ports]
    assert {address.port for address in listening} == ports
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_a_start_beside_running_servers_leaves_them_alone_and_status_says_where_they_are(deployed):
    before = {process.pid for process in deployed.processes()}
    code, said = deployed.does("start")
    assert (code, said.splitlines()[-1]) == (0, f"export MLFLOW_TRACKING_URI={deployed.address}")
    assert {process.pid for process in deployed.processes()} == before
    assert deployed.does("status") == (0, f"PostgreSQL: running\nMLflow: {deployed.address}\n")


def test_a_study_is_there_once_and_whole_and_its_page_and_artifacts_are_those_of_the_journals(deployed, tmp_path):
    study = ["name=whole", *TINY, "depth=1,2"]
    out = trained(deployed, tmp_path, *study, "seeds=2")
    assert f"{deployed.address}/#/experiments/" in out
    folder = Folder(tmp_path / "runs")
    parent, children = assert_in_store_as_in_journals(deployed, folder, "whole", 4)
    pages = []
    for place in (["--store", deployed.address], ["--runs", str(folder)]):
        report_main.main(["whole", *place, "--reports", str(tmp_path / place[0])])
        pages.append((tmp_path / place[0] / "whole" / "index.html").read_bytes())
    assert pages[0] == pages[1]
    client = MlflowClient(deployed.address)
    report = Path(client.download_artifacts(parent.info.run_id, "report", str(tmp_path)))
    assert (report / "index.html").read_bytes() == (tmp_path / "reports" / "whole" / "index.html").read_bytes()
    for child in children:
        journal = folder.trial(child.data.tags["ablate.fingerprint"]).glob(f"claim-*/{JOURNAL}")
        copy = client.download_artifacts(child.info.run_id, JOURNAL, str(tmp_path))
        assert Path(copy).read_bytes() == next(journal).read_bytes()
    out = trained(deployed, tmp_path, *study, "seeds=3")
    assert out.count("finished before, not trained again") == 4
    assert len(read_study(Store(deployed.address), "whole").trials) == 6
    assert_same(read_study(folder, "whole"), read_study(Store(deployed.address), "whole"))


def test_two_studies_of_one_name_from_two_runs_folders_at_once_do_not_touch_each_others_runs(deployed, tmp_path):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    theirs.mkdir()
    study = ["name=same", *TINY, "depth=1,2", "report=false"]
    environment = {"MLFLOW_TRACKING_URI": deployed.address}
    other = start(["ablate", "-m", "tracking=server", *study], theirs, **environment)
    trained(deployed, mine, *study)
    _, err = other.communicate(timeout=240)
    assert (other.returncode, err) == (0, "")
    for place in (mine, theirs):
        folder = Folder(place / "runs")
        parents, children, points = deployed.runs(folder, "same")
        assert (len(parents), len(children)) == (1, 2)
        assert {run.info.status for run in (*parents, *children)} == {"FINISHED"}
        assert set(points.values()) == {1}
        for child in children:
            events = journals(place)[folder.trial(child.data.tags["ablate.fingerprint"])]
            assert child.data.tags["ablate.started"] == events[0]["time"]


def test_servers_that_are_away_in_the_middle_of_training_miss_nothing_and_hold_nothing_twice(
    deployed, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    (tmp_path / "gated.py").write_text(GATED)
    folder = Folder(tmp_path / "runs")

    def trained_up_to(epoch):
        (tmp_path / f"open-{epoch}").touch()
        wait_until(lambda: [len(logs) for logs in curves().values()] == [epoch + 1] * 2)

    def curves():
        found = journals(tmp_path)
        return {trial: [e for e in events if e["event"] == "log"] for trial, events in found.items()}

    def copied_up_to(epoch):
        wait_until(lambda: len(deployed.runs(folder, "away")[2]) == 2 * (epoch + 1))

    def goes_away(output):
        trained_up_to(0)
        copied_up_to(0)
        deployed.signal(signal.SIGSTOP)
        trained_up_to(1)
        wait_until(lambda: "MLflow is not reachable" in output())
        trained_up_to(2)
        deployed.signal(signal.SIGCONT)
        copied_up_to(2)
        deployed.signal(signal.SIGKILL)
        wait_until(lambda: not deployed.processes())
        trained_up_to(3)
        assert deployed.does("start")[0] == 0
        trained_up_to(4)

    def meanwhile(output):
        try:
            goes_away(output)
        finally:  # else the study would wait for ever
            for epoch in range(6):
                (tmp_path / f"open-{epoch}").touch()

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", deployed.address)
        arguments = ["task=gated.py:train", "width=1,2", "workers=2", "name=away", "report=false"]
        code, out, err = inside("-m", "tracking=server", *arguments, folder=tmp_path, meanwhile=meanwhile)
    assert (code, err) == (0, "")
    assert out.count("MLflow is not reachable") == 1
    assert "MLflow is behind" not in out
    assert_in_store_as_in_journals(deployed, folder, "away", 2)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_a_database_without_a_server_is_made_once_by_several_and_keeps_artifacts_in_the_runs_folder(
    scheme, deployed, tmp_path, monkeypatch
):
    import psycopg

    name = f"direct_{scheme.partition('+')[2]}"
    with psycopg.connect(deployed.database("postgres", "postgresql"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    address, folder = deployed.database(name, scheme), Folder(tmp_path / "runs")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: connect(folder, address).search_experiments(), range(4)))
    assert [len(experiments) for experiments in made] == [1] * 4
    arguments = [*TINY, f"tracking.uri={address}", "name=direct", "report=false"]
    code, out, err = inside(*arguments, folder=tmp_path)
    assert (code, err, "MLflow is" in out) == (0, "", False)
    assert_same(read_study(folder, "direct"), read_study(Store(address), "direct"))
    assert list(tmp_path.glob(f"runs/artifacts/*/artifacts/{JOURNAL}"))
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_servers_database_is_no_store_by_itself_and_the_server_is_asked_for(deployed, tmp_path):
    folder = Folder(tmp_path / "runs")
    find_or_create_experiment(connect(folder, deployed.address), folder, deployed.address)
    out = inside(*TINY, f"tracking.uri={deployed.database()}", "report=false", folder=tmp_path)[1]
    assert f"nothing is copied to MLflow, the journals go on ({deployed.database().replace('ablate@', '')}: " in out
    assert (
        "the artifacts of this store are behind a server; name that instead, for example http://127.0.0.1:5000" in out
    )
