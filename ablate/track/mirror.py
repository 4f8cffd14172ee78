"""MLflow's mirror of the journals.

It follows the journals of a study's trials and copies what is new: a parent run for the study, a child run for each
trial. What it has copied already it learns from the store itself, so that a launch that finds every trial finished adds
nothing, and one that finds the mirror behind catches it up.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from ablate.knobs import show
from ablate.track.journal import (
    FINAL_EVENTS,
    JOURNAL,
    Event,
    Folder,
    Tail,
    last_attempt,
    parse_events,
    read_events,
    status,
    whole_lines,
)
from ablate.track.process import is_dead, report_lock, this_process
from ablate.track.store import EXPERIMENT, LAUNCH, LAUNCHED, load_mlflow, open_client, search
from ablate.track.units import perplexity

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

# A view of the table of runs that shows what tells two runs apart; MLflow's own shows neither knobs nor metrics.
_VIEW = "ablate"
_COLUMNS = (
    *(f"metrics.`{name}`" for name in ("test_perplexity", "best_valid_perplexity")),
    *(f"params.`{name}`" for name in ("data.name", "depth", "dropout", "hidden", "recipe", "rnn", "seed", "tie")),
    *(f"tags.`ablate.{name}`" for name in ("cell", "status")),
)
_SCRATCH = "creating-mlflow-db-"
_POLL_SECONDS = 2.0
_TAKE_OVER_SECONDS = 5.0
_BEAT_SECONDS = 30.0
_SILENT_SECONDS = 600.0
_BATCH = 800  # points; MLflow's limit is 1,000 of everything, 100 parameters and 100 tags among them
_CONFIG, _SAMPLE = "config.yaml", "sample.txt"
# How many bytes of its journal a run that has ended holds as an artifact.
_JOURNALED = "ablate.journal"
# What says how a run has ended.
_STATUS, _REASON = "ablate.status", "ablate.reason"
_ENDED = {_STATUS, _REASON}
_MLFLOW_STATUS = {"FINISHED": "FINISHED", "DIVERGED": "FINISHED", "INTERRUPTED": "KILLED"}


def tracking_uri(folder: Folder, uri: str | None) -> str:
    """The URI asked for, or the SQLite store of the runs folder."""
    return uri or f"sqlite:///{folder.database()}"


@dataclass
class Followed:
    """One trial, and how far its journal has been copied.

    Attributes:
        started: when its newest attempt was; name: that of its run.
        copied: (metric, step) of every point that the run holds already.
    """

    tail: Tail
    fingerprint: str
    label: str
    seed: int
    run_id: str | None = None
    started: str = ""
    name: str = ""
    copied: set[tuple[str, int]] = field(default_factory=set)
    done: bool = False


class Mirror:
    """Copies the trials of one launch of a study.

    Args:
        folder: the runs folder.
        uri: MLflow tracking URI; None: SQLite in the runs folder.
        launched: the launch, as its study's journal records it.
        warn: told once when the store cannot be reached.
        on_copied: called after each thing that is copied, and each look at the journals.
    """

    def __init__(
        self,
        folder: Folder,
        uri: str | None,
        launched: Event,
        warn: Callable[[str], None],
        on_copied: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder = folder
        self._uri = uri
        self._launched = launched
        self._warn = warn
        self._on_copied = on_copied
        self._trials = [
            Followed(
                Tail(folder.trial(trial["fingerprint"]) / JOURNAL), trial["fingerprint"], cell["label"], trial["seed"]
            )
            for cell in launched["cells"]
            for trial in cell["trials"]
        ]
        self._reports: list[Path] = []
        self._unreachable = False
        self._digest = _digest(launched)
        # Launched twice at once, a study has one mirror at a time; the other takes over when it ends.
        self._lock = FileLock(folder.mirror_lock(self._digest), timeout=0)
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._parent = ""
        self._children: list[Run] = []
        self._last_beat = -math.inf

    def attach(self, report: Path) -> None:
        """Attach a folder of report files to the parent run."""
        self._reports.append(report)

    def follow(self, is_over: Callable[[float], bool]) -> bool:
        """Copy what is new until the study is over, then what is left; returns whether the mirror is complete.

        What MLflow raises is told to `warn`.

        Args:
            is_over: waits so many seconds for the end of the study, and says whether it has come.
        """
        while not is_over(_POLL_SECONDS):
            self._try_to(self._copy_if_ours)
        self._try_to(self.sync)
        self._lock.release(force=True)
        return not self._unreachable

    def sync(self) -> None:
        """Copy what is left, here and now. Raises what MLflow raises, Timeout while another launch does it."""
        with self._lock.acquire(timeout=_TAKE_OVER_SECONDS):
            self._copy()
            self._end()

    def page(self) -> str | None:
        """The address of the table of runs behind a server's own; None while no store was reached."""
        return f"/#/experiments/{self._experiment}/runs?viewStateShareKey={_VIEW}" if self._experiment else None

    def _copy_if_ours(self) -> None:
        self._lock.acquire()
        self._copy()

    def _try_to(self, step: Callable[[], None]) -> None:
        # Whatever MLflow, its server or its database raises: training goes on, and the journals hold everything.
        try:
            step()
            self._unreachable = False
        except Timeout:
            self._client = None
        except Exception as error:
            if not self._unreachable:
                reason = str(error).splitlines()[0][:200] if str(error) else ""
                self._warn(f"MLflow is not reachable, the journals go on ({type(error).__name__}: {reason})")
            self._unreachable = True
            # What of a failed call has arrived is not known: it is learnt anew from the store.
            self._client = None

    def _copy(self) -> None:
        client = self._connected()
        for trial in self._trials:
            if not trial.done:
                self._copy_trial(client, trial)
        self._on_copied()
        if time.monotonic() - self._last_beat > _BEAT_SECONDS:
            for run_id in (self._parent, *(t.run_id for t in self._trials if t.run_id is not None and not t.done)):
                client.set_tag(run_id, "ablate.heartbeat", datetime.now(UTC).isoformat(timespec="seconds"))
            self._last_beat = time.monotonic()

    def _connected(self) -> MlflowClient:
        if self._client is not None:
            return self._client
        client = connect(self._folder, self._uri)
        self._experiment = _experiment(client, self._folder, self._uri)
        _mark_killed(client, self._experiment, self._folder)
        self._parent = self._find_or_create_parent(client)
        client.set_experiment_tag(self._experiment, *_view(self._parent))
        self._log_launch(client)
        self._children = search(client, self._experiment, f"tags.`mlflow.parentRunId` = '{self._parent}'")
        for trial in self._trials:
            trial.run_id, trial.copied, trial.tail.offset = None, set(), 0
        self._client = client
        return client

    def _find_or_create_parent(self, client: MlflowClient) -> str:
        query = f"tags.`ablate.study_digest` = '{self._digest}'"
        found = client.search_runs([self._experiment], query, max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
            _reopen(client, run_id)
            return run_id
        study, command = self._launched["study"], self._launched["command"]
        tags = {
            "mlflow.source.name": command,
            "mlflow.source.type": "LOCAL",
            "ablate.command": command,
            "ablate.study": study,
            "ablate.kind": "study",
            "ablate.study_digest": self._digest,
            "ablate.process": this_process(),
        }
        return str(client.create_run(self._experiment, run_name=study, tags=tags).info.run_id)

    def _log_launch(self, client: MlflowClient) -> None:
        """Give the parent run its newest launch, unless it has that already: another process may launch it again."""
        recorded = read_events(self._folder.study(self._launched["study"]))[0]
        launches = [event for event in recorded if event["event"] == "launched" and _digest(event) == self._digest]
        newest = launches[-1] if launches else {"time": datetime.now(UTC).isoformat(), **self._launched}
        if client.get_run(self._parent).data.tags.get(LAUNCHED) != newest["time"]:
            _log_files(client, self._parent, {LAUNCH: json.dumps(newest).encode()})
            client.set_tag(self._parent, LAUNCHED, newest["time"])

    def _copy_trial(self, client: MlflowClient, trial: Followed) -> None:
        """Few calls, each of much: every one takes MLflow milliseconds, and a study may have thousands of trials."""
        events = trial.tail.read()
        starts = [i for i, event in enumerate(events) if event["event"] == "started"]
        params: dict[str, str] = {}
        if starts:
            events = events[starts[-1] :]
            params = self._open_run(client, trial, events)
        if trial.run_id is None or trial.done or not events:
            return
        ended = max((i for i, event in enumerate(events) if event["event"] in FINAL_EVENTS), default=-1)
        resumed = max((i for i, event in enumerate(events) if event["event"] == "resumed"), default=-1)
        if resumed >= 0:
            _reopen(client, trial.run_id)
        points = _new_points(trial, events)
        if ended > resumed:
            _finish(client, trial, params, points, events)
            trial.done = events[ended]["event"] == "finished"
        else:
            _log(client, trial.run_id, params, list(points.values()))
            if starts:
                _log_record(client, trial.run_id, trial.tail.path, events[0]["time"])
        trial.copied.update(points)
        self._on_copied()

    def _open_run(self, client: MlflowClient, trial: Followed, events: list[Event]) -> dict[str, str]:
        """The child run of this attempt; an earlier attempt's that is still open is marked killed.

        Returns:
            The parameters that the run has not got yet.
        """
        started = events[0]
        trial.started = started["time"]
        params = _params(started)
        for run in self._children:
            if run.data.tags.get("ablate.fingerprint") != trial.fingerprint:
                continue
            run_id = str(run.info.run_id)
            if run.data.tags.get("ablate.started") == started["time"]:
                trial.run_id, trial.name = run_id, str(run.info.run_name)
                trial.done = run.info.status == "FINISHED"
                if trial.done and _JOURNALED not in run.data.tags:  # made by an older version
                    client.set_tag(run_id, _JOURNALED, _log_record(client, run_id, trial.tail.path, started["time"]))
                if not trial.done:
                    trial.copied = _points(client, run)
                    _reopen(client, run_id)
                    if not (run.inputs and run.inputs.dataset_inputs):  # it died before it could
                        _log_dataset(client, run_id, started)
                return {name: value for name, value in params.items() if name not in run.data.params}
            if run.info.status == "RUNNING":
                _log_record(client, run_id, trial.tail.path, run.data.tags.get("ablate.started"))
                client.set_terminated(run_id, status="KILLED")
        trial.name, trial.copied = _name(trial, events), set()
        trial.run_id = _create_run(client, self._experiment, self._parent, trial, started)
        return params

    def _end(self) -> None:
        client = self._connected()
        statuses = []
        outcomes: dict[str, list[Event]] = {}
        for trial in self._trials:
            events = last_attempt(read_events(trial.tail.path)[0])
            statuses.append(status(events))
            if statuses[-1] == "FINISHED":
                outcomes.setdefault(trial.label, []).append(events[-1])
            self._on_copied()
            process = next((e["process"] for e in reversed(events) if "process" in e), None)
            if statuses[-1] == "UNFINISHED" and trial.run_id is not None and (process is None or is_dead(process)):
                _log_record(client, trial.run_id, trial.tail.path, events[0]["time"] if events else None)
                client.set_terminated(trial.run_id, status="KILLED")
        self._log_launch(client)
        for report in self._reports:
            with report_lock(report):
                # File by file, each a sign of life: a server may be far away.
                for path in sorted(path for path in report.rglob("*") if path.is_file()):
                    place = Path("report", path.parent.relative_to(report)).as_posix()
                    client.log_artifact(self._parent, str(path), artifact_path=place)
                    self._on_copied()
        finished = all(s in ("FINISHED", "DIVERGED") for s in statuses)
        self._log_best(client, outcomes)
        client.set_tag(self._parent, "ablate.trials", f"{statuses.count('FINISHED')} of {len(statuses)} finished")
        client.set_terminated(self._parent, status="FINISHED" if finished else "FAILED")

    def _log_best(self, client: MlflowClient, outcomes: Mapping[str, Sequence[Event]]) -> None:
        """Give the parent run the results of its best cell, chosen by validation: the means over its seeds."""
        means = {
            label: {split: sum(float(o[f"{split}_nll"]) for o in of_cell) / len(of_cell) for split in ("valid", "test")}
            for label, of_cell in outcomes.items()
        }
        finite = {label: mean for label, mean in means.items() if math.isfinite(mean["valid"] + mean["test"])}
        if not finite:
            return
        best = min(finite, key=lambda label: finite[label]["valid"])
        found = {
            "best_valid_perplexity": perplexity(finite[best]["valid"]),
            "test_perplexity": perplexity(finite[best]["test"]),
        }
        known = client.get_run(self._parent).data.metrics
        for key, value in found.items():
            if known.get(key) != value:
                client.log_metric(self._parent, key, value)
        client.set_tag(self._parent, "ablate.best_cell", best)


def _digest(launched: Event) -> str:
    """The same for every launch of the same study over the same trials."""
    prints = sorted(trial["fingerprint"] for cell in launched["cells"] for trial in cell["trials"])
    return hashlib.sha256("|".join([launched["study"], *prints]).encode()).hexdigest()


def connect(folder: Folder, uri: str | None) -> MlflowClient:
    """A client of the store, which is created first where it is the SQLite file and does not exist."""
    load_mlflow()
    if uri is not None:
        return open_client(uri)
    create_database(folder.database())
    # MLflow keeps the stores of a process by their address: one that is relative would stay in the folder of the first.
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


def _experiment(client: MlflowClient, folder: Folder, uri: str | None) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    location = folder.artifacts().resolve().as_uri() if uri is None else None
    tags = {
        # MLflow 3 then opens the experiment on its table of runs and charts.
        "mlflow.experimentKind": "custom_model_development",
    }
    return str(client.create_experiment(EXPERIMENT, artifact_location=location, tags=tags))


def _view(parent: str) -> tuple[str, str]:
    """Name and value of the tag that holds the shared view: our columns, and the trials of this study, the best first.

    A shared view cannot say which runs are unfolded; but runs that are searched for and sorted are shown one by one.
    """
    state = {
        "selectedColumns": _COLUMNS,
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent}'",
        "orderByKey": "metrics.`test_perplexity`",
        "orderByAsc": True,
    }
    return f"mlflow.sharedViewState.{_VIEW}", json.dumps(state)


def _mark_killed(client: MlflowClient, experiment: str, folder: Folder) -> None:
    """Runs that a dead process left open end as KILLED; runs that ablate did not make are left alone."""
    for run in search(client, experiment, "attributes.status = 'RUNNING'"):
        process = run.data.tags.get("ablate.process")
        if process is None:
            continue
        dead = is_dead(process)
        if dead or (dead is None and _is_silent(run)):
            if fingerprint := run.data.tags.get("ablate.fingerprint"):
                path = folder.trial(fingerprint) / JOURNAL
                _log_record(client, run.info.run_id, path, run.data.tags.get("ablate.started"))
            client.set_terminated(run.info.run_id, status="KILLED")


def _is_silent(run: Run) -> bool:
    """Whether a run on another machine gives no sign of life; a sign from the future is none: a clock was set back."""
    beat = run.data.tags.get("ablate.heartbeat")
    when = datetime.fromisoformat(beat) if beat else datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    return abs((datetime.now(UTC) - when).total_seconds()) > _SILENT_SECONDS


def _reopen(client: MlflowClient, run_id: str) -> None:
    """A run goes on: it is open again, and nothing says any more how it had ended."""
    client.update_run(run_id, status="RUNNING")
    for name in _ENDED & client.get_run(run_id).data.tags.keys():
        client.delete_tag(run_id, name)
    client.set_tag(run_id, "ablate.process", this_process())


def _points(client: MlflowClient, run: Run) -> set[tuple[str, int]]:
    """(metric, step) of every point that a run holds."""
    return {(key, m.step) for key in run.data.metrics for m in client.get_metric_history(run.info.run_id, key)}


def _create_run(client: MlflowClient, experiment: str, parent: str, trial: Followed, started: Event) -> str:
    tags = {
        "mlflow.parentRunId": parent,
        "mlflow.source.name": started["command"],
        "mlflow.source.type": "LOCAL",
        "ablate.kind": "trial",
        "ablate.cell": trial.label,
        "ablate.seed": str(trial.seed),
        "ablate.fingerprint": trial.fingerprint,
        "ablate.started": started["time"],
        "ablate.process": this_process(),
        **{f"ablate.{name}": str(value) for name, value in started["facts"].items()},
    }
    if commit := started["facts"].get("git_commit"):
        tags["mlflow.source.git.commit"] = commit
    run = client.create_run(experiment, start_time=_milliseconds(started), run_name=trial.name, tags=tags)
    run_id = str(run.info.run_id)
    _log_dataset(client, run_id, started)
    return run_id


def _log_dataset(client: MlflowClient, run_id: str, started: Event) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = started["data"]
    dataset = Dataset(
        name=data["name"],
        digest=data["digest"][:12],
        source_type="local",
        source=data["name"],
        profile=json.dumps({"tokens": data["tokens"], "vocabulary": data["vocabulary"], "sha256": data["digest"]}),
    )
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _name(trial: Followed, events: list[Event]) -> str:
    """With the result, for MLflow's table of runs shows names, and no metrics until a user picks some."""
    name = f"{trial.label} · seed {trial.seed}"
    test_nll = events[-1].get("test_nll") if events[-1]["event"] == "finished" else None
    return name if test_nll is None else f"{name} · test {perplexity(test_nll):,.1f}"


def _params(started: Event) -> dict[str, str]:
    params = {**started["knobs"], "seed": started["seed"], "parameters": started["parameters"]}
    params.pop("seeds", None)
    return {name: show(value) for name, value in params.items()}


def _new_points(trial: Followed, events: list[Event]) -> dict[tuple[str, int], Metric]:
    """By (metric, step), in the order of the events; of a step measured again, after a resume, the first stays."""
    from mlflow.entities import Metric

    points: dict[tuple[str, int], Metric] = {}
    for event in events:
        if event["event"] in ("train", "valid"):
            step = int(event["step"])
            for key, value in _curve_values(event).items():
                if (key, step) not in trial.copied:
                    points.setdefault((key, step), Metric(key, value, _milliseconds(event), step))
    return points


def _curve_values(event: Event) -> dict[str, float]:
    values = {key: float(event[key]) for key in event if key not in ("event", "time", "step", "seconds", "epoch")}
    for split in ("train", "valid"):
        if f"{split}_nll" in values:
            values[f"{split}_perplexity"] = perplexity(values[f"{split}_nll"])
    return values


def _log(
    client: MlflowClient,
    run_id: str,
    params: dict[str, str],
    metrics: list[Metric],
    tags: dict[str, str] | None = None,
) -> None:
    """Parameters with the first batch of points, tags with the last."""
    from mlflow.entities import Param, RunTag

    batches = [metrics[start : start + _BATCH] for start in range(0, len(metrics), _BATCH)] or [[]]
    for number, batch in enumerate(batches):
        some_params = [Param(name, value) for name, value in params.items()] if number == 0 else []
        some_tags = [RunTag(name, value) for name, value in (tags or {}).items()] if number == len(batches) - 1 else []
        if batch or some_params or some_tags:
            client.log_batch(run_id, metrics=batch, params=some_params, tags=some_tags)


def _log_record(client: MlflowClient, run_id: str, path: Path, started: str | None) -> str:
    """Give a run its trial's journal as it is now, in place of what it had of it; its knobs, and what its model wrote.

    Args:
        started: when the run's attempt was started; the knobs and the sample of a later one are not the run's.

    Returns:
        How many bytes the journal has.
    """
    import yaml

    lines = whole_lines(path.read_bytes()) if path.exists() else b""
    attempt = last_attempt(parse_events(lines))
    files = {JOURNAL: lines} if lines else {}
    if attempt and attempt[0]["time"] == started:
        files[_CONFIG] = yaml.safe_dump(attempt[0]["knobs"], allow_unicode=True).encode()
        if sample := attempt[-1].get("sample"):
            files[_SAMPLE] = sample.encode()
    if files:
        _log_files(client, run_id, files)
    return str(len(lines))


def _log_files(client: MlflowClient, run_id: str, files: dict[str, bytes]) -> None:
    # Copies, for what is still being written would grow under the upload.
    with tempfile.TemporaryDirectory() as scratch:
        for name, data in files.items():
            Path(scratch, name).write_bytes(data)
        client.log_artifacts(run_id, scratch)


def _finish(
    client: MlflowClient,
    trial: Followed,
    params: dict[str, str],
    points: dict[tuple[str, int], Metric],
    events: list[Event],
) -> None:
    """Log the new points, to which those of the end are added, and how the trial ended."""
    from mlflow.entities import Metric

    run_id = str(trial.run_id)
    last = next(event for event in reversed(events) if event["event"] in FINAL_EVENTS)
    outcome = status([last])
    when = _milliseconds(last)
    tags = {_JOURNALED: _log_record(client, run_id, trial.tail.path, trial.started), _STATUS: outcome}
    if last["event"] == "finished":
        final = {
            "final_valid_perplexity": last["valid_nll"],
            "best_valid_perplexity": last["best_valid_nll"],
            "test_perplexity": last["test_nll"],
        }
        values = {k: perplexity(v) for k, v in final.items() if v is not None}
        step = int(last["windows"])
        for key, value in (values | {"train_seconds": last["train_seconds"]}).items():
            if (key, step) not in trial.copied:
                points[key, step] = Metric(key, value, when, step)
        if (name := _name(trial, events)) != trial.name:
            tags["mlflow.runName"] = name
    if "reason" in last:
        tags[_REASON] = last["reason"]
    _log(client, run_id, params, list(points.values()), tags)
    client.set_terminated(run_id, status=_MLFLOW_STATUS.get(outcome, "FAILED"), end_time=when)


def _milliseconds(event: Event) -> int:
    return int(datetime.fromisoformat(event["time"]).timestamp() * 1000)
