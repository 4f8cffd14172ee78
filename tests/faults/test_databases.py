"""MLflow's database: made by another version of MLflow, migrated when a user asks for it, killed meanwhile."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sqlite3
from contextlib import closing

import pytest
from conftest import TINY
from mlflow import MlflowClient
from program import inside, journals, mistake
from recorded import copied, finished_study

from ablate.report import __main__ as report_main
from ablate.track import __main__ as track_main
from ablate.track.folder import Folder
from ablate.track.mlflow import database as database_module
from ablate.track.mlflow.database import create_database, load_mlflow, upgrade_database


@pytest.fixture(scope="module")
def old_store(tmp_path_factory):
    """A store as the MLflow of one revision ago made it, with an experiment."""
    load_mlflow()
    from alembic import command
    from mlflow.store.db import utils

    path = tmp_path_factory.mktemp("old") / "mlflow.db"
    engine = utils.create_sqlalchemy_engine(f"sqlite:///{path}")
    utils.InitialBase.metadata.create_all(engine)
    config = utils._get_alembic_config(str(engine.url))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, database_module._known()[1])
    engine.dispose()
    query(path, "INSERT INTO experiments (name, lifecycle_stage) VALUES ('mine', 'active')")
    return path


def query(path, text):
    with closing(sqlite3.connect(path)) as database, database:
        return database.execute(text).fetchall()


def revision(path):
    return query(path, "SELECT version_num FROM alembic_version")[0][0]


OLDER, NEWER = "older", "newer"


@pytest.fixture
def foreign(old_store, empty_store, tmp_path, request):
    """A runs folder whose store is of another MLflow."""
    folder = Folder(tmp_path / "runs")
    folder.root.mkdir()
    shutil.copy(old_store if request.param == OLDER else empty_store, folder.database())
    if request.param == NEWER:
        query(folder.database(), "UPDATE alembic_version SET version_num = 'f00d'")
    return folder


def says(which, folder):
    """What is said of such a store."""
    version = database_module._version()
    if which == NEWER:
        return (
            f"made by a newer MLflow (this one, {version}, does not know its revision f00d); "
            "pip install --upgrade mlflow, or use another store"
        )
    return f"python -m ablate.track upgrade --uri sqlite:///{folder.database()} migrates it and keeps a copy"


@pytest.mark.parametrize(("foreign", "which"), [(OLDER, OLDER), (NEWER, NEWER)], indirect=["foreign"])
def test_neither_mirror_nor_reader_nor_sync_touches_a_store_of_another_mlflow(foreign, which):
    address, before = f"sqlite:///{foreign.database()}", foreign.database().read_bytes()
    launched = finished_study(foreign, 1.0)
    complete, notes, _ = copied(foreign, None, launched, looks=3)
    assert (complete, len(notes)) == (False, 1)
    assert notes[0].startswith(f"nothing is copied to MLflow, the journals go on ({address}: made by a")
    assert says(which, foreign) in notes[0]
    for program, told in (
        ("report", mistake(report_main.main, "--store", address)),
        ("track", mistake(track_main.main, "sync", "--runs", foreign)),
    ):
        assert told.startswith(f"ablate.{program}: sqlite:")
        assert says(which, foreign) in told
    assert foreign.database().read_bytes() == before


@pytest.mark.parametrize("foreign", [OLDER], indirect=True)
def test_a_study_trains_without_a_store_that_is_too_old_and_what_it_says_to_type_mends_it(foreign, capsys):
    before, old = foreign.database().read_bytes(), revision(foreign.database())
    code, out, _ = inside(*TINY, "name=s", "report=false", folder=foreign.root.parent)
    assert code == 0
    assert [events[-1]["event"] for events in journals(foreign.root.parent).values()] == ["finished"]
    command = out.partition("python -m ablate.track ")[2].partition(" migrates it")[0]
    track_main.main(shlex.split(command))
    kept = foreign.root / f"mlflow.db.before-{old}"
    assert capsys.readouterr().out == f"{foreign.database()}: migrated; as it was, it is in {kept}\n"
    assert (revision(kept), revision(foreign.database())) == (old, database_module._head())
    assert query(kept, "SELECT name FROM experiments") == [("mine",)]
    assert foreign.database().read_bytes() != before
    track_main.main(["sync", "--runs", str(foreign)])
    names = {found.name for found in MlflowClient(f"sqlite:///{foreign.database()}").search_experiments()}
    assert names >= {"mine", "ablate"}
    track_main.main(["upgrade", "--runs", str(foreign)])
    assert capsys.readouterr().out.endswith(f"{foreign.database()}: nothing to migrate\n")


@pytest.mark.parametrize("foreign", [NEWER], indirect=True)
def test_a_newer_store_is_not_upgraded_nor_is_what_is_none(foreign, tmp_path):
    before = foreign.database().read_bytes()
    for arguments, said in (
        (["--runs", str(foreign)], says(NEWER, foreign)),
        (["--runs", str(tmp_path / "none")], "there is no such file"),
        (["--uri", "postgresql://me:hunter2@db/x"], "postgresql://db/x: not a SQLite file; back the database up"),
    ):
        told = mistake(track_main.main, "upgrade", *arguments)
        assert said in told
        assert "hunter2" not in told
    assert foreign.database().read_bytes() == before
    assert not list(foreign.root.glob("*before*"))


@pytest.mark.parametrize("foreign", [OLDER], indirect=True)
def test_a_store_that_another_process_writes_to_is_not_migrated_meanwhile(foreign, monkeypatch):
    before = foreign.database().read_bytes()
    monkeypatch.setattr(database_module, "_BUSY_SECONDS", 0)
    with closing(sqlite3.connect(foreign.database())) as writer:
        writer.execute("BEGIN IMMEDIATE")
        told = mistake(track_main.main, "upgrade", "--runs", foreign)
    reason = "OperationalError: database is locked"
    assert told == f"ablate.track: {foreign.database()}: as it was, for it could not be migrated ({reason})"
    assert foreign.database().read_bytes() == before


STEPS = ["before the copy", "before the copy is kept", "before migrating", "after migrating", "in the move", "after it"]


@pytest.mark.parametrize("foreign", [OLDER], indirect=True)
@pytest.mark.parametrize("step", STEPS)
def test_kill_9_at_any_step_of_the_upgrade_loses_nothing_and_the_next_one_completes_it(foreign, step):
    path, old, head = foreign.database(), revision(foreign.database()), database_module._head()
    pid = os.fork()
    if pid == 0:
        killed_at(step)
        upgrade_database(path)
        die()
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert revision(path) == (head if step == "after it" else old)
    assert ("mine",) in query(path, "SELECT name FROM experiments")
    kept = path.with_name(f"mlflow.db.before-{old}")
    assert upgrade_database(path) == (None if step == "after it" else kept)
    assert (revision(path), revision(kept)) == (head, old)
    for each in (path, kept):
        assert query(each, "SELECT name FROM experiments") == [("mine",)]
    assert not [left for left in foreign.root.iterdir() if left.is_dir()]


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(step):
    """Have this process killed at a step of an upgrade."""
    copy, migrate = database_module._copy, database_module._migrate

    def torn(source, target):
        if target.name != "mlflow.db":
            copy(source, target)
            return
        with closing(sqlite3.connect(source)) as new, closing(sqlite3.connect(target)) as there:
            there.execute("PRAGMA cache_size = 5")  # so that pages reach the file before the transaction ends
            new.backup(there, pages=20, progress=lambda _, remaining, pages: die() if remaining < pages / 2 else None)

    if step == "before the copy":
        database_module._copy = die
    elif step == "before the copy is kept":
        os.replace = die
    elif step == "before migrating":
        database_module._migrate = die
    elif step == "after migrating":
        database_module._migrate = lambda path: (migrate(path), die())
    elif step == "in the move":
        database_module._copy = torn


def test_a_store_that_was_made_is_in_its_folder_after_a_power_cut(tmp_path, monkeypatch, empty_store):
    done, replace, fsync = [], os.replace, os.fsync
    monkeypatch.setattr(database_module, "_create", lambda path, _: shutil.copy(empty_store, path))
    monkeypatch.setattr(os, "replace", lambda *names: (replace(*names), done.append("moved")))
    monkeypatch.setattr(os, "fsync", lambda file: (fsync(file), done.append(os.fstat(file).st_ino)))
    create_database(tmp_path / "mlflow.db")
    assert done == ["moved", tmp_path.stat().st_ino]
