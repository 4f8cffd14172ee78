"""A client of MLflow's store: connecting, the experiment, searching, what it refuses."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from ablate.address import without_secrets
from ablate.knobs import KnobError
from ablate.track.folder import Folder
from ablate.track.mlflow.database import (
    DATABASES,
    check_schema,
    create_database,
    create_tables,
    load_mlflow,
    sqlite_file,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "ablate"
# The launch of a study: the file that its run holds, and the tag that says when it was.
LAUNCH, LAUNCHED = "launch.json", "ablate.launched"
PARENT = "mlflow.parentRunId"
_PAGE = 1000  # runs of one answer
# A database's own refusal of a value (SQLAlchemy's DataError) comes as BAD_REQUEST.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "RESOURCE_CONFLICT"}


def open_client(uri: str) -> MlflowClient:
    """A client of the store at a tracking URI.

    Raises:
        KnobError: the store is a database of another version of MLflow.
    """
    load_mlflow()
    from mlflow import MlflowClient

    if (path := sqlite_file(uri)) is not None:
        # MLflow keeps the stores of a process by their address: a relative one would stay in the folder of the first.
        uri = f"sqlite:///{path}"
    check_schema(uri)
    return MlflowClient(uri)


def tracking_uri(folder: Folder, uri: str | None) -> str:
    """The URI asked for, or the SQLite store of the runs folder."""
    return uri or f"sqlite:///{folder.database()}"


def connect(folder: Folder, uri: str | None) -> MlflowClient:
    """A client of the store, which is created first where it is a SQLite file that is not there, or has no tables."""
    uri = tracking_uri(folder, uri)
    if (path := sqlite_file(uri)) is not None:
        create_database(path)
    else:
        create_tables(uri, folder.artifacts().resolve())
    return open_client(uri)


def find_or_create_experiment(client: MlflowClient, folder: Folder, uri: str | None) -> str:
    """The id of the experiment that holds all studies.

    Raises:
        KnobError: the store is a database whose artifacts are a server's.
    """
    from mlflow.exceptions import MlflowException

    address = tracking_uri(folder, uri)
    if (found := client.get_experiment_by_name(EXPERIMENT)) is None:
        # MLflow 3 then opens the experiment on its table of runs and charts.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=_artifacts(folder, address), tags=tags))
        except MlflowException as error:  # another study may have created it meanwhile
            if (found := client.get_experiment_by_name(EXPERIMENT)) is None:
                raise error
    check_artifacts(address, str(found.artifact_location))
    return str(found.experiment_id)


def check_artifacts(address: str, location: str) -> None:
    """Refuse a database, of which a server has the artifacts, as a store by itself. Raises KnobError."""
    if location.startswith("mlflow-artifacts:") and not address.startswith(("http://", "https://")):
        raise KnobError(
            f"{without_secrets(address)}: the artifacts of this store are behind a server; name that instead, for "
            "example http://127.0.0.1:5000"
        )


def _artifacts(folder: Folder, address: str) -> str | None:
    """Where the artifacts of a new store go; None: that is a server's business.

    MLflow itself would put those of a database into the folder that this process happens to be started in.
    """
    if not address.startswith(DATABASES):
        return None
    path = sqlite_file(address)
    return (folder.artifacts() if path is None else path.parent / "artifacts").resolve().as_uri()


def search(client: MlflowClient, experiment: str, query: str) -> list[Run]:
    """All runs that match; MLflow gives a page at a time."""
    from mlflow.entities import ViewType
    from mlflow.utils import get_results_from_paginated_fn

    def page(size: int, after: str | None) -> list[Run]:
        return client.search_runs([experiment], query, ViewType.ACTIVE_ONLY, size, None, after)

    runs: list[Run] = get_results_from_paginated_fn(page, _PAGE)  # type: ignore[no-untyped-call]
    return runs


def in_order(same: Iterable[Run]) -> list[Run]:
    """Runs that stand for one thing, the one to keep first.

    There are several where a call to create one timed out, but was carried out all the same.
    """
    return sorted(same, key=lambda run: (run.info.start_time, run.info.run_id))


def is_refusal(error: BaseException) -> bool:
    """Whether a store refused what a call asked for, so that to ask again is in vain; else it is away or broken."""
    wrong_text = isinstance(error, UnicodeError) or isinstance(error.__cause__, UnicodeError)
    too_large = getattr(getattr(error, "response", None), "status_code", None) == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return wrong_text or too_large or getattr(error, "error_code", None) in _REFUSALS


def in_one_line(error: BaseException) -> str:
    """What was raised, short, without the secrets of an address."""
    return f"{type(error).__name__}: {without_secrets(str(error).strip().partition(chr(10))[0])[:200]}"
