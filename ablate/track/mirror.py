"""MLflow's mirror of the journals.

A thread follows the journals of a study's trials and copies what is new: a parent run for the study, a child run for
each trial. Training never waits for it. What it has copied already it learns from the store itself, so that a launch
that finds every trial finished adds nothing, and one that finds the mirror behind catches it up.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from ablate.config import show
from ablate.track.journal import JOURNAL, Event, Folder, read_events, status
from ablate.track.units import perplexity

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "ablate"
# A view of the table of runs that shows what tells two runs apart; MLflow's own shows neither knobs nor metrics.
_VIEW = "ablate"
_COLUMNS = (
    *(f"metrics.`{name}`" for name in ("test_perplexity", "best_valid_perplexity")),
    *(f"params.`{name}`" for name in ("data.name", "depth", "dropout", "hidden", "recipe", "rnn", "seed", "tie")),
    *(f"tags.`ablate.{name}`" for name in ("cell", "status")),
)
_POLL_SECONDS = 2.0
_CLOSE_SECONDS = 60.0
_MLFLOW_STATUS = {"FINISHED": "FINISHED", "DIVERGED": "FINISHED", "INTERRUPTED": "KILLED"}


def tracking_uri(folder: Folder, uri: str | None) -> str:
    """The URI asked for, or the SQLite store of the runs folder."""
    return uri or f"sqlite:///{folder.database()}"


@dataclass
class Followed:
    """One trial's journal, and how far it has been copied."""

    folder: Path
    fingerprint: str
    label: str
    offset: int = 0
    run_id: str | None = None
    done: bool = False


@dataclass
class Mirror:
    """Follows trials on behalf of one launch of a study.

    Args:
        folder: the runs folder.
        uri: MLflow tracking URI; None: SQLite in the runs folder.
        study: the study's name.
        digest: the same for every launch of the same study over the same trials.
        tags: tags of the parent run.
        warn: told once when the store cannot be reached.
    """

    folder: Folder
    uri: str | None
    study: str
    digest: str
    tags: Mapping[str, str]
    warn: Callable[[str], None]
    _trials: list[Followed] = field(default_factory=list)
    _reports: list[Path] = field(default_factory=list)
    _closing: threading.Event = field(default_factory=threading.Event)
    _warned: bool = False
    _parent: str | None = None
    _client: MlflowClient | None = None
    _experiment: str = ""

    def start(self) -> None:
        """Start following in the background; MLflow is imported there."""
        self._thread = threading.Thread(target=self._follow, name="mlflow-mirror", daemon=True)
        self._thread.start()

    def follow(self, trial: Followed) -> None:
        """Copy this trial's journal from now on."""
        self._trials.append(trial)

    def attach(self, report: Path) -> None:
        """Attach a folder of report files to the parent run."""
        self._reports.append(report)

    def close(self) -> bool:
        """Copy what is left, end the parent run, and say whether the mirror is complete."""
        self._closing.set()
        self._thread.join(_CLOSE_SECONDS)
        return not self._thread.is_alive() and not self._warned

    def page(self) -> str | None:
        """The address of the table of runs behind a server's own; None while no store was reached."""
        return f"/#/experiments/{self._experiment}/runs?viewStateShareKey={_VIEW}" if self._experiment else None

    def _follow(self) -> None:
        while not self._closing.wait(_POLL_SECONDS):
            self._try_to(self._copy)
        self._try_to(self._copy)
        self._try_to(self._end)

    def _try_to(self, step: Callable[[], None]) -> None:
        # Whatever MLflow, its server or its database raises: training goes on, and the journals hold everything.
        try:
            step()
            self._warned = False
        except Exception as error:
            if not self._warned:
                reason = str(error).splitlines()[0][:200] if str(error) else ""
                self.warn(f"MLflow is not reachable, the journals go on ({type(error).__name__}: {reason})")
            self._warned = True

    def _copy(self) -> None:
        client = self._connected()
        for trial in self._trials:
            if not trial.done:
                _copy_trial(client, self._experiment, str(self._parent), trial)

    def _connected(self) -> MlflowClient:
        if self._client is None:
            client = connect(self.folder, self.uri)
            self._experiment = _experiment(client, self.folder, self.uri)
            self._parent = self._find_or_create_parent(client)
            self._client = client
        return self._client

    def _find_or_create_parent(self, client: MlflowClient) -> str:
        found = client.search_runs([self._experiment], f"tags.`ablate.study_digest` = '{self.digest}'", max_results=1)
        if found:
            client.update_run(found[0].info.run_id, status="RUNNING")
            return str(found[0].info.run_id)
        tags = {
            **self.tags,
            "ablate.study": self.study,
            "ablate.kind": "study",
            "ablate.study_digest": self.digest,
        }
        run = client.create_run(self._experiment, run_name=self.study, tags=tags)
        return str(run.info.run_id)

    def _end(self) -> None:
        client = self._connected()
        parent = str(self._parent)
        for report in self._reports:
            client.log_artifacts(parent, str(report), artifact_path="report")
        statuses = [_status_of(trial) for trial in self._trials]
        finished = all(s in ("FINISHED", "DIVERGED") for s in statuses)
        client.set_tag(parent, "ablate.trials", f"{statuses.count('FINISHED')} of {len(statuses)} finished")
        client.set_terminated(parent, status="FINISHED" if finished else "FAILED")


def connect(folder: Folder, uri: str | None) -> MlflowClient:
    """A client of the store, which is created first where it is the SQLite file and does not exist."""
    # Asked for by nobody and slow where there is no network.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # after the import, which sets levels of its own
        logging.getLogger(name).setLevel(logging.WARNING)
    if uri is None:
        create_database(folder.database())
    return MlflowClient(tracking_uri(folder, uri))


def create_database(path: Path) -> None:
    """Create MLflow's SQLite store, whole or not at all.

    Its own migration is not safe against a second process or a kill: the tables are made in a file beside it, under
    a lock, and moved into place (mlflow issue 23721).
    """
    if path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"), tempfile.TemporaryDirectory(dir=path.parent, prefix="mlflow-") as scratch:
        if path.exists():
            return
        new = Path(scratch, "mlflow.db")
        store = SqlAlchemyStore(  # type: ignore[no-untyped-call]
            f"sqlite:///{new}", str(path.parent / "artifacts")
        )
        store.engine.dispose()
        os.replace(new, path)


def _experiment(client: MlflowClient, folder: Folder, uri: str | None) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    location = folder.artifacts().resolve().as_uri() if uri is None else None
    tags = {
        # MLflow 3 then opens the experiment on its table of runs and charts.
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{_VIEW}": json.dumps({"selectedColumns": _COLUMNS}),
    }
    return str(client.create_experiment(EXPERIMENT, artifact_location=location, tags=tags))


def _copy_trial(client: MlflowClient, experiment: str, parent: str, trial: Followed) -> None:
    events, offset = read_events(trial.folder / JOURNAL, trial.offset)
    starts = [i for i, event in enumerate(events) if event["event"] == "started"]
    if starts:
        events = events[starts[-1] :]
        trial.run_id, trial.done = _run_for(client, experiment, parent, trial, events[0])
    if events and trial.run_id is not None and not trial.done:
        _log_curves(client, trial.run_id, events)
        if status(events) != "UNFINISHED":
            _finish(client, trial, events)
            trial.done = True
    trial.offset = offset


def _run_for(client: MlflowClient, experiment: str, parent: str, trial: Followed, started: Event) -> tuple[str, bool]:
    """The child run of this attempt, and whether it is complete already; an earlier attempt's is marked killed."""
    same = client.search_runs(
        [experiment],
        f"tags.`mlflow.parentRunId` = '{parent}' and tags.`ablate.fingerprint` = '{trial.fingerprint}'",
    )
    for run in same:
        if run.data.tags.get("ablate.started") == started["time"] and run.info.status == "FINISHED":
            return str(run.info.run_id), True
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, status="KILLED")
    seed = started["seed"]
    tags = {
        "mlflow.parentRunId": parent,
        "mlflow.source.name": started["command"],
        "mlflow.source.type": "LOCAL",
        "ablate.kind": "trial",
        "ablate.cell": trial.label,
        "ablate.seed": str(seed),
        "ablate.fingerprint": trial.fingerprint,
        "ablate.started": started["time"],
        **{f"ablate.{name}": str(value) for name, value in started["facts"].items()},
    }
    if commit := started["facts"].get("git_commit"):
        tags["mlflow.source.git.commit"] = commit
    run = client.create_run(
        experiment, start_time=_milliseconds(started), run_name=f"{trial.label} · seed {seed}", tags=tags
    )
    run_id = str(run.info.run_id)
    _log_inputs(client, run_id, started)
    return run_id, False


def _log_inputs(client: MlflowClient, run_id: str, started: Event) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    params = {**started["knobs"], "seed": started["seed"], "parameters": started["parameters"]}
    params.pop("seeds", None)
    client.log_batch(run_id, params=[Param(name, show(value)) for name, value in params.items()])
    data = started["data"]
    dataset = Dataset(
        name=data["name"],
        digest=data["digest"][:12],
        source_type="local",
        source=data["name"],
        profile=json.dumps({"tokens": data["tokens"], "vocabulary": data["vocabulary"], "sha256": data["digest"]}),
    )
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
    client.log_dict(run_id, started["knobs"], "config.yaml")


def _log_curves(client: MlflowClient, run_id: str, events: list[Event]) -> None:
    from mlflow.entities import Metric

    metrics = [
        Metric(key, value, _milliseconds(event), int(event["step"]))
        for event in events
        if event["event"] in ("train", "valid")
        for key, value in _curve_values(event).items()
    ]
    for start in range(0, len(metrics), 1000):  # MLflow's limit for a batch
        client.log_batch(run_id, metrics=metrics[start : start + 1000])


def _curve_values(event: Event) -> dict[str, float]:
    values = {key: float(event[key]) for key in event if key not in ("event", "time", "step", "seconds", "epoch")}
    for split in ("train", "valid"):
        if f"{split}_nll" in values:
            values[f"{split}_perplexity"] = perplexity(values[f"{split}_nll"])
    return values


def _finish(client: MlflowClient, trial: Followed, events: list[Event]) -> None:
    from mlflow.entities import Metric

    run_id = str(trial.run_id)
    last = events[-1]
    outcome = status(events)
    when = _milliseconds(last)
    step = max((int(e["step"]) for e in events if "step" in e), default=0)
    if last["event"] == "finished":
        final = {
            "final_valid_perplexity": last["valid_nll"],
            "best_valid_perplexity": last["best_valid_nll"],
            "test_perplexity": last["test_nll"],
        }
        metrics = [Metric(k, perplexity(v), when, step) for k, v in final.items() if v is not None]
        metrics += [Metric("train_seconds", last["train_seconds"], when, step)]
        client.log_batch(run_id, metrics=metrics)
        if last["test_nll"] is not None:
            # The table of runs shows names and no metrics until a user picks some: the result is in the name.
            name = f"{client.get_run(run_id).info.run_name} · test {perplexity(last['test_nll']):,.1f}"
            client.update_run(run_id, name=name)
        if last["sample"]:
            client.log_text(run_id, last["sample"], "sample.txt")
    client.set_tag(run_id, "ablate.status", outcome)
    if "reason" in last:
        client.set_tag(run_id, "ablate.reason", last["reason"])
    client.set_terminated(run_id, status=_MLFLOW_STATUS.get(outcome, "FAILED"), end_time=when)


def _status_of(trial: Followed) -> str:
    events, _ = read_events(trial.folder / JOURNAL)
    return status(events)


def _milliseconds(event: Event) -> int:
    return int(datetime.fromisoformat(event["time"]).timestamp() * 1000)
