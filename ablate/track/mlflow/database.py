"""MLflow's database: created whole or not at all, and never migrated unless a user asks for it.

MLflow's own migrations are not safe against a second process or a kill, and MLflow starts them by itself when it opens
a database in which a table is missing (mlflow issue 23721).
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

from filelock import FileLock

from ablate.address import without_secrets
from ablate.disk import sync
from ablate.knobs import KnobError

_SQLITE = "sqlite:///"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SCRATCH = "creating-mlflow-db-"
_BUSY_SECONDS = 20.0


def load_mlflow() -> None:
    """Import MLflow with short timeouts and without log noise."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # slow where there is no network
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the journals are replayed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow  # noqa: F401

    for name in ("mlflow", "alembic"):  # after the import, which sets levels of its own
        logging.getLogger(name).setLevel(logging.WARNING)
    # It logs what it also raises, with the address in it.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store, from its root on; None for every other store."""
    path = uri.removeprefix(_SQLITE)
    is_file = uri.startswith(_SQLITE) and path and "?" not in path and not path.startswith((":", "file:"))
    return Path(path).resolve() if is_file else None


def create_database(path: Path) -> None:
    """Create MLflow's SQLite store, whole or not at all: in a file beside it, which is moved into place."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(path) as scratch:
        if not path.exists():
            new = scratch / path.name
            _create(new, path.parent / "artifacts")
            os.replace(new, path)
            sync(path.parent)


def create_tables(uri: str, artifacts: Path) -> None:
    """Create MLflow's tables in a PostgreSQL database that has none, by one process at a time.

    Args:
        artifacts: where those of MLflow's own experiment go.
    """
    if uri.startswith("postgresql") and _revision(uri)[1]:
        with _alone(uri):
            if _revision(uri)[1]:
                _make_tables(uri, artifacts)


def check_schema(uri: str) -> None:
    """Refuse a database that another version of MLflow made: MLflow might migrate it while opening it.

    Raises:
        KnobError: with what to type.
    """
    if not uri.startswith(DATABASES):
        return
    revision, is_empty = _revision(uri)
    if is_empty or revision == _head():
        return
    shown = without_secrets(uri)
    if revision is None:
        raise KnobError(f"{shown}: this database is not an MLflow store")
    if revision not in _known():
        raise KnobError(
            f"{shown}: made by a newer MLflow (this one, {_version()}, does not know its revision {revision}); "
            "pip install --upgrade mlflow, or use another store"
        )
    how = (
        f"back it up, then type mlflow db upgrade {shlex.quote(shown)}"
        if sqlite_file(uri) is None
        else f"python -m ablate.track upgrade --uri {shlex.quote(shown)} migrates it and keeps a copy"
    )
    raise KnobError(f"{shown}: made by an older MLflow (revision {revision}; {_version()} needs {_head()}); {how}")


def upgrade_database(path: Path) -> Path | None:
    """Migrate a SQLite store to the MLflow that is installed; a kill at any instant leaves the old one or the new one.

    Returns:
        A copy of the store as it was; None where there was nothing to do.

    Raises:
        KnobError: the store is a newer MLflow's, or not MLflow's.
    """
    with _scratch(path) as scratch:
        uri = f"{_SQLITE}{path}"
        revision, _ = _revision(uri)
        if revision not in _known() or revision == _head():
            check_schema(uri)
            return None
        old, new = scratch / "old.db", scratch / "new.db"
        kept = path.with_name(f"{path.name}.before-{revision}")
        with _no_writer(path):
            _copy(path, old)
            shutil.copyfile(old, new)
            os.replace(old, kept)
            sync(path.parent)
            _migrate(new)
        # Not a rename, which would leave a process that has the store open with a file that is gone: one transaction.
        _copy(new, path)
        return kept


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """A folder beside a store, for the one process that makes or migrates the store."""
    with FileLock(f"{path}.lock"):
        for left in path.parent.glob(f"{_SCRATCH}*"):  # by a process that was killed here; the lock is ours
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=_SCRATCH) as scratch:
            yield Path(scratch)


def _create(path: Path, artifacts: Path) -> None:
    _make_tables(f"{_SQLITE}{path}", artifacts)


def _make_tables(uri: str, artifacts: Path) -> None:
    load_mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(uri, str(artifacts))  # type: ignore[no-untyped-call]
    store.engine.dispose()


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """In this block no other process is in one of the same PostgreSQL database; a lock ends with its connection."""
    from mlflow.store.db import utils
    from sqlalchemy import text

    engine = utils.create_sqlalchemy_engine(uri)  # type: ignore[no-untyped-call]
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(hashtext('ablate: tables of MLflow'))"))
            yield
    finally:
        engine.dispose()


def _migrate(path: Path) -> None:
    """What `mlflow db upgrade` does."""
    load_mlflow()
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine(f"{_SQLITE}{path}")  # type: ignore[no-untyped-call]
    try:
        utils._upgrade_db(engine)  # type: ignore[no-untyped-call]
    finally:
        engine.dispose()


@contextmanager
def _no_writer(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield


def _copy(source: Path, target: Path) -> None:
    """Replace what a SQLite file holds, in one transaction."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target, timeout=_BUSY_SECONDS)) as new:
        old.backup(new)


def _revision(uri: str) -> tuple[str | None, bool]:
    """The revision of a database's schema, and whether it has no tables at all."""
    load_mlflow()
    from alembic.migration import MigrationContext
    from mlflow.store.db import utils
    from sqlalchemy import inspect

    engine = utils.create_sqlalchemy_engine(uri)  # type: ignore[no-untyped-call]
    try:
        with engine.connect() as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
            return revision, not inspect(connection).get_table_names()
    finally:
        engine.dispose()


@cache
def _known() -> tuple[str, ...]:
    """The revisions that the installed MLflow knows, the newest first."""
    load_mlflow()
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils

    scripts = ScriptDirectory.from_config(utils._get_alembic_config(""))  # type: ignore[no-untyped-call]
    return tuple(script.revision for script in scripts.walk_revisions())


def _head() -> str:
    return _known()[0]


def _version() -> str:
    import mlflow

    return f"MLflow {mlflow.__version__}"
