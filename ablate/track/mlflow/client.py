"""A client of MLflow's store: connecting, creating the SQLite file, the experiment, searching."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from ablate.track.journal import Folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "ablate"
# The launch of a study: the file that its run holds, and the tag that says when it was.
LAUNCH, LAUNCHED = "launch.json", "ablate.launched"
_SCRATCH = "creating-mlflow-db-"
_PAGE = 1000  # runs of one answer


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


def open_client(uri: str) -> MlflowClient:
    """A client of the store at a tracking URI; a SQLite file that does not exist is created."""
    load_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(uri)


def tracking_uri(folder: Folder, uri: str | None) -> str:
    """The URI asked for, or the SQLite store of the runs folder."""
    return uri or f"sqlite:///{folder.database()}"


def connect(folder: Folder, uri: str | None) -> MlflowClient:
    """A client of the store, which is created first where it is the SQLite file and does not exist."""
    load_mlflow()
    if uri is not None:
        return open_client(uri)
    create_database(folder.database())
    # MLflow keeps the stores of a process by their address: a relative one would stay in the folder of the first.
    return open_client(tracking_uri(Folder(folder.root.resolve()), None))


def create_database(path: Path) -> None:
    """Create MLflow's SQLite store, whole or not at all.

    Its own migration is not safe against a second process or a kill: the tables are made in a file beside it, under
    a lock, and moved into place (mlflow issue 23721).
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.exists():
            return
        for left in path.parent.glob(f"{_SCRATCH}*"):  # by a process that was killed here; the lock is ours
            shutil.rmtree(left, ignore_errors=True)
        _create_in_scratch(path)


def _create_in_scratch(path: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_SCRATCH) as scratch:
        new = Path(scratch, "mlflow.db")
        store = SqlAlchemyStore(  # type: ignore[no-untyped-call]
            f"sqlite:///{new}", str(path.parent / "artifacts")
        )
        store.engine.dispose()
        os.replace(new, path)


def find_or_create_experiment(client: MlflowClient, folder: Folder, uri: str | None) -> str:
    """The id of the experiment that holds all studies."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    location = folder.artifacts().resolve().as_uri() if uri is None else None
    # MLflow 3 then opens the experiment on its table of runs and charts.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(EXPERIMENT, artifact_location=location, tags=tags))


def search(client: MlflowClient, experiment: str, query: str) -> list[Run]:
    """All runs that match; MLflow gives a page at a time."""
    from mlflow.entities import ViewType
    from mlflow.utils import get_results_from_paginated_fn

    def page(size: int, after: str | None) -> list[Run]:
        return client.search_runs([experiment], query, ViewType.ACTIVE_ONLY, size, None, after)

    runs: list[Run] = get_results_from_paginated_fn(page, _PAGE)  # type: ignore[no-untyped-call]
    return runs
