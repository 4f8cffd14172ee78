"""Addresses of stores that cannot be used from here, stores that two studies make at once, and where artifacts go."""

from __future__ import annotations

import shutil
import sys

import pytest
from conftest import TINY
from mlflow import MlflowClient
from program import inside
from recorded import copied, finished_study

from ablate.address import without_secrets
from ablate.track.folder import Folder
from ablate.track.mlflow import client as client_module
from ablate.track.mlflow import mirror as mirror_module

INSTALL = "pip install 'ablate-lm[postgres]'"
EXAMPLE = "for example postgresql+psycopg://HOST:5432/mlflow"


@pytest.mark.parametrize(
    ("address", "without", "said"),
    [
        ("postgresql+psycopg://me:hunter2@h/db", "psycopg",
         f"PostgreSQL needs psycopg, which cannot be imported; {INSTALL}\n"),
        ("postgresql://me:hunter2@h/db", "psycopg", INSTALL),
        ("postgresql+psycopg2://me:hunter2@h/db", "psycopg2", f"write postgresql+psycopg://…, which needs {INSTALL}"),
        ("mysql+pymysql://me:hunter2@h/db", "pymysql", "its driver cannot be imported"),
        ("postgresql+nodriver://me:hunter2@h/db", "nodriver", EXAMPLE),
        ("postgresql://me:hunter2@h:port/db", "nodriver", EXAMPLE),
    ],
)  # fmt: skip
def test_a_database_without_its_driver_is_refused_before_training_with_what_to_install(
    address, without, said, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, without, None)
    code, out, err = inside(*TINY, f"tracking.uri={address}", folder=tmp_path)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"ablate: tracking.uri={without_secrets(address)}: ")
    assert said in err
    assert "hunter2" not in err
    assert list(tmp_path.iterdir()) == []


def test_an_empty_variable_is_no_address_and_one_that_works_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    code, _, err = inside(*TINY, "tracking=server", folder=tmp_path)
    said = "tracking.uri=: must be an MLflow tracking URI, for example http://127.0.0.1:5000, or null"
    assert (code, err) == (2, f"ablate: {said}\n")


@pytest.fixture
def store(empty_store, tmp_path):
    """The address of a store that holds nothing yet."""
    shutil.copy(empty_store, tmp_path / "shared.db")
    return f"sqlite:///{tmp_path}/shared.db"


class Blind:
    """A client that does not see an experiment which another process creates at the same time."""

    def __init__(self, client):
        self.client, self.looks = client, 0

    def __getattr__(self, name):
        return getattr(self.client, name)

    def get_experiment_by_name(self, name):
        self.looks += 1
        return None if self.looks == 1 else self.client.get_experiment_by_name(name)


def test_two_studies_that_create_the_experiment_at_once_share_it_and_nothing_is_told(store, tmp_path, monkeypatch):
    first, second = Folder(tmp_path / "first"), Folder(tmp_path / "second")
    assert copied(first, store, finished_study(first, 1.0))[:2] == (True, [])
    monkeypatch.setattr(mirror_module, "connect", lambda *asked: Blind(client_module.connect(*asked)))
    assert copied(second, store, finished_study(second, 2.0))[:2] == (True, [])
    client = MlflowClient(store)
    (experiment,) = [found for found in client.search_experiments() if found.name == "ablate"]
    parents = client.search_runs([experiment.experiment_id], "tags.`ablate.kind` = 'study'")
    assert len(parents) == 2


def test_artifacts_of_a_store_in_a_file_lie_beside_it_wherever_a_study_is_started(store, tmp_path, monkeypatch):
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    folder = Folder(tmp_path / "runs")
    assert copied(folder, store, finished_study(folder, 1.0))[:2] == (True, [])
    assert list((tmp_path / "artifacts").glob("*/artifacts/journal.jsonl"))
    assert list(elsewhere.iterdir()) == []
