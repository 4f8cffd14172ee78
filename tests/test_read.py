"""One table from two sources: what journals say is what MLflow's store says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from conftest import TINY
from made import PERPLEXITY
from pandas.testing import assert_frame_equal
from program import ROOT, inside
from written import assert_same, mirrored, record, write

from ablate.knobs import KnobError
from ablate.report import write_report
from ablate.track.folder import Folder
from ablate.track.journal import JOURNAL, Journal
from ablate.track.mlflow import client as client_module
from ablate.track.mlflow.client import LAUNCH
from ablate.track.mlflow.store import Store
from ablate.track.read import read_studies, read_study
from ablate.track.tables import blocks_schema, blocks_table, validated
from ablate.train.examples import BLOCKS


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def artifacts(folder, name):
    return sorted((folder.root / "artifacts").glob(f"*/artifacts/{name}"))


@pytest.fixture(scope="module")
def study(tmp_path_factory, empty_store):
    """A real study of four trials."""
    folder = tmp_path_factory.mktemp("study")
    mirrored(empty_store, Folder(folder / "runs"))
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


@pytest.mark.slow
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


def test_every_way_to_end_is_the_same_from_both_sources_whatever_a_page_holds(tmp_path, monkeypatch, empty_store):
    monkeypatch.setattr(client_module, "_PAGE", 2)
    folder = Folder(tmp_path)
    ends = ["finished", "diverged", "failed", "interrupted", "running", "new"]
    launch = record(folder, "s", {"full": ends, "b": ["finished"] * 3})
    journals, store = read_study(folder), read_study(mirrored(empty_store, folder, launch))
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


def test_a_trial_trained_anew_is_read_from_its_newest_attempt(tmp_path, empty_store):
    folder = Folder(tmp_path)
    launch = record(folder, "s", {"a": ["running"]})
    mirrored(empty_store, folder, launch)
    trial = launch["cells"][0]["trials"][0]
    write(Journal(folder.trial(trial["fingerprint"]) / JOURNAL), "a", trial, "finished")
    store = mirrored(empty_store, folder, launch)
    assert len(artifacts(folder, JOURNAL)) == 2
    assert_same(read_study(folder), read_study(store))
    assert list(read_study(store).trials["status"]) == ["FINISHED"]


def test_the_store_has_the_newest_launch_of_each_study_and_knows_which_came_last(tmp_path, empty_store):
    folder = Folder(tmp_path)
    first = record(folder, "s", {"a": ["finished"]})
    mirrored(empty_store, folder, first)
    other = record(folder, "other", {"b": ["finished"]})
    store = mirrored(empty_store, folder, other)
    assert (store.newest_study(), store.studies()) == ("other", ["other", "s"])
    again = record(folder, "s", {"a": ["finished"]}, design={"kind": "cells", "components": [], "left_out": []})
    store = mirrored(empty_store, folder, again)
    assert len(artifacts(folder, LAUNCH)) == 2, "launched again, a study has the same parent run"
    assert store.newest_study() == "s"
    assert_same(read_study(folder), read_study(store))
    assert read_study(store).design["kind"] == "cells"
    more = record(folder, "s", {"a": ["finished"], "b": ["finished"]})
    assert_same(read_study(folder), read_study(mirrored(empty_store, folder, more)))
    mirrored(empty_store, folder, first)  # as sync does, launch by launch
    assert list(read_study(mirrored(empty_store, folder), "s").trials["cell"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        ("finished", "UNFINISHED", "journal.jsonl is not in MLflow yet; MLflow says FINISHED"),
        ("failed", "FAILED", "RuntimeError: no $ignal"),
        ("running", "UNFINISHED", "journal.jsonl is not in MLflow yet"),
    ],
)
def test_a_run_without_its_journal_is_a_row_that_says_what_mlflow_says(end, status, reason, tmp_path, empty_store):
    folder = Folder(tmp_path)
    store = mirrored(empty_store, folder, record(folder, "s", {"a": ["finished"], "b": [end]}))
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


def test_a_store_may_lie_anywhere_and_have_been_moved(tmp_path, monkeypatch, empty_store):
    folder = Folder(tmp_path / "a b")
    mirrored(empty_store, folder, record(folder, "s", {"a": ["finished"]}))
    before = read_study(folder)
    monkeypatch.chdir(tmp_path)
    assert_same(before, read_study(Store("sqlite:///a b/mlflow.db")))
    (tmp_path / "a b").rename(tmp_path / "c")
    assert_same(before, read_study(Store("sqlite:///c/mlflow.db")))


# The tables' own rules.
