"""The command line: what a user types, sees and finds on disk."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from contextlib import redirect_stdout

import numpy as np
import pandas as pd
import pytest
from conftest import TINY
from program import ROOT, ablate, inside, start
from warm import Warm, module

from ablate.report import __main__ as report_main
from ablate.study import run as study_run
from ablate.track.journal import Journal


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A grid of four cells with two seeds each, by the real program; and again, when nothing is left to train."""
    folder = tmp_path_factory.mktemp("study")
    arguments = ["-m", "depth=1,2", "tie=true,false", "seeds=2", *TINY]
    first = ablate(*arguments, folder=folder)
    before = {path: path.read_bytes() for path in folder.glob("runs/trials/*/*/journal.jsonl")}
    second = inside(*arguments, folder=folder)
    return folder, first, second, before


def test_a_grid_ends_with_a_table_a_report_and_the_command_to_browse(study):
    folder, (code, out, err), _, _ = study
    assert (code, err) == (0, "")
    assert "study depth-tie: 4 cells, 8 trials" in out
    assert "report: reports/depth-tie/index.html" in out
    assert "curves: mlflow ui --backend-store-uri sqlite:///runs/mlflow.db" in out
    assert "then open http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey=ablate\n" in out
    assert "--host" not in out, "it serves this machine alone"
    for name in (
        "index.html", "comparison.md", "comparison.tex", "comparison.csv", "comparison.html", "curves.png",
        "curves.svg", "comparison.png", "results.csv", "results.parquet", "factors.tex", "grid.pdf",
    ):  # fmt: skip
        assert (folder / "reports" / "depth-tie" / name).stat().st_size > 100, name
    table = pd.read_csv(folder / "reports" / "depth-tie" / "comparison.csv")
    assert list(table["cell"]) == ["depth=1 tie=true", "depth=1 tie=false", "depth=2 tie=true", "depth=2 tie=false"]
    assert (table["n"] == 2).all()


def test_the_second_launch_trains_nothing_and_says_so(study):
    folder, _, (code, out, _), before = study
    assert code == 0
    assert out.count("finished before, not trained again") == 8
    assert {path: path.read_bytes() for path in folder.glob("runs/trials/*/*/journal.jsonl")} == before


def test_mlflow_holds_a_parent_and_a_child_for_every_trial_once(study):
    from mlflow import MlflowClient

    folder, *_ = study
    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("ablate")
    runs = client.search_runs([experiment.experiment_id])
    parents = [r for r in runs if r.data.tags["ablate.kind"] == "study"]
    children = [r for r in runs if r.data.tags["ablate.kind"] == "trial"]
    assert (len(parents), len(children)) == (1, 8)
    assert parents[0].info.run_name == "depth-tie"
    assert all(r.info.status == "FINISHED" for r in runs)
    assert {r.data.tags["mlflow.parentRunId"] for r in children} == {parents[0].info.run_id}
    one = next(r for r in children if r.info.run_name.startswith("depth=2 tie=true · seed 1 · test "))
    assert {r.data.tags["ablate.threads"] for r in children} == {"1"}, "the first trial of a worker too"
    assert one.data.params["depth"] == "2"
    assert one.data.params["data.branching"] == "3"
    for tag in ("cell", "seed", "fingerprint", "data_digest", "code", "torch", "device", "threads", "precision"):
        assert one.data.tags[f"ablate.{tag}"]
    assert {"git_commit", "git_dirty"} <= {t.removeprefix("ablate.") for t in one.data.tags}
    assert one.inputs.dataset_inputs[0].dataset.name == "synthetic"
    steps = [m.step for m in client.get_metric_history(one.info.run_id, "train_perplexity")]
    assert steps == [20, 40]
    for metric in ("valid_perplexity", "lr", "grad_norm", "tokens_per_s"):
        assert len(client.get_metric_history(one.info.run_id, metric)) >= 2, metric
    assert one.data.metrics["test_perplexity"] > 1
    assert {a.path for a in client.list_artifacts(one.info.run_id)} == {"config.yaml", "journal.jsonl", "sample.txt"}
    view = json.loads(experiment.tags["mlflow.sharedViewState.ablate"])
    shown = client.search_runs([experiment.experiment_id], view["searchFilter"], order_by=[view["orderByKey"]])
    assert {run.info.run_id for run in shown} == {run.info.run_id for run in children}, "the newest study's trials"
    logs = pd.DataFrame([np.log(pd.Series(run.data.metrics)) for run in children])
    by_cell = logs.groupby([run.data.tags["ablate.cell"] for run in children])[
        ["best_valid_perplexity", "test_perplexity"]
    ].mean()
    best = by_cell["best_valid_perplexity"].idxmin()
    assert parents[0].data.tags["ablate.best_cell"] == best
    assert parents[0].data.metrics == pytest.approx(np.exp(by_cell.loc[best]).to_dict())
    columns = view["selectedColumns"]
    shown = {"metrics": one.data.metrics, "params": one.data.params, "tags": one.data.tags}
    for column in columns:
        kind, name = column.rstrip("`").split(".`")
        assert name in shown[kind], column
    attached = {a.path for a in client.list_artifacts(parents[0].info.run_id, "report")}
    assert "report/index.html" in attached


def test_mlflow_and_the_journal_say_the_same(study):
    from mlflow import MlflowClient

    folder, *_ = study
    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("ablate")
    results = pd.read_csv(folder / "reports/depth-tie/results.csv").set_index("fingerprint")
    runs = client.search_runs([experiment.experiment_id], "tags.`ablate.kind` = 'trial'")
    for run in runs:
        row = results.loc[run.data.tags["ablate.fingerprint"]]
        assert run.data.metrics["test_perplexity"] == pytest.approx(row["test_perplexity"], rel=1e-9)


@pytest.mark.figures
def test_a_report_is_written_again_from_what_was_recorded_to_the_same_bytes(study):
    folder, *_ = study
    before = {p.name: p.read_bytes() for p in (folder / "reports" / "depth-tie").iterdir()}
    code, out, err = inside(folder=folder, main=report_main.main)
    assert (code, err) == (0, "")
    assert "report: reports/depth-tie/index.html" in out
    assert {p.name: p.read_bytes() for p in (folder / "reports" / "depth-tie").iterdir()} == before


def test_a_report_of_an_unknown_study_names_the_known_ones(study, tmp_path):
    folder, *_ = study
    process = start(["ablate.report", "depth-tye"], folder)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.strip() == "ablate.report: no study 'depth-tye'; did you mean 'depth-tie'? in runs; there are depth-tie"
    code, _, err = inside(folder=tmp_path, main=report_main.main)
    assert (code, err) == (2, "ablate.report: no study in runs; start one with python -m ablate\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dephth=2"], "dephth=2: unknown knob 'dephth'; did you mean 'depth'?"),
        (["data.vocabsize=9"], "data.vocabsize=9: unknown knob 'vocabsize' of data; did you mean 'vocab_size'?"),
        (["-m", "depth=1,0"], "depth=0: must be a whole number at least 1 and at most 128; for example 2"),
        (["model=lsmt"], "model=lsmt: no such preset; did you mean 'lstm'?; choose from better_lstm, lstm, rnn"),
        (["tie=true", "embedding=100", "hidden=200"],
         "tie=true embedding=100 hidden=200: tying needs embedding = hidden; use embedding=200, or tie=false"),
        (["data=text", "data.path=no.txt"], "data.path=no.txt: No such file or directory; name a UTF-8 text file"),
        (["depth=[1"], "depth=[1"),
        (["data.path=my.txt"], "data.path: a knob of data=text, not of the data chosen here; add data=text"),
        (["-m", "data.path=a.txt,b.txt"], "data.path: a knob of data=text, not of the data chosen here; add data=text"),
        (["-m", "+lr=1,2"], "Could not append to config. An item is already at 'lr'."),
        (["depth=1", "-m", "dropout=0,2"], "dropout=2: must be a finite number at least 0 and below 1"),
    ],
)  # fmt: skip
def test_a_users_mistake_is_one_line_and_a_code_before_anything_is_trained(arguments, message, tmp_path):
    code, out, err = inside(*arguments, folder=tmp_path)
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert not list(tmp_path.glob("runs/trials/*"))


@pytest.mark.parametrize("mistake", ["dephth=2", "depth=[1", "data.path=my.txt"])
def test_the_real_program_says_of_a_mistake_what_main_does_and_nothing_else(mistake, tmp_path):
    assert ablate(mistake, folder=tmp_path) == inside(mistake, folder=tmp_path)


def test_one_configuration_needs_no_multirun_flag_and_may_track_nothing(tmp_path):
    code, out, _ = inside("model=rnn", "tracking=off", "report=false", "seeds=2", *TINY, folder=tmp_path)
    assert code == 0
    assert "study rnn: 1 cell, 2 trials" in out
    assert "mlflow" not in out
    assert not (tmp_path / "runs" / "mlflow.db").exists()


def test_help_tells_what_each_knob_is_set_to_under_the_presets_that_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = inside("--help", folder=tmp_path)
    assert "  optimizer        update rule (one of adam, sgd; default adam)" in out
    assert all(f"\npython -m ablate.{program} " in out for program in ("studies", "report", "track"))
    monkeypatch.setenv("COLUMNS", "300")
    _, out, _ = inside("--help", folder=tmp_path)
    assert re.search(r"data=kjv: data\.vocab_size\s.*; default 5000\)", out)
    _, out, _ = inside("recipe=book", "data=text", "--help", folder=tmp_path)
    assert "  optimizer        update rule (one of adam, sgd; default sgd)" in out
    assert re.search(r"data=text: data\.path\s+the text, or its train part \(the path of a UTF-8 text file", out)
    assert "for example data.path=my.txt)" in out
    monkeypatch.setenv("SECRET_PLACE", "/no/one/sees/this")
    _, out, _ = inside("runs=${oc.env:SECRET_PLACE}", "--help", folder=tmp_path)
    assert "(a path; default ${oc.env:SECRET_PLACE})" in out
    assert "/no/one" not in out


@pytest.mark.parametrize("arguments", [["ablate", "--help"], ["ablate", "--cfg", "job"], ["ablate.report", "--help"]])
def test_help_and_discovery_load_neither_torch_nor_mlflow(arguments, tmp_path):
    code = (
        "import runpy, sys\n"
        f"sys.argv = {arguments!r}\n"
        "try:\n    runpy.run_module(sys.argv[0], run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "assert not {'torch', 'mlflow'} & set(sys.modules), 'heavy imports'\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_runs_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "runs").write_text("a file, not a folder")
    code, _, err = inside(*TINY, folder=tmp_path)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert "runs" in err


def on_terminal(path, *arguments):
    with open(path, "w", encoding="utf-8", buffering=1) as terminal, redirect_stdout(terminal):
        os.dup2(terminal.fileno(), 1)
        module("ablate", *arguments)


def test_on_a_terminal_the_study_is_a_live_table(tmp_path):
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    arguments = ["-m", "depth=1,2", "tracking=off", "report=false", *TINY, "windows=400"]
    process = Warm(
        on_terminal, os.ttyname(follower), *arguments,
        folder=tmp_path, environment={"COLUMNS": "140", "TERM": "xterm"},
    )  # fmt: skip
    seen = b""
    # Our own end stays open: a terminal that nobody has opened yet reads as one that was closed.
    while select.select([leader], [], [], 0.5)[0] or process.poll() is None:
        if select.select([leader], [], [], 0)[0]:
            seen += os.read(leader, 65536)
    os.close(follower)
    os.close(leader)
    assert process.communicate(timeout=120) == ("", "")
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert "running" in text
    assert "waiting" in text
    assert re.search(r"depth: 1 done, 1 running · about \d+ s left", text)
    assert "study depth: 2 done; python -m ablate.report depth writes the report" in text


def test_a_study_of_the_same_name_that_another_process_launches_meanwhile_is_not_reported_as_this_one(
    tmp_path, monkeypatch
):
    def report(folder, launched, reports):
        other = {"label": "b", "levels": {}, "components": {}, "trials": [{"seed": 0, "fingerprint": "f" * 64}]}
        Journal(folder.study(launched["study"])).append("launched", **(launched | {"cells": [other]}))
        return original(folder, launched, reports)

    original = study_run._report
    monkeypatch.setattr(study_run, "_report", report)
    code, out, err = inside(*TINY, "tracking=off", folder=tmp_path)
    assert (code, err) == (0, "")
    assert "unfinished" not in out
    assert "mlflow" not in out
    results = pd.read_csv(tmp_path / "reports" / "lstm" / "results.csv")
    assert results["cell"].tolist() == ["lstm"]
