"""Journals and launches written by hand, as trials and studies write them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from ablate.metric import Metric
from ablate.tasks.language_model import METRICS
from ablate.track.folder import Folder
from ablate.track.journal import JOURNAL, Journal, last_attempt, read_events
from ablate.track.mlflow.mirror import Mirror
from ablate.track.process import this_process

PRINT = "f" * 64
DATA = {
    "name": "synthetic", "digest": "d" * 64, "sizes": {"train": 5}, "evaluated": "e", "alike": None, "chance": None,
    "floor": None, "details": {"vocabulary": 7},
}  # fmt: skip
TASK = {
    "name": "made", "program": "python made.py", "step": "step", "unit": "examples", "budget": [], "presets": {},
    "follows": {}, "idle": [], "decides": [], "kinds": [],
}  # fmt: skip


def launch(study="s", cells=("a",), metrics=METRICS, **more):
    """A launch of one trial a cell, all with the same fingerprint."""
    trials = [{"seed": 0, "fingerprint": PRINT}]
    return {
        "event": "launched",
        "study": study,
        "command": "c",
        "reports": "reports",
        "design": {"kind": "grid", "components": [], "left_out": []},
        "metrics": [asdict(metric) for metric in metrics],
        "task": TASK,
        "cells": [{"label": label, "levels": {}, "trials": trials} for label in cells],
        **more,
    }


class Trial(Journal):
    """The journal of one trial of such metrics."""

    def __init__(self, folder: Folder, fingerprint: str = PRINT, metrics: tuple[Metric, ...] = METRICS) -> None:
        super().__init__(folder.trial(fingerprint) / JOURNAL)
        self.fingerprint, self.metrics = fingerprint, metrics

    def start(self, seed=0, knobs=None, facts=None, data=None, parameters=10):
        self.append(
            "started",
            fingerprint=self.fingerprint,
            process=this_process(),
            seed=seed,
            command="python -m ablate",
            knobs={"depth": 2, "tie": True, "seeds": 3} if knobs is None else knobs,
            facts={"data": "synthetic", "data_digest": "d", "code": "c", "git_commit": "abc", **(facts or {})},
            parameters=parameters,
            data=DATA | (data or {}),
        )

    def resume(self, step=0):
        attempt = last_attempt(read_events(self.path)[0])
        kept = sum(event["event"] == "log" and event["step"] <= step for event in attempt)
        self.append("resumed", step=step, kept=kept, process=this_process(), refused=[], facts={})

    def log(self, step, value=2.0, split="train", **values):
        """A value of the first metric, and whatever else."""
        values = {f"{split}_{self.metrics[0].recorded}": value, "lr": 0.1, **values}
        self.append("log", step=step, seconds=step / 10, seen=step * 10, values=values)

    def finish(self, value=1.0, status="FINISHED", steps=40, **values):
        """`value`: every result of the metrics that `values` does not name."""
        splits = ("best_valid", "valid", "test")
        results = {f"{split}_{metric.recorded}": value for metric in self.metrics for split in splits}
        self.append(
            "finished",
            status=status,
            steps=steps,
            diverged_at=None,
            seen=steps * 10,
            seconds=2.0,
            train_seconds=1.5,
            best_step=steps,
            values=results | values,
            sample="a b",
        )


def finished_study(folder, *results, **started):
    """A launch of finished trials with these results, in its folder."""
    trials = [{"seed": seed, "fingerprint": f"{seed}".ljust(64, "0")} for seed in range(len(results))]
    for row, value in zip(trials, results, strict=True):
        trial = Trial(folder, row["fingerprint"])
        trial.start(row["seed"], **started)
        trial.log(20, split="valid")
        trial.finish(value)
    launched = launch() | {"cells": [{"label": "a", "levels": {}, "trials": trials}]}
    Journal(folder.study("s")).append("launched", **{k: v for k, v in launched.items() if k != "event"})
    return folder.launch("s")


def copied(folder, store, launched, looks=1):
    """What the mirror says of a study that is over after so many looks: whether it is complete, notes, pauses."""
    notes, pauses = [], []

    def is_over(seconds):
        pauses.append(seconds)
        return len(pauses) >= looks

    return Mirror(folder, store, launched, notes.append).follow(is_over), notes, pauses


def points_of(client, runs):
    """(run, metric, step) → how often that point is in the store."""
    return Counter(
        (run.info.run_id, name, point.step)
        for run in runs
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    )
