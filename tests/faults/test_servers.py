"""MLflow stores that others use too, that answer late, refuse or are away, and addresses of none."""

from __future__ import annotations

import shutil
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import TINY
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    BAD_REQUEST,
    INVALID_PARAMETER_VALUE,
    RESOURCE_DOES_NOT_EXIST,
    RESOURCE_EXHAUSTED,
    TEMPORARILY_UNAVAILABLE,
)
from program import inside, mistake
from recorded import Trial, copied, finished_study, launch
from requests import HTTPError, Response
from sqlalchemy.exc import ArgumentError

from ablate.address import without_secrets
from ablate.knobs import KnobError
from ablate.study.run import _how_to_browse
from ablate.track import __main__ as track_main
from ablate.track.folder import Folder
from ablate.track.mlflow import client as client_module
from ablate.track.mlflow import mirror as mirror_module
from ablate.track.mlflow.client import is_refusal
from ablate.track.mlflow.liveness import FOLDER, folder_id
from ablate.track.mlflow.mirror import Mirror
from ablate.track.mlflow.store import Store
from ablate.track.process import this_process
from ablate.track.read import read_study


@pytest.fixture
def store(empty_store, tmp_path):
    """The address of a store that holds nothing yet."""
    shutil.copy(empty_store, tmp_path / "shared.db")
    return f"sqlite:///{tmp_path}/shared.db"


def runs_of(store):
    """Parents, and children by parent."""
    client = MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("ablate").experiment_id])
    parents = [run for run in runs if run.data.tags.get("ablate.kind") == "study"]
    ids = [parent.info.run_id for parent in parents]
    return parents, {key: [r for r in runs if r.data.tags.get("mlflow.parentRunId") == key] for key in ids}


# Two people, one store


def test_two_runs_folders_have_a_study_each_in_one_store_and_the_newest_is_read(store, tmp_path):
    mine, theirs = Folder(tmp_path / "mine"), Folder(tmp_path / "theirs")
    launches = [finished_study(mine, 1.0, 2.0), finished_study(theirs, 3.0, 4.0)]
    for _ in range(2):
        for folder, launched in zip((mine, theirs), launches, strict=True):
            assert copied(folder, store, launched)[:2] == (True, [])
    parents, children = runs_of(store)
    assert {parent.data.tags[FOLDER] for parent in parents} == {folder_id(mine), folder_id(theirs)}
    for parent in parents:
        runs = children[parent.info.run_id]
        assert [run.data.tags[FOLDER] for run in runs] == [parent.data.tags[FOLDER]] * 2
        assert {run.info.status for run in runs} == {"FINISHED"}
    assert sorted(read_study(Store(store), "s").trials["test_nll"]) == [3.0, 4.0]


def test_a_run_is_marked_killed_by_its_own_runs_folder_alone(store, tmp_path):
    folder, here = Folder(tmp_path / "mine"), this_process().rsplit(":", 2)[0]
    launched = finished_study(folder, 1.0)
    copied(folder, store, launched)
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("ablate").experiment_id

    def made(process, **tags):
        beat = {"ablate.heartbeat": "2020-01-01T00:00:00+00:00"}
        return client.create_run(experiment, tags={"ablate.process": process} | beat | tags).info.run_id

    own, theirs = {FOLDER: folder_id(folder)}, {FOLDER: "another"}
    dead, silent = f"{here}:1:1", "another-host:1:1"
    killed = [made(dead, **own), made(silent, **own), made(dead)]
    alone = [made(dead, **theirs), made(silent, **theirs), made(silent)]
    assert copied(folder, store, launched)[:2] == (True, [])
    assert [client.get_run(run).info.status for run in killed] == ["KILLED"] * 3
    assert [client.get_run(run).info.status for run in alone] == ["RUNNING"] * 3


def test_two_first_launches_agree_on_what_their_runs_folder_is_called_and_it_may_be_moved(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: folder_id(Folder(tmp_path / "runs")), range(8)))
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert found == {folder_id(Folder(tmp_path / "moved"))}
    assert found != {folder_id(Folder(tmp_path / "other"))}


# Calls that time out and are carried out all the same


class Late:
    """A client whose `nth` call to create a run times out, and is carried out when the next one comes."""

    left, late = 0, None

    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        return getattr(self.client, name)

    def create_run(self, *arguments, **named):
        Late.left -= 1
        if Late.left == 0:
            Late.late = (arguments, named)
            raise TimeoutError("create_run")
        if Late.late is not None:
            arguments_then, named_then = Late.late
            Late.late = None
            self.client.create_run(*arguments_then, **named_then)
        return self.client.create_run(*arguments, **named)


@pytest.mark.parametrize("nth", [1, 2], ids=["parent", "child"])
def test_a_run_that_is_created_after_the_call_timed_out_is_there_once_and_complete(nth, store, tmp_path, monkeypatch):
    folder = Folder(tmp_path / "runs")
    launched = finished_study(folder, 1.0)
    monkeypatch.setattr(Late, "left", nth)
    monkeypatch.setattr(mirror_module, "connect", lambda *asked: Late(client_module.connect(*asked)))
    complete, notes, _ = copied(folder, store, launched, looks=4)
    assert (complete, len(notes)) == (True, 1)
    (parent,), children = runs_of(store)
    (child,) = children[parent.info.run_id]
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert child.data.metrics["valid_nll"] == 2.0
    assert list(read_study(Store(store), "s").trials["test_nll"]) == [1.0]


def test_the_children_of_a_second_parent_are_those_of_the_first(store, tmp_path):
    folder = Folder(tmp_path / "runs")
    launched = finished_study(folder, 1.0, 2.0)
    copied(folder, store, launched)
    client = MlflowClient(store)
    (second,), _ = runs_of(store)
    tags = {key: value for key, value in second.data.tags.items() if not key.startswith("mlflow.")}
    first = client.create_run(second.info.experiment_id, start_time=1, tags=tags).info.run_id
    assert copied(folder, store, launched)[:2] == (True, [])
    (parent,), children = runs_of(store)
    assert parent.info.run_id == first
    assert len(children[first]) == 2


# Trials that MLflow refuses


def test_a_trial_that_is_refused_stops_no_other_and_is_told_by_its_name_once(store, tmp_path, capsys):
    folder = Folder(tmp_path / "runs")
    launched = finished_study(folder, 1.0, 2.0, 3.0)
    refused = Trial(folder, "1".ljust(64, "0"))
    refused.start(1)
    refused.log(20, **{"a?b": 1.0})
    refused.finish()
    complete, notes, pauses = copied(folder, store, launched, looks=3)
    assert (complete, len(notes), set(pauses)) == (True, 1, {mirror_module._POLL_SECONDS})
    assert notes[0].startswith("MLflow refuses the trial a · seed 1 (MlflowException: ")
    assert "a?b" in notes[0]
    (parent,), children = runs_of(store)
    ended = {run.data.tags["ablate.seed"]: run.info.status for run in children[parent.info.run_id]}
    assert ended == {"0": "FINISHED", "1": "FAILED", "2": "FINISHED"}
    assert parent.data.tags["ablate.trials"] == "3 of 3 finished"
    track_main.main(["sync", "--runs", str(folder), "--uri", store])
    assert capsys.readouterr().out.endswith("s: done but for a · seed 1, which MLflow refuses\n")


def test_texts_that_no_database_holds_or_that_are_too_long_are_made_acceptable(store, tmp_path):
    folder = Folder(tmp_path / "runs")
    knobs = {"nul": "a\0b", "half": "a\ud800b", "long": "x" * 7000}
    launched = finished_study(folder, 1.0, knobs=knobs, data={"name": "y" * 600}, facts={"gpu": "a\ud800"})
    assert copied(folder, store, launched)[:2] == (True, [])
    (parent,), children = runs_of(store)
    (child,) = children[parent.info.run_id]
    assert (child.data.params["nul"], child.data.params["half"]) == ("a\ufffdb", "a\ufffdb")
    assert child.data.params["long"] == "x" * 5999 + "…"
    assert child.data.tags["ablate.gpu"] == "a\ufffd"
    assert child.inputs.dataset_inputs[0].dataset.name.endswith("y…")


def test_a_run_that_a_user_deletes_meanwhile_is_no_refusal_and_is_made_again(store, tmp_path):
    folder, notes, looks = Folder(tmp_path / "runs"), [], []
    trial = Trial(folder)
    trial.start()
    trial.log(20)

    def is_over(_):
        looks.append(1)
        if len(looks) == 2:
            (parent,), children = runs_of(store)
            MlflowClient(store).delete_run(children[parent.info.run_id][0].info.run_id)
            trial.finish()
        return len(looks) == 4

    assert Mirror(folder, store, launch(), notes.append).follow(is_over)
    (parent,), children = runs_of(store)
    assert [run.info.status for run in children[parent.info.run_id]] == ["FINISHED"]
    assert not [note for note in notes if "refuses the trial" in note]


def caused(error, cause):
    error.__cause__ = cause
    return error


TOO_LARGE, GONE = Response(), Response()
TOO_LARGE.status_code, GONE.status_code = 413, 502


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (MlflowException("a name", INVALID_PARAMETER_VALUE), True),
        (MlflowException("DataError", BAD_REQUEST), True),
        (caused(MlflowException("a text"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates")), True),
        (HTTPError("a file", response=TOO_LARGE), True),
        (HTTPError("a proxy", response=GONE), False),
        (MlflowException("a lock", TEMPORARILY_UNAVAILABLE), False),
        (MlflowException("a run", RESOURCE_DOES_NOT_EXIST), False),
        (MlflowException("too often", RESOURCE_EXHAUSTED), False),
        (ConnectionError("a server"), False),
    ],
    ids=str,
)
def test_a_refusal_of_one_call_is_known_from_a_store_that_is_away(error, refused):
    assert is_refusal(error) is refused


# Stores that are away


def test_a_store_that_is_away_is_asked_less_and_less_often_told_once_and_asked_at_the_end_at_once(
    empty_store, tmp_path
):
    folder = Folder(tmp_path / "runs")
    launched = finished_study(folder, 1.0)
    folder.database().write_bytes(b"this is no database" * 100)
    notes, pauses = [], []

    def is_over(seconds):
        pauses.append(seconds)
        if len(pauses) == 9:
            shutil.copy(empty_store, folder.database())
        return len(pauses) == 9

    assert Mirror(folder, None, launched, notes.append).follow(is_over)
    first, most = mirror_module._POLL_SECONDS, mirror_module._MOST_SECONDS
    assert pauses == [min(first * 2**failures, most) for failures in range(9)]
    assert len(notes) == 1


def test_a_store_that_comes_and_goes_is_told_once_and_asked_as_often_as_ever_while_it_is_there(
    store, tmp_path, monkeypatch
):
    folder, looks = Folder(tmp_path / "runs"), []
    launched = finished_study(folder, 1.0)
    copy = Mirror._copy

    def fails_every_other_time(mirror):
        looks.append(1)
        if len(looks) % 2:
            raise ConnectionError(f"look {len(looks)}")
        copy(mirror)

    monkeypatch.setattr(Mirror, "_copy", fails_every_other_time)
    complete, notes, pauses = copied(folder, store, launched, looks=8)
    assert (complete, len(notes)) == (True, 1)
    first = mirror_module._POLL_SECONDS
    assert pauses == [first, 2 * first] * 4


# Addresses that are wrong, and secrets in them


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("htps://me:hunter2@h:5000", "MLflow has no store of the scheme 'htps'; did you mean 'https'?"),
        ("postgres://me:hunter2@h/db", "MLflow has no store of the scheme 'postgres'; did you mean 'postgresql'?"),
        ("127.0.0.1:5000", "must be the address of an MLflow store; for example sqlite:///runs/mlflow.db"),
    ],
)
def test_an_address_of_no_store_is_refused_before_training_with_the_nearest_that_works(address, said, tmp_path):
    code, out, err = inside(*TINY, f"tracking.uri={address}", folder=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith(f"ablate: tracking.uri={without_secrets(address)}: {said}")
    assert len(err.splitlines()) == 1
    assert "hunter2" not in err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KnobError, match="store="):
        Store(address)
    assert mistake(track_main.main, "sync", "--uri", address).startswith("ablate.track: --uri")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    "address",
    [
        "http://me:hunter2@127.0.0.1:{port}",
        "http://127.0.0.1:{port}?token=hunter2",
        "postgresql+nodriver://me:hunter2@127.0.0.1:{port}/db",
        "postgresql://me:hun/hunter2@127.0.0.1:port/db?password=hunter2",
        "sqlite://me:hunter2@h/db",
    ],
)
def test_no_secret_of_an_address_is_told(address, tmp_path, capfd):
    address = address.format(port=free_port())
    folder = Folder(tmp_path / "runs")
    launched = finished_study(folder, 1.0)
    complete, notes, _ = copied(folder, address, launched)
    assert (complete, len(notes)) == (False, 1)
    with pytest.raises(KnobError) as unread:
        Store(address).studies()
    told = [
        *notes,
        mistake(track_main.main, "sync", "--runs", folder, "--uri", address),
        str(unread.value),
        _how_to_browse(folder, address, "/#/x?y=z"),
        *capfd.readouterr(),
    ]
    assert not [text for text in told if "hunter2" in text]


@pytest.mark.parametrize("key", ["tracking.uri=", "tracking={enabled:true,uri:"])
def test_a_study_neither_prints_nor_writes_a_secret_of_an_address(key, tmp_path):
    address = f"{key}'http://me:hunter2@127.0.0.1:{free_port()}'{'}' if '{' in key else ''}"
    code, out, err = inside(*TINY, address, "report=false", folder=tmp_path)
    assert (code, "MLflow is not reachable" in out) == (0, True)
    assert "hunter2" not in out + err
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if b"hunter2" in path.read_bytes()]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:p@ss/w@host:5000/x", "http://host:5000/x"),
        ("cannot parse 'mysql+pymysql://me@h/db?ssl_key=k&b=c'", "cannot parse 'mysql+pymysql://h/db?***"),
        ("Max retries exceeded with url: /x?token=abc (Caused", "Max retries exceeded with url: /x?*** (Caused"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("did you mean 'depth'?; residual=true&depth=1", "did you mean 'depth'?; residual=true&depth=1"),
        (str(ArgumentError("from URL string 'postgresql://me:s@h:port/db'")), "from URL string 'postgresql://h:port/db'"),
    ],
)  # fmt: skip
def test_an_address_is_shown_without_its_user_and_its_query(text, shown):
    assert without_secrets(text) == shown
