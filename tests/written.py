"""Studies that nobody trained, written down as launches and trials write them, and MLflow's store of them."""

from __future__ import annotations

import hashlib
import math
import shutil

from made import PLAIN_LAUNCH
from pandas.testing import assert_frame_equal

from ablate.track.journal import JOURNAL, Journal
from ablate.track.mlflow.mirror import Mirror
from ablate.track.mlflow.store import Store
from ablate.track.process import this_process

ENDS = {
    "diverged": (
        "finished",
        {
            "status": "DIVERGED",
            "diverged_at": 31,
            "values": {"best_valid_nll": 1.5, "valid_nll": None, "test_nll": None},
            "blocks": None,
        },
    ),
    "failed": ("failed", {"reason": "RuntimeError: no $ignal", "log": "trial.log"}),
    "interrupted": ("interrupted", {"reason": "stopped by the user"}),
}
DATA = {
    "name": "synthetic", "digest": "d" * 64, "sizes": {"train": 5}, "evaluated": "e" * 64, "alike": "a",
    "chance": math.log(7), "floor": None, "details": {"vocabulary": 7},
}  # fmt: skip
FINISHED = {
    "status": "FINISHED", "diverged_at": None, "steps": 60, "seen": 600, "seconds": 2.0, "train_seconds": 1.5,
    "best_step": 60, "values": {"best_valid_nll": 1.5, "valid_nll": 1.5, "test_nll": 1.6}, "sample": "",
    "blocks": {"sizes": [3, 2], "totals": [4.0, 4.0]},
}  # fmt: skip


def _print_of(configuration, seed):
    return hashlib.sha256(f"{configuration} {seed}".encode()).hexdigest()


def record(folder, study, cells, **more):
    """Write down a study: label → how each seed ended; (configuration, ends) where the label is not all it is."""
    asked = []
    for label, ends in cells.items():
        configuration, ends = ends if isinstance(ends, tuple) else (label, ends)
        seeds = ends if isinstance(ends, dict) else dict(enumerate(ends))
        trials = [{"seed": seed, "fingerprint": _print_of(configuration, seed)} for seed in seeds]
        asked.append(
            {"label": label, "levels": {"cell": label}, "components": {"tying": label == "full"}} | {"trials": trials}
        )
        for trial, end in zip(trials, seeds.values(), strict=True):
            journal = Journal(folder.trial(trial["fingerprint"]) / JOURNAL)
            if end != "new" and not journal.path.exists():
                write(journal, configuration, trial, end)
    launch = {
        "study": study,
        "command": f"python -m ablate name={study}",
        **PLAIN_LAUNCH,
        "reports": "reports",
        "cells": asked,
        **more,
    }
    Journal(folder.study(study)).append("launched", **launch)
    folder.latest().write_text(study)
    return launch


def write(journal, configuration, trial, end):
    journal.append(
        "started",
        **trial,
        process=this_process(),
        command="c",
        knobs={"depth": 2, "tie": True, "dropout": 0.5, "clip": None, "rnn": configuration, "seeds": 3},
        facts={"data": "synthetic", "data_digest": "d", "code": "c", "threads": "2", "weather": "fair"},
        parameters=10,
        data=DATA,
    )
    for step in (20, 40, 60):
        values = {"train_nll": 2 + 1 / step, "lr": 0.1}
        journal.append("log", step=step, seen=step * 10, seconds=step / 10, values=values)
    journal.append("log", step=60, seen=600, seconds=6.0, values={"valid_nll": 2.5})
    if end == "finished":
        journal.append("finished", **{**FINISHED, "sample": f"text of {configuration} {trial['seed']}"})
    elif end != "running":
        event, values = ENDS[end]
        journal.append(event, **{**FINISHED, **values} if event == "finished" else values)


def mirrored(empty_store, folder, *launches):
    """The store of a runs folder, in which these launches are; it begins as a copy of an empty one."""
    folder.root.mkdir(parents=True, exist_ok=True)
    if not folder.database().exists():
        shutil.copy(empty_store, folder.database())
    for launch in launches:
        Mirror(folder, None, launch, print).sync()
    return Store(f"sqlite:///{folder.database()}")


def assert_same(one, other):
    assert_frame_equal(one.trials, other.trials)
    assert_frame_equal(one.curves, other.curves)
    assert_frame_equal(one.blocks, other.blocks)
    told = ("name", "command", "launched", "design", "samples", "worth", "stopping")
    assert [getattr(one, name) for name in told] == [getattr(other, name) for name in told]
