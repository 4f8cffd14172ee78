"""MLflow's mirror of the journals.

It follows the journals of a study's trials and copies what is new: a parent run for the study, a child run for each
trial. What it has copied already it learns from the store itself, so that a launch that finds every trial finished adds
nothing, and one that finds the mirror behind catches it up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from ablate.knobs import KnobError
from ablate.metric import Metric
from ablate.track.claims import read_trial
from ablate.track.folder import Folder
from ablate.track.journal import Event, Tail, last_attempt, milliseconds, now, status
from ablate.track.mlflow import study_run
from ablate.track.mlflow.client import (
    PARENT,
    connect,
    find_or_create_experiment,
    in_one_line,
    is_refusal,
    search,
)
from ablate.track.mlflow.liveness import beat, folder_id, mark_abandoned
from ablate.track.mlflow.trial_run import Connection, TrialRun, trial_runs
from ablate.track.process import is_dead

if TYPE_CHECKING:
    from mlflow.entities import Run

_POLL_SECONDS = 2.0
_MOST_SECONDS = 60.0  # between two attempts to reach a store that is away
_TAKE_OVER_SECONDS = 5.0
_BEAT_SECONDS = 30.0


class Mirror:
    """Copies the trials of one launch of a study, and those that the launch is recorded to have added since.

    Args:
        folder: the runs folder.
        uri: MLflow tracking URI; None: SQLite in the runs folder.
        launched: the launch, as its study's journal records it.
        warn: told once when the store cannot be reached, and of every trial that it refuses.
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
        self._metrics = [Metric(**metric) for metric in launched["metrics"]]
        self._trials = trial_runs(folder, launched, self._metrics)
        self._launches = Tail(folder.study(launched["study"]))
        self._reports: list[Path] = []
        self._is_behind = self._has_failed = False
        self._pause = _POLL_SECONDS
        # Launched twice at once, a study has one mirror at a time; the other takes over when it ends.
        self._lock = FileLock(folder.mirror_lock(study_run.digest(launched)), timeout=0)
        self._connection: Connection | None = None
        self._experiment = ""
        self._last_beat = -math.inf

    def attach(self, report: Path) -> None:
        """Attach a folder of report files to the parent run."""
        self._reports.append(report)

    def follow(self, is_over: Callable[[float], bool]) -> bool:
        """Copy what is new until the study is over, then what is left.

        What MLflow raises is told to `warn`. A store that is away is asked again after longer and longer pauses, and at
        the end at once.

        Returns:
            Whether the mirror is complete, but for trials that were told to be refused.

        Args:
            is_over: waits so many seconds for the end of the study, and says whether it has come.
        """
        while not is_over(self._pause):
            self._try_to(self._copy_if_ours)
        if self._has_failed:
            self._connection = None  # what had timed out may have arrived since
        self._try_to(self.sync)
        self._lock.release(force=True)
        return not self._is_behind

    def refused(self) -> list[str]:
        """The trials that the store refuses; all others can be complete."""
        return [str(trial) for trial in self._trials if trial.refused]

    def sync(self) -> None:
        """Copy what is left, here and now. Raises what MLflow raises, Timeout while another launch does it."""
        with self._lock.acquire(timeout=_TAKE_OVER_SECONDS):
            self._copy()
            self._end()

    def page(self) -> str | None:
        """The address of the table of runs behind a server's own; None while no store was reached."""
        if not self._experiment:
            return None
        view = study_run.view_name(folder_id(self._folder), self._uri)
        return f"/#/experiments/{self._experiment}/runs?viewStateShareKey={view}"

    def _copy_if_ours(self) -> None:
        self._lock.acquire()
        self._copy()

    def _try_to(self, step: Callable[[], None]) -> None:
        # Whatever MLflow, its server or its database raises: training goes on, and the journals hold everything.
        try:
            step()
            self._is_behind, self._pause = False, _POLL_SECONDS
        except Timeout:
            self._connection = None
        except Exception as error:
            if not self._has_failed:
                self._warn(_what_is_wrong(error))
            self._is_behind = self._has_failed = True
            self._connection = None
            self._pause = min(2 * self._pause, _MOST_SECONDS)

    def _copy(self) -> None:
        store = self._connected()
        if self._has_grown():
            study_run.log_launch(store.client, store.parent, self._folder, self._launched)
        for trial in self._trials:
            if not trial.is_over and self._copy_trial(trial, store):
                self._on_copied()
        self._on_copied()
        if time.monotonic() - self._last_beat > _BEAT_SECONDS:
            open_runs = [trial.run_id for trial in self._trials if trial.run_id is not None and not trial.is_over]
            beat(store.client, [store.parent, *open_runs])
            self._last_beat = time.monotonic()

    def _copy_trial(self, trial: TrialRun, store: Connection) -> bool:
        """Copy what is new of a trial, and return whether anything was; what is refused of it stops no other."""
        try:
            return trial.copy(store)
        except Exception as error:
            if not is_refusal(error) or trial.is_deleted(store.client):
                raise
            reason = in_one_line(error)
            self._warn(f"MLflow refuses the trial {trial} ({reason}); its journal holds it, the others are copied")
            trial.refuse(store.client, reason)
            return False

    def _has_grown(self) -> bool:
        """Take in the newest record of this launch, and return whether that is another one than before."""
        digest = study_run.digest(self._launched)
        records = [event for event in self._launches.read() if event["event"] == "launched"]
        same = [event for event in records if study_run.digest(event) == digest]
        grown = bool(same) and same[-1]["time"] != self._launched.get("time")
        if grown:
            self._launched = same[-1]
            known = {(trial.label, trial.fingerprint): trial for trial in self._trials}
            asked = trial_runs(self._folder, self._launched, self._metrics)
            self._trials = [known.get((trial.label, trial.fingerprint), trial) for trial in asked]
        return grown

    def _connected(self) -> Connection:
        if self._connection is not None:
            return self._connection
        client = connect(self._folder, self._uri)
        experiment = self._experiment = find_or_create_experiment(client, self._folder, self._uri)
        mark_abandoned(client, experiment, self._folder)
        folder = folder_id(self._folder)
        parent = study_run.find_or_create(client, experiment, folder, self._launched, self._began)
        view = study_run.view_name(folder, self._uri)
        client.set_experiment_tag(experiment, *study_run.shared_view(view, parent, self._launched, self._metrics))
        study_run.log_launch(client, parent, self._folder, self._launched)
        children: dict[str, list[Run]] = {}
        for run in search(client, experiment, f"tags.`{PARENT}` = '{parent}'"):
            children.setdefault(str(run.data.tags.get("ablate.fingerprint")), []).append(run)
        for trial in self._trials:
            trial.forget()
        self._connection = Connection(client, experiment, parent, folder, children)
        return self._connection

    def _began(self) -> int:
        """When the study was launched, or the first of its trials was started where an earlier launch has done that."""
        started = [attempt[0] for trial in self._trials if (attempt := last_attempt(read_trial(trial.tail.trial)))]
        launched = {"time": self._launched.get("began") or self._launched.get("time") or now()}
        return min(milliseconds(event) for event in (launched, *started))

    def _end(self) -> None:
        store = self._connected()
        client, parent = store.client, store.parent
        statuses = []
        outcomes: dict[str, list[Event]] = {}
        for trial in self._trials:
            events = last_attempt(read_trial(trial.tail.trial))
            statuses.append(status(events))
            if statuses[-1] == "FINISHED":
                outcomes.setdefault(trial.label, []).append(events[-1])
            elif statuses[-1] == "UNFINISHED" and _has_stopped(events) and not trial.refused:
                trial.mark_killed(client)
            self._on_copied()
        study_run.log_launch(client, parent, self._folder, self._launched)
        for report in self._reports:
            study_run.log_report(client, parent, report, self._on_copied)
        study_run.log_best(client, parent, self._metrics, outcomes)
        client.set_tag(parent, "ablate.trials", f"{statuses.count('FINISHED')} of {len(statuses)} finished")
        finished = all(s in ("FINISHED", "DIVERGED") for s in statuses)
        client.set_terminated(parent, status="FINISHED" if finished else "FAILED")


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, KnobError):  # a store that is not for us to use, and what to type
        return f"nothing is copied to MLflow, the journals go on ({error})"
    what = "refuses the study" if is_refusal(error) else "is not reachable"
    return f"MLflow {what}, the journals go on ({in_one_line(error)})"


def _has_stopped(attempt: list[Event]) -> bool:
    """Whether the process that trained last is dead; where that cannot be known, it is taken to be alive."""
    process = next((event["process"] for event in reversed(attempt) if "process" in event), None)
    return process is None or bool(is_dead(process))
