"""The studies that were copied to MLflow, as a source of results."""

from __future__ import annotations

import json
import shlex
import sqlite3
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ablate.address import refusal_of_address, without_secrets
from ablate.knobs import KnobError
from ablate.track.journal import JOURNAL, Event, last_attempt, parse_events
from ablate.track.mlflow.client import EXPERIMENT, LAUNCH, LAUNCHED, check_artifacts, in_one_line, open_client, search
from ablate.track.mlflow.database import sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_CONNECTIONS = 8
_AT_A_TIME = 64
# Tags of a trial's run that are no facts of what it ran on.
_NO_FACTS = {
    "kind", "cell", "seed", "fingerprint", "started", "folder", "process", "heartbeat", "status", "reason",
}  # fmt: skip


class Store:
    """The studies in an MLflow store: a parent run for each, with its launch, and a child for each trial's journal.

    Args:
        uri: "sqlite:///path/of/mlflow.db", "http://host:port", or whatever else MLflow takes. Where a SQLite file has
            been moved or copied together with the folder `artifacts` beside it, they are read there.

    Raises:
        KnobError: from here and from every method, when the address is none or the store cannot be read.
    """

    def __init__(self, uri: str) -> None:
        if (refusal := refusal_of_address(uri)) is not None:
            raise KnobError(f"store={without_secrets(uri)}: {refusal}")
        self._uri = uri
        self._database = sqlite_file(uri)
        self._opened: MlflowClient | None = None
        self._found: list[Run] | None = None

    def __str__(self) -> str:
        return without_secrets(self._uri)

    def studies(self) -> list[str]:
        """Names of all studies, sorted."""
        return sorted({run.data.tags["ablate.study"] for run in self._parents()})

    def newest_study(self) -> str | None:
        """Name of the study launched last, by the clocks of the machines that launched them; None: there is none."""
        newest = max(self._parents(), key=_launched, default=None)
        return None if newest is None else str(newest.data.tags["ablate.study"])

    def launch(self, study: str) -> Event | None:
        """The newest launch of a study.

        Raises:
            KnobError: when the files of the store are missing.
        """
        with self._asking() as client:
            text = self._artifact(client, self._parent(study), LAUNCH)
        if text is None:
            raise KnobError(
                f"the study {study!r} in {self} has no {LAUNCH}: the artifacts of the store are missing; put them "
                f"back, or report from the journals, {self._by_journals(study)}"
            )
        launch: Event = json.loads(text)
        return launch

    def _by_journals(self, study: str) -> str:
        runs = None if self._database is None else self._database.parent
        known = runs is not None and (runs / "studies").is_dir()
        return f"python -m ablate.report {study} --runs {shlex.quote(str(runs)) if known else 'FOLDER'}"

    def attempts(self, study: str, launch: Event) -> Iterator[list[Event]]:
        """The last attempt at each trial of a launch, in its order; [] where none was started or copied yet.

        A run without a journal gives what its parameters and tags say, and no result.
        """
        prints = [trial["fingerprint"] for cell in launch["cells"] for trial in cell["trials"]]
        with self._asking() as client, ThreadPoolExecutor(_CONNECTIONS) as pool:
            parent = self._parent(study)
            children: dict[str, list[Run]] = {}
            query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
            for run in search(client, parent.info.experiment_id, query):
                children.setdefault(str(run.data.tags.get("ablate.fingerprint")), []).append(run)

            def journal(fingerprint: str) -> bytes | None:
                copies = [self._artifact(client, run, JOURNAL) for run in children.get(fingerprint, [])]
                # A journal only grows: of the copies that attempts at one trial left, the longest is the newest.
                return max((copy for copy in copies if copy is not None), key=len, default=None)

            for start in range(0, len(prints), _AT_A_TIME):  # not all at once: a study may have a gigabyte of them
                some = prints[start : start + _AT_A_TIME]
                for fingerprint, copy in zip(some, pool.map(journal, some), strict=True):
                    if copy is not None:
                        yield last_attempt(parse_events(copy))
                    else:
                        yield _without_journal(children.get(fingerprint, []))

    def _parents(self) -> list[Run]:
        if self._found is None:
            with self._asking() as client:
                experiment = client.get_experiment_by_name(EXPERIMENT)
                query = "tags.`ablate.kind` = 'study'"
                runs = [] if experiment is None else search(client, experiment.experiment_id, query)
                # One without a launch was just created, or its mirror was killed; nothing can be read of it yet.
                self._found = [run for run in runs if LAUNCHED in run.data.tags]
        return self._found

    def _parent(self, study: str) -> Run:
        return max((run for run in self._parents() if run.data.tags["ablate.study"] == study), key=_launched)

    @contextmanager
    def _asking(self) -> Iterator[MlflowClient]:
        try:
            if self._opened is None:
                if self._database is not None:
                    self._check_database(self._database)
                self._opened = open_client(self._uri)
            yield self._opened
        except KnobError:
            raise
        except Exception as error:  # whatever MLflow, its server or its database raises
            raise KnobError(f"{self}: this MLflow store cannot be read ({in_one_line(error)})") from error

    def _check_database(self, path: Path) -> None:
        """Refuse what is no store of MLflow's, which would otherwise be made into one."""
        if not path.is_file():
            raise KnobError(f"{self}: there is no such file")
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as database:
            try:
                found = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone()
            except sqlite3.DatabaseError:
                found = None
        if found is None:
            raise KnobError(f"{self}: this file is no MLflow store")

    def _artifact(self, client: MlflowClient, run: Run, name: str) -> bytes | None:
        """A file of a run; None where there is none."""
        folder = self._folder(run)
        if folder is not None:
            path = folder / name
            return path.read_bytes() if path.is_file() else None
        check_artifacts(self._uri, str(run.info.artifact_uri))
        run_id = str(run.info.run_id)
        if name not in [file.path for file in client.list_artifacts(run_id)]:
            return None
        with tempfile.TemporaryDirectory() as scratch:
            return Path(client.download_artifacts(run_id, name, scratch)).read_bytes()

    def _folder(self, run: Run) -> Path | None:
        """Where a run's artifacts lie on this machine; None where a server has them."""
        if self._database is not None:
            # A run records an absolute path, which leads astray once the store has been moved.
            beside = self._database.parent / "artifacts" / str(run.info.run_id) / "artifacts"
            if beside.is_dir():
                return beside
        recorded = urlsplit(str(run.info.artifact_uri))
        if recorded.scheme in ("", "file"):
            return Path(url2pathname(recorded.path))
        return None


def _launched(run: Run) -> str:
    """When a study was launched last, UTC."""
    return str(run.data.tags[LAUNCHED])


def _without_journal(runs: list[Run]) -> list[Event]:
    """What the newest run of a trial says by itself while its journal is being copied."""
    if not runs:
        return []
    tags = {n.removeprefix("ablate."): value for n, value in _newest(runs).data.tags.items() if n.startswith("ablate.")}
    knobs = {name: _typed(value) for name, value in _newest(runs).data.params.items() if name != "seed"}
    started: Event = {
        "event": "started",
        "parameters": knobs.pop("parameters", None),
        "facts": {name: value for name, value in tags.items() if name not in _NO_FACTS},
        "knobs": knobs,
    }
    outcome = tags.get("status", "UNFINISHED")
    if outcome in ("FAILED", "INTERRUPTED"):
        return [started, {"event": outcome.lower(), "reason": tags.get("reason", "")}]
    said = f"; MLflow says {outcome}" if outcome != "UNFINISHED" else ""
    # No final event: a result that cannot be read is none.
    return [started, {"event": "unread", "reason": f"{JOURNAL} is not in MLflow yet{said}"}]


def _newest(runs: list[Run]) -> Run:
    return max(runs, key=lambda run: str(run.data.tags.get("ablate.started", "")))


def _typed(value: str) -> Any:
    """A parameter as the knob it was written from."""
    try:
        return json.loads(value)
    except ValueError:
        return value
