"""One table from two sources: what journals say is what MLflow's store says, and both are checked."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import asdict

import pandas as pd
import pytest
from conftest import TINY
from made import PERPLEXITY, PLAIN_LAUNCH
from pandas.testing import assert_frame_equal
from program import ROOT, inside

import ablate as package
from ablate.knobs import KnobError
from ablate.metric import Metric
from ablate.report import __main__ as report_main
from ablate.report import write_report
from ablate.study.records import task_record
from ablate.tasks.language_model import LANGUAGE_MODEL
from ablate.track.folder import Folder
from ablate.track.journal import JOURNAL, Journal
from ablate.track.mlflow import client as client_module
from ablate.track.mlflow.client import LAUNCH
from ablate.track.mlflow.mirror import Mirror
from ablate.track.mlflow.store import Store
from ablate.track.process import this_process
from ablate.track.read import Results, read_studies, read_study
from ablate.track.sources import open_source
from ablate.track.tables import blocks_schema, blocks_table, curves_schema, trials_schema, trials_table, validated
from ablate.track.typed import typed
from ablate.train.examples import BLOCKS

TASK = task_record(LANGUAGE_MODEL)
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


def print_of(configuration, seed):
    return hashlib.sha256(f"{configuration} {seed}".encode()).hexdigest()


def record(folder, study, cells, **more):
    """Write down a study: label → how each seed ended; (configuration, ends) where the label is not all it is."""
    asked = []
    for label, ends in cells.items():
        configuration, ends = ends if isinstance(ends, tuple) else (label, ends)
        seeds = ends if isinstance(ends, dict) else dict(enumerate(ends))
        trials = [{"seed": seed, "fingerprint": print_of(configuration, seed)} for seed in seeds]
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


@pytest.fixture(scope="module", autouse=True)
def _empty_store(empty_store):
    global EMPTY
    EMPTY = empty_store


def prepared(folder):
    """A runs folder with a store that nothing is in yet."""
    folder.root.mkdir(parents=True, exist_ok=True)
    if not folder.database().exists():
        shutil.copy(EMPTY, folder.database())


def mirrored(folder, *launches):
    prepared(folder)
    for launch in launches:
        Mirror(folder, None, launch, print).sync()
    return Store(f"sqlite:///{folder.database()}")


def assert_same(one, other):
    assert_frame_equal(one.trials, other.trials)
    assert_frame_equal(one.curves, other.curves)
    assert_frame_equal(one.blocks, other.blocks)
    told = ("name", "command", "launched", "design", "samples", "worth", "stopping")
    assert [getattr(one, name) for name in told] == [getattr(other, name) for name in told]


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def artifacts(folder, name):
    return sorted((folder.root / "artifacts").glob(f"*/artifacts/{name}"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A real study of four trials."""
    folder = tmp_path_factory.mktemp("study")
    prepared(Folder(folder / "runs"))
    done = inside("-m", "depth=1,2", "seeds=2", *TINY, "name=real", "report=false", folder=folder)
    assert done[0] == 0, done
    return folder


def test_a_study_read_from_mlflow_is_the_study_read_from_its_journals(study, tmp_path):
    journals = read_study(Folder(study / "runs"))
    store = read_study(Store(f"sqlite:///{study}/runs/mlflow.db"))
    assert len(journals.trials) == 4
    assert set(journals.trials["status"]) == {"FINISHED"}
    assert len(journals.curves) > 8
    assert_same(journals, store)
    blocks = journals.blocks.groupby(["cell", "seed"], sort=False)[["examples", "total"]].sum()
    assert len(journals.blocks) == 4 * BLOCKS
    assert list(blocks["total"] / blocks["examples"]) == pytest.approx(list(journals.trials["test_nll"]), rel=1e-6)
    for name, results in (("journals", journals), ("again", journals), ("store", store)):
        write_report(results, tmp_path / name)
    assert files(tmp_path / "journals") == files(tmp_path / "again") == files(tmp_path / "store")


WITHOUT_TORCH_AND_HYDRA = """
import runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "hydra", "omegaconf"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Refuse())
runpy.run_module("ablate.report", run_name="__main__", alter_sys=True)
"""


@pytest.mark.figures
def test_a_report_needs_a_copied_store_alone_neither_journals_nor_torch_nor_hydra(study, tmp_path):
    here, there = tmp_path / "here", tmp_path / "moved"
    shutil.copytree(study / "runs", here)
    write_report(read_study(Folder(here), "real"), tmp_path / "reports")
    there.mkdir()
    shutil.copy(here / "mlflow.db", there)
    shutil.copytree(here / "artifacts", there / "artifacts")
    shutil.rmtree(here)
    hidden = study / "runs" / "artifacts"
    hidden.rename(study / "elsewhere")  # where the store says that its artifacts are
    try:
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH_AND_HYDRA, "--store", "sqlite:///moved/mlflow.db", "--reports", "new"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip
    finally:
        (study / "elsewhere").rename(hidden)
    assert (done.returncode, done.stderr) == (0, "")
    assert files(tmp_path / "new") == files(tmp_path / "reports")


def test_every_way_to_end_is_the_same_from_both_sources_whatever_a_page_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(client_module, "_PAGE", 2)
    folder = Folder(tmp_path)
    ends = ["finished", "diverged", "failed", "interrupted", "running", "new"]
    launch = record(folder, "s", {"full": ends, "b": ["finished"] * 3})
    journals, store = read_study(folder), read_study(mirrored(folder, launch))
    assert_same(journals, store)
    assert list(store.trials["status"]) == [
        "FINISHED", "DIVERGED", "FAILED", "INTERRUPTED", "UNFINISHED", "UNFINISHED", *["FINISHED"] * 3,
    ]  # fmt: skip
    assert list(store.trials["component.tying"]) == [True] * 6 + [False] * 3
    assert store.samples == {"full": "text of full 0", "b": "text of b 0"}
    assert store.design == {"kind": "grid", "components": [], "left_out": []}
    assert store.metrics == [PERPLEXITY]
    have = store.blocks.groupby(["cell", "seed"], sort=False).agg(list).reset_index()
    assert list(zip(have["cell"], have["seed"], strict=True)) == [("full", 0), ("b", 0), ("b", 1), ("b", 2)]
    for column, values in (("block", [0, 1]), ("examples", [3, 2]), ("total", [4.0, 4.0])):
        assert list(have[column]) == [values] * 4


def test_where_nothing_was_measured_by_example_there_is_an_empty_table_of_the_same_types(tmp_path):
    folder = Folder(tmp_path)
    record(folder, "s", {"full": ["failed", "new"]})
    record(folder, "t", {"full": ["failed"], "b": ["finished"]})
    none, some = read_study(folder, "s").blocks, read_study(folder, "t").blocks
    assert (len(none), len(some)) == (0, 2)
    assert none.dtypes.to_dict() == some.dtypes.to_dict()
    joined = read_studies(folder, ["s", "t"]).blocks
    assert_frame_equal(joined, some)


def test_blocks_that_cannot_be_right_are_refused():
    twice = blocks_table([("a", 0, {"sizes": [1], "totals": [0.5]})] * 2)
    with pytest.raises(KnobError, match="here: what is recorded cannot be right"):
        validated(twice, blocks_schema(), "here")


def test_a_trial_trained_anew_is_read_from_its_newest_attempt(tmp_path):
    folder = Folder(tmp_path)
    launch = record(folder, "s", {"a": ["running"]})
    mirrored(folder, launch)
    trial = launch["cells"][0]["trials"][0]
    write(Journal(folder.trial(trial["fingerprint"]) / JOURNAL), "a", trial, "finished")
    store = mirrored(folder, launch)
    assert len(artifacts(folder, JOURNAL)) == 2
    assert_same(read_study(folder), read_study(store))
    assert list(read_study(store).trials["status"]) == ["FINISHED"]


def test_the_store_has_the_newest_launch_of_each_study_and_knows_which_came_last(tmp_path):
    folder = Folder(tmp_path)
    first = record(folder, "s", {"a": ["finished"]})
    mirrored(folder, first)
    other = record(folder, "other", {"b": ["finished"]})
    store = mirrored(folder, other)
    assert (store.newest_study(), store.studies()) == ("other", ["other", "s"])
    again = record(folder, "s", {"a": ["finished"]}, design={"kind": "cells", "components": [], "left_out": []})
    store = mirrored(folder, again)
    assert len(artifacts(folder, LAUNCH)) == 2, "launched again, a study has the same parent run"
    assert store.newest_study() == "s"
    assert_same(read_study(folder), read_study(store))
    assert read_study(store).design["kind"] == "cells"
    more = record(folder, "s", {"a": ["finished"], "b": ["finished"]})
    assert_same(read_study(folder), read_study(mirrored(folder, more)))
    mirrored(folder, first)  # as sync does, launch by launch
    assert list(read_study(mirrored(folder), "s").trials["cell"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        ("finished", "UNFINISHED", "journal.jsonl is not in MLflow yet; MLflow says FINISHED"),
        ("failed", "FAILED", "RuntimeError: no $ignal"),
        ("running", "UNFINISHED", "journal.jsonl is not in MLflow yet"),
    ],
)
def test_a_run_without_its_journal_is_a_row_that_says_what_mlflow_says(end, status, reason, tmp_path):
    folder = Folder(tmp_path)
    store = mirrored(folder, record(folder, "s", {"a": ["finished"], "b": [end]}))
    whole = read_study(store).trials
    (path,) = (path for path in artifacts(folder, JOURNAL) if '"rnn": "b"' in path.read_text())
    path.unlink()
    read = read_study(store)
    assert list(read.trials["cell"]) == ["a", "b"]
    row = read.trials.loc[1]
    assert (row["status"], row["reason"], row["parameters"]) == (status, reason, 10)
    assert pd.isna(row["test_nll"])
    same = ["fingerprint", "knob.depth", "knob.tie", "knob.dropout", "knob.clip", "knob.rnn", "data_digest", "threads"]
    assert list(row[same]) == list(whole.loc[1, same])
    assert list(read.trials.dtypes) == list(whole.dtypes)


def test_a_store_may_lie_anywhere_and_have_been_moved(tmp_path, monkeypatch):
    folder = Folder(tmp_path / "a b")
    mirrored(folder, record(folder, "s", {"a": ["finished"]}))
    before = read_study(folder)
    monkeypatch.chdir(tmp_path)
    assert_same(before, read_study(Store("sqlite:///a b/mlflow.db")))
    (tmp_path / "a b").rename(tmp_path / "c")
    assert_same(before, read_study(Store("sqlite:///c/mlflow.db")))


# The tables' own rules.


@pytest.mark.parametrize("ends", [["finished"] * 3, ["new"] * 3, ["failed", "finished", "new"], ["diverged"] * 3])
def test_columns_have_the_same_types_and_order_whether_all_some_or_no_trials_have_finished(ends, tmp_path):
    complete, partial = Folder(tmp_path / "complete"), Folder(tmp_path / "partial")
    record(complete, "s", {"a": ["finished"] * 3})
    record(partial, "s", {"a": ends})
    whole, part = read_study(complete), read_study(partial)
    common = [name for name in whole.trials if name in part.trials]
    assert list(part.trials.columns) == common
    assert all(name.startswith(("knob.", "fact.", "detail.")) for name in whole.trials if name not in common)
    assert part.trials.dtypes.to_dict() == whole.trials[common].dtypes.to_dict()
    assert part.curves.dtypes.to_dict() == whole.curves.dtypes.to_dict()
    assert {str(whole.trials[name].dtype) for name in ("parameters", "steps", "seen", "best_step")} == {"Int64"}
    assert whole.trials["component.tying"].dtype == bool


def test_knobs_are_what_was_recorded_and_facts_and_missing_values_can_be_told(tmp_path):
    folder = Folder(tmp_path)
    record(folder, "s", {"a": ["finished", "new"]})
    trials = read_study(folder).trials
    knobs = trials.loc[0, ["knob.depth", "knob.tie", "knob.dropout", "knob.clip", "knob.rnn"]]
    assert list(knobs) == [2, True, 0.5, None, "a"]
    assert type(knobs["knob.depth"]) is int
    assert trials["parameters"].notna().tolist() == [True, False]
    assert list(trials["reason"]) == ["", ""]
    assert trials.loc[0, "fact.weather"] == "fair", "a fact that nobody declared"
    assert trials.loc[0, "test_perplexity"] == math.exp(1.6)


def test_a_factor_that_a_cell_does_not_name_has_the_level_it_resolved_to(tmp_path):
    folder = Folder(tmp_path)
    launch = record(folder, "s", {"a": ["finished"], "b": ["finished"], "c": ["new"]})
    launch["cells"][0]["levels"] = {"depth": "3"}
    Journal(folder.study("s")).append("launched", **launch)
    levels = read_study(folder).trials["factor.depth"]
    assert list(levels[:2]) == ["3", "2"]
    assert pd.isna(levels[2])


def test_studies_of_two_tasks_are_not_reported_as_one(tmp_path):
    folder = Folder(tmp_path)
    record(folder, "one", {"full": ["finished"]})
    record(folder, "two", {"full": ["finished"]}, task={**TASK, "name": "digits"})
    with pytest.raises(KnobError, match="one is of the task language_model, two of digits; report each by itself"):
        read_studies(folder, ["one", "two"])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("test_perplexity", 5.0), ("status", "DONE"), ("test_nll", None), ("seed", 1), ("parameters", -1),
        ("component.tying", "yes"), ("cell", None),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_right_is_refused(column, value, tmp_path):
    folder = Folder(tmp_path)
    record(folder, "s", {"a": ["finished", "finished"]})
    trials = read_study(folder).trials
    values = [value, *trials[column][1:]]
    with pytest.raises(KnobError, match="the study 's': what is recorded cannot be right: "):
        validated(trials.assign(**{column: pd.Series(values, dtype=None if value else trials[column].dtype)}),
                  trials_schema([PERPLEXITY]), "the study 's'")  # fmt: skip


def test_a_perplexity_beyond_a_float_and_a_loss_that_is_none_pass_the_rules():
    table = pd.DataFrame({"cell": "a", "seed": 0, "split": "train", "step": [1, 2, 3], "seen": 1, "seconds": 0.1})
    table = table.assign(nll=[1.0, 800.0, math.nan], perplexity=[math.e, math.inf, math.nan])
    table = table.astype({"cell": "str", "split": "str", "seen": "Int64"})
    assert len(validated(table, curves_schema([PERPLEXITY]), "here")) == 3
    assert len(trials_table([], [PERPLEXITY])) == 0


def test_the_columns_are_those_of_the_metrics_in_the_order_that_is_promised(tmp_path):
    folder = Folder(tmp_path)
    record(folder, "s", {"a": ["finished"]})
    columns = list(read_study(folder).trials)
    assert columns[: columns.index("code")] == [
        "cell", "seed", "status", "reason", "log", "fingerprint", "parameters", "steps", "seen", "seconds",
        "train_seconds", "best_step", "clipped", "first_nll", "best_valid_nll", "valid_nll", "test_nll",
        "valid_perplexity", "test_perplexity", "chance_nll", "floor_nll", "data", "data_digest", "evaluated", "alike",
    ]  # fmt: skip
    curves = ["cell", "seed", "split", "step", "seen", "seconds", "nll", "perplexity"]
    assert list(read_study(folder).curves) == curves


def test_two_metrics_and_what_else_a_task_returned_are_read_and_what_was_not_measured_is_missing(tmp_path):
    folder = Folder(tmp_path)
    metrics = [Metric("accuracy", better="higher", unit="%"), PERPLEXITY]
    task = {"name": "digits", "step": "epoch", "unit": "", "budget": []}
    launch = record(folder, "s", {"a": ["new"]}, metrics=[asdict(metric) for metric in metrics], task=task)
    journal = Journal(folder.trial(launch["cells"][0]["trials"][0]["fingerprint"]) / JOURNAL)
    data = {"name": "digits", "digest": "", "sizes": {}, "evaluated": "", "alike": None, "chance": None, "floor": None}
    journal.append("started", knobs={"lr": 0.1}, seed=0, parameters=None, data={**data, "details": {}}, facts={})
    journal.append("log", step=1, seconds=0.5, values={"train_accuracy": 50, "valid_accuracy": 40, "valid_nll": 2.0})
    journal.append("log", step=2, seconds=1.0, values={"train_accuracy": 60, "lr": 0.1})
    journal.append("log", step=2, seconds=1.0, values={"lr": 0.1})
    values = {"valid_accuracy": 41, "test_accuracy": 42.5, "test_nll": 1.0, "margin": 3}
    outcome = {
        "status": "FINISHED",
        "steps": 2,
        "diverged_at": None,
        "seen": None,
        "seconds": 1.5,
        "train_seconds": 1.0,
    }
    journal.append("finished", **outcome, best_step=1, values=values, sample="")
    results = read_study(folder)
    assert (results.metrics, results.task) == (metrics, task)
    row = results.trials.iloc[0]
    assert (row["test_accuracy"], row["valid_accuracy"], row["test_nll"], row["value.margin"]) == (42.5, 41, 1.0, 3.0)
    assert row["test_perplexity"] == math.e
    missing = ["parameters", "seen", "first_accuracy", "valid_perplexity", "chance_accuracy", "alike"]
    assert row[missing].isna().all()
    assert row["knob.lr"] == 0.1
    curves = results.curves
    assert list(zip(curves["split"], curves["step"], strict=True)) == [("train", 1), ("valid", 1), ("train", 2)]
    assert curves["accuracy"].tolist() == [50, 40, 60]
    assert curves["perplexity"].isna().tolist() == [True, False, True]
    assert curves["seen"].isna().all()


@pytest.mark.parametrize("names", [("nll", "perplexity"), ("seen",), ("error", "error")])
def test_metrics_that_would_share_a_column_are_refused(names):
    metrics = [PERPLEXITY if name == "perplexity" else Metric(name) for name in names]
    for schema in (trials_schema, curves_schema):
        with pytest.raises(ValueError, match=r"the name '\w+'"):
            schema(metrics)


# Several studies as one.


def test_two_studies_are_read_as_one_and_what_they_share_is_there_once(tmp_path):
    folder = Folder(tmp_path)
    design = {"kind": "leave_one_out", "components": ["tying"], "left_out": []}
    record(folder, "leave_one_out", {"full": ["finished"] * 2, "without tying": ["finished"] * 2}, design=design)
    design = {"kind": "cumulative", "components": ["gates", "tying"], "left_out": [{"label": "x", "reason": "y"}]}
    cells = {"base": ["finished"] * 2, "+ tying": ("full", ["finished"] * 3), "without tying": ("other", ["failed"])}
    record(folder, "cumulative", cells, design=design)
    both = read_studies(folder, ["leave_one_out", "cumulative"])
    assert both.name == "leave_one_out+cumulative"
    assert list(dict.fromkeys(both.trials["cell"])) == ["full", "without tying", "base", "without tying (cumulative)"]
    assert list(both.trials["seed"]) == [0, 1, 2, 0, 1, 0, 1, 0], "the third seed joins the two it has in common"
    assert both.trials["fingerprint"].is_unique
    assert both.same == [("cumulative", "+ tying", "full")]
    told = "Cells that several studies share stand here once: + tying of cumulative is full."
    assert told in write_report(both, tmp_path / "reports").warnings
    assert both.design == {
        "kind": "leave_one_out+cumulative", "components": ["tying", "gates"],
        "left_out": [{"label": "x", "reason": "y"}],
    }  # fmt: skip
    points = both.curves.groupby(["cell", "seed"]).size()
    assert set(points) == {4}
    assert len(points) == 8
    of_trials = both.blocks.groupby(["cell", "seed"], sort=False).size()
    assert set(of_trials) == {2}
    assert set(of_trials.index) == set(points.index) - {("without tying (cumulative)", 0)}
    assert set(both.samples) == {"full", "without tying", "base"}
    assert both.command == "python -m ablate name=leave_one_out && python -m ablate name=cumulative"
    assert both.trials.dtypes.to_dict() == read_study(folder, "cumulative").trials.dtypes.to_dict()
    store = mirrored(folder, *(json.loads(folder.study(n).read_text()) for n in ("leave_one_out", "cumulative")))
    assert_same(both, read_studies(store, ["leave_one_out", "cumulative"]))


def test_the_same_configuration_with_other_seeds_is_one_cell_and_another_one_is_not(tmp_path):
    folder = Folder(tmp_path)
    record(folder, "one", {"full": {0: "finished"}})
    record(folder, "two", {"everything": ("full", {1: "finished"}), "full": ("other", {0: "finished"})})
    cells = read_studies(folder, ["one", "two"]).trials
    assert list(zip(cells["cell"], cells["seed"], strict=True)) == [("full", 0), ("full", 1), ("full (two)", 0)]


def test_studies_that_do_not_measure_the_same_are_not_reported_as_one(tmp_path):
    folder = Folder(tmp_path)
    record(folder, "one", {"full": ["finished"]})
    record(folder, "two", {"full": ["finished"]}, metrics=[asdict(Metric("accuracy", better="higher", unit="%"))])
    with pytest.raises(KnobError, match="one is compared by perplexity, two by accuracy; report each by itself"):
        read_studies(folder, ["one", "two"])


@pytest.mark.parametrize("missing", ["metrics", "task"])
def test_a_launch_without_metrics_or_a_task_is_told_to_be_started_again(missing, tmp_path):
    folder = Folder(tmp_path)
    launch = record(folder, "s", {"full": ["finished"]})
    del launch[missing]
    Journal(folder.study("s")).append("launched", **launch)
    with pytest.raises(KnobError, match=r"launched by an older version.*start it again"):
        read_study(folder)


def test_studies_that_declare_different_components_can_be_told_apart(tmp_path):
    folder = Folder(tmp_path)
    record(folder, "new", {"full": ["finished"]})
    launch = record(folder, "old", {"b": ["finished"]})
    del launch["cells"][0]["components"]
    Journal(folder.study("old")).append("launched", **launch)
    assert "component.tying" not in read_study(folder, "old").trials
    known = read_studies(folder, ["new", "old"]).trials["component.tying"]
    assert known.dtype == "boolean"
    assert known.isna().tolist() == [False, True]


def test_one_name_is_that_study_none_the_newest_and_many_a_name_that_a_folder_can_have(tmp_path):
    folder = Folder(tmp_path)
    names = [f"study-{i}-{'x' * 30}" for i in range(9)]
    for name in names:
        record(folder, name, {"a": ["finished"]})
    assert_same(read_studies(folder, []), read_study(folder, names[-1]))
    assert_same(read_studies(folder, names[:1]), read_study(folder, names[0]))
    long = read_studies(folder, names).name
    assert len(long) == 100
    assert long != read_studies(folder, names[:-1]).name
    assert len(read_studies(folder, names).trials) == 1
    with pytest.raises(KnobError, match=f"{names[0]}: named twice"):
        read_studies(folder, [names[0], names[1], names[0]])


# From Python and from the command line.


def test_results_and_curves_are_tables_a_call_away(tmp_path, monkeypatch):
    folder = Folder(tmp_path / "runs")
    mirrored(folder, record(folder, "s", {"a": ["finished"]}), record(folder, "t", {"b": ["finished"]}))
    monkeypatch.chdir(tmp_path)
    assert_frame_equal(package.results("s"), typed(read_study(folder, "s").trials))
    assert_frame_equal(package.results(), typed(read_study(folder, "t").trials))
    assert_frame_equal(package.curves("s", "t", runs=folder.root), read_studies(folder, ["s", "t"]).curves)
    assert_frame_equal(package.results("s", store="sqlite:///runs/mlflow.db"), typed(read_study(folder, "s").trials))
    other = Folder(tmp_path / "other")
    record(other, "u", {"c": ["finished"]})
    several = package.results("s", "u", runs=["other"], store="sqlite:///runs/mlflow.db")
    assert list(several["cell"]) == ["a", "c"]


def test_importing_ablate_loads_no_heavy_library():
    heavy = "{'torch', 'pandas', 'mlflow', 'numpy', 'pandera', 'hydra'}"
    code = f"import sys, ablate; ablate.results; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory):
    """A folder with two studies, one of them in MLflow, and files that are no store."""
    place = tmp_path_factory.mktemp("mistaken")
    folder = Folder(place / "runs")
    mirrored(folder, record(folder, "ref", {"full": ["finished"], "b": ["finished"]}))
    record(folder, "other", {"b": ["finished"]})
    (place / "text").write_text("this is no database")
    (place / "empty").touch()
    return place


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--runs", "nowhere"], "no study in nowhere; start one with python -m ablate"),
        (["re"], "no study 're'; did you mean 'ref'? in runs; there are other, ref"),
        (["ref", "othr"], "no study 'othr'; did you mean 'other'? in runs; there are other, ref"),
        (
            ["ref", "--runs", "runs", "--store", "sqlite:///runs/mlflow.db"],
            "the study 'ref' is in runs and in sqlite:///runs/mlflow.db; leave out all but one, or give it another",
        ),
        (["other", "--runs", "runs", "--runs", "nowhere"], "no study in nowhere; leave it out, or name another place"),
        (["--runs", "runs", "--runs", "./runs"], "runs: named twice; name each runs folder and each store once"),
        (["--store", "sqlite:///no", "--store", "sqlite:///no"], "sqlite:///no: named twice; name each"),
        (
            ["nil", "--runs", "runs", "--store", "sqlite:///runs/mlflow.db"],
            "no study 'nil' in runs, sqlite:///runs/mlflow.db; there are other, ref",
        ),
        (["--store", "runs/mlflow.db"], "store=runs/mlflow.db: must be the address of an MLflow store; for example"),
        (["--store", "sqlite:///no/mlflow.db"], "sqlite:///no/mlflow.db: there is no such file"),
        (["--store", "sqlite:///text"], "sqlite:///text: this file is no MLflow store"),
        (["--store", "sqlite:///empty"], "sqlite:///empty: this file is no MLflow store"),
        (["--store", "http://me:secret@127.0.0.1:9"], "http://127.0.0.1:9: this MLflow store cannot be read ("),
        (["nil", "--store", "sqlite:///runs/mlflow.db"], "no study 'nil' in sqlite:///runs/mlflow.db; there are ref"),
        (["ref", "ref"], "ref: named twice; name each study once"),
        (
            ["ref", "--baseline", "ful"],
            "baseline ful: the study has no such cell; did you mean 'full'?; it has full, b",
        ),
    ],
)
def test_what_is_wrong_with_a_command_is_told_in_one_line(arguments, said, mistaken, monkeypatch):
    monkeypatch.chdir(mistaken)
    before = sorted(mistaken.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        report_main.main(arguments)
    message = str(ended.value.code)
    assert message.startswith(f"ablate.report: {said}"), message
    assert "\n" not in message
    assert "secret" not in message
    assert sorted(mistaken.rglob("*")) == before, "nothing is made where nothing can be read"


def test_a_baseline_and_several_studies_reach_the_report(tmp_path, capsys):
    folder = Folder(tmp_path)
    record(folder, "s", {"full": ["finished"], "b": ["finished"]})
    record(folder, "t", {"c": ["finished"]})
    report_main.main(["s", "t", "--runs", str(tmp_path), "--reports", str(tmp_path / "there"), "--baseline", "b"])
    said = capsys.readouterr().out
    assert f"report: {tmp_path / 'there' / 's+t-beside-b' / 'index.html'}" in said
    table = pd.read_csv(tmp_path / "there" / "s+t-beside-b" / "comparison.csv").set_index("cell")
    assert list(table.index) == ["full", "b", "c"]
    assert table.loc["b", "verdict"] == "baseline"
    report_main.main(["--runs", str(tmp_path), "--reports", str(tmp_path / "there")])
    assert f"report: {tmp_path / 'there' / 't' / 'index.html'}" in capsys.readouterr().out


def test_a_source_is_a_folder_or_a_store_and_results_keep_their_design():
    assert str(open_source()) == "runs"
    assert str(open_source(store="http://me:secret@host:1/")) == "http://host:1/"
    assert "design" in Results.__dataclass_fields__
