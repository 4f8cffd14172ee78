"""A trial's run in MLflow: what is new in the trial's journal is copied to it, once."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ablate.metric import Metric
from ablate.track.claims import TrialTail
from ablate.track.folder import Folder
from ablate.track.journal import FINAL_EVENTS, Event, milliseconds, status
from ablate.track.mlflow.client import PARENT, in_order
from ablate.track.mlflow.files import log_record
from ablate.track.mlflow.liveness import REASON, STATUS, mark_killed, owner, reopen
from ablate.track.mlflow.values import curve_values, dataset_profile, final_values, name_of, params_of, tags_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric as Point
    from mlflow.entities import Run

# Of one call; MLflow's limit is 1,000 of everything, 100 parameters and 100 tags among them.
_POINTS, _PARAMS = 800, 100
_MLFLOW_STATUS = {"FINISHED": "FINISHED", "DIVERGED": "FINISHED", "INTERRUPTED": "KILLED"}

Points = dict[tuple[str, int], "Point"]  # by (name, step)


@dataclass(frozen=True)
class Connection:
    """A store that was reached, and what it holds of a study.

    Attributes:
        experiment, parent: ids; folder: that of the runs folder.
        children: fingerprint → the runs of that trial, one an attempt, as they were when the store was reached.
    """

    client: MlflowClient
    experiment: str
    parent: str
    folder: str
    children: Mapping[str, Sequence[Run]]


@dataclass
class TrialRun:
    """One trial, its run in MLflow, and how far its journal has been copied.

    Attributes:
        run_id: None until the trial was started.
        started: time at which the run's attempt was started; name: that of the run.
        copied: (name, step) of every point that the run holds already.
        done: the trial is finished, and all of it was copied.
        refused: MLflow refuses what this launch would copy of it.
    """

    fingerprint: str
    label: str
    seed: int
    metrics: Sequence[Metric]
    tail: TrialTail
    run_id: str | None = None
    started: str = ""
    name: str = ""
    copied: set[tuple[str, int]] = field(default_factory=set)
    done: bool = False
    refused: bool = False

    def __str__(self) -> str:
        return f"{self.label} · seed {self.seed}"

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left to copy."""
        return self.done or self.refused

    def forget(self) -> None:
        """Start again from what the store holds; after a failed call, nobody knows how much of it arrived."""
        self.run_id, self.copied, self.done = None, set(), False
        self.tail.rewind()

    def copy(self, store: Connection) -> bool:
        """Copy what is new, and return whether anything was.

        In few large calls: every one takes MLflow milliseconds, and a study may have thousands of trials.
        """
        events = self.tail.read()
        params: dict[str, str] = {}
        start = _last(events, "started")
        if start >= 0:
            events = events[start:]
            params = self._open(store, events)
        if self.run_id is None or self.done or not events:
            return False
        resumed, ended = _last(events, "resumed"), _last(events, *FINAL_EVENTS)
        if resumed >= 0:
            reopen(store.client, self.run_id)
        points = self._new_points(events)
        if ended > resumed:
            self._finish(store.client, self.run_id, params, points, events[ended])
            self.done = events[ended]["event"] == "finished"
        else:
            _log(store.client, self.run_id, params, points)
            if start >= 0:
                log_record(store.client, self.run_id, self.tail.trial, self.started)
        self.copied.update(points)
        return True

    def is_deleted(self, client: MlflowClient) -> bool:
        """Whether a user has deleted the run; it is then made again."""
        return self.run_id is not None and client.get_run(self.run_id).info.lifecycle_stage == "deleted"

    def refuse(self, client: MlflowClient, reason: str) -> None:
        """Leave the trial out from here on; its run, where there is one, ends as FAILED and says why."""
        self.refused = True
        if self.run_id is not None:
            for tag in tags_of({STATUS: "FAILED", REASON: f"refused by MLflow: {reason}"}).items():
                client.set_tag(self.run_id, *tag)
            client.set_terminated(self.run_id, status="FAILED")

    def mark_killed(self, client: MlflowClient) -> None:
        """End the run as KILLED; nothing where there is none."""
        if self.run_id is not None:
            mark_killed(client, self.run_id, self.tail.trial, self.started)

    def _open(self, store: Connection, events: Sequence[Event]) -> dict[str, str]:
        """Find or create the run of this attempt; an earlier attempt's that is still open is marked killed.

        Returns:
            The parameters that the run does not have yet.
        """
        started = events[0]
        self.started = started["time"]
        params = params_of(started)
        runs = store.children.get(self.fingerprint, ())
        for run in runs:
            if _started(run) != self.started and run.info.status == "RUNNING":
                mark_killed(store.client, run.info.run_id, self.tail.trial, _started(run))
        if own := in_order(run for run in runs if _started(run) == self.started):
            for other in own[1:]:
                store.client.delete_run(other.info.run_id)
            self._continue(store.client, own[0], started)
            return {name: value for name, value in params.items() if name not in own[0].data.params}
        self.name, self.copied = self._name(events[-1]), set()
        self._create(store, started)
        return params

    def _continue(self, client: MlflowClient, run: Run, started: Event) -> None:
        self.run_id, self.name = str(run.info.run_id), str(run.info.run_name)
        self.done = run.info.status == "FINISHED"
        if self.done:
            return
        self.copied = {
            (name, point.step) for name in run.data.metrics for point in client.get_metric_history(self.run_id, name)
        }
        reopen(client, self.run_id)
        if not (run.inputs and run.inputs.dataset_inputs):  # a kill came before it was logged
            _log_dataset(client, self.run_id, started["data"])

    def _create(self, store: Connection, started: Event) -> None:
        facts = started["facts"]
        tags = {
            PARENT: store.parent,
            "mlflow.source.name": started["command"],
            "mlflow.source.type": "LOCAL",
            "ablate.kind": "trial",
            "ablate.cell": self.label,
            "ablate.seed": str(self.seed),
            "ablate.fingerprint": self.fingerprint,
            "ablate.started": self.started,
            **owner(store.folder),
            **{f"ablate.{name}": value for name, value in facts.items()},
        }
        if commit := facts.get("git_commit"):
            tags["mlflow.source.git.commit"] = commit
        when = milliseconds(started)
        run = store.client.create_run(store.experiment, start_time=when, run_name=self.name, tags=tags_of(tags))
        self.run_id = str(run.info.run_id)
        _log_dataset(store.client, self.run_id, started["data"])

    def _name(self, last: Event) -> str:
        """With the result, for MLflow's table of runs shows names, and no metrics until a user picks some."""
        first = self.metrics[0]
        test = last["values"].get(f"test_{first.recorded}") if last["event"] == "finished" else None
        return name_of(str(self) if test is None else f"{self} · test {first.text(first.value(test))}")

    def _new_points(self, events: Sequence[Event]) -> Points:
        """In the order of the events; of a step measured again, after a resume, the first stays."""
        points: Points = {}
        for event in events:
            if event["event"] == "log":
                self._add(points, curve_values(self.metrics, event["values"]), int(event["step"]), event)
        return points

    def _add(self, points: Points, values: Mapping[str, float], step: int, event: Event) -> None:
        from mlflow.entities import Metric as Point

        for name, value in values.items():
            if (name, step) not in self.copied:
                points.setdefault((name, step), Point(name, value, milliseconds(event), step))

    def _finish(
        self, client: MlflowClient, run_id: str, params: Mapping[str, str], points: Points, last: Event
    ) -> None:
        """Log the new points, to which those of the end are added, and how the trial ended."""
        outcome = status([last])
        log_record(client, run_id, self.tail.trial, self.started)
        tags = {STATUS: outcome}
        if last["event"] == "finished":
            self._add(points, final_values(self.metrics, last), int(last["steps"]), last)
            if (name := self._name(last)) != self.name:
                tags["mlflow.runName"] = name
        if "reason" in last:
            tags[REASON] = last["reason"]
        _log(client, run_id, params, points, tags_of(tags))
        client.set_terminated(run_id, status=_MLFLOW_STATUS.get(outcome, "FAILED"), end_time=milliseconds(last))


def trial_runs(folder: Folder, launched: Event, metrics: Sequence[Metric]) -> list[TrialRun]:
    """The trials of a launch, in its order."""
    return [
        TrialRun(
            trial["fingerprint"], cell["label"], trial["seed"], metrics,
            TrialTail(folder.trial(trial["fingerprint"])),
        )
        for cell in launched["cells"]
        for trial in cell["trials"]
    ]  # fmt: skip


def _started(run: Run) -> str | None:
    return run.data.tags.get("ablate.started")


def _last(events: Sequence[Event], *kinds: str) -> int:
    """Where the last event of these kinds is; -1: nowhere."""
    return max((i for i, event in enumerate(events) if event["event"] in kinds), default=-1)


def _log_dataset(client: MlflowClient, run_id: str, data: Mapping[str, Any]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if not data["digest"]:
        return
    dataset = Dataset(
        name=name_of(data["name"]),
        digest=data["digest"][:12],
        source_type="local",
        source=name_of(data["name"]),
        profile=json.dumps(dataset_profile(data)),
    )
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _log(
    client: MlflowClient, run_id: str, params: Mapping[str, str], points: Points, tags: Mapping[str, str] | None = None
) -> None:
    """Parameters and points in as few calls as MLflow takes, tags with the last."""
    from mlflow.entities import Param, RunTag

    all_params, all_points = [Param(*item) for item in params.items()], list(points.values())
    calls = max(math.ceil(len(all_params) / _PARAMS), math.ceil(len(all_points) / _POINTS), 1 if tags else 0)
    for call in range(calls):
        client.log_batch(
            run_id,
            metrics=all_points[call * _POINTS : (call + 1) * _POINTS],
            params=all_params[call * _PARAMS : (call + 1) * _PARAMS],
            tags=[RunTag(*item) for item in (tags or {}).items()] if call == calls - 1 else [],
        )
