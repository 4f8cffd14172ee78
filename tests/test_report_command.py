"""Results from Python and from python -m ablate.report: what is found, and what is told where nothing is."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from program import ROOT, mistake
from written import mirrored, record

import ablate as package
from ablate.report import __main__ as report_main
from ablate.track.folder import Folder
from ablate.track.read import Results, read_studies, read_study
from ablate.track.sources import open_source
from ablate.track.typed import typed


def test_results_and_curves_are_tables_a_call_away(tmp_path, monkeypatch, empty_store):
    folder = Folder(tmp_path / "runs")
    mirrored(empty_store, folder, record(folder, "s", {"a": ["finished"]}), record(folder, "t", {"b": ["finished"]}))
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
def mistaken(tmp_path_factory, empty_store):
    """A folder with two studies, one of them in MLflow, and files that are no store."""
    place = tmp_path_factory.mktemp("mistaken")
    folder = Folder(place / "runs")
    mirrored(empty_store, folder, record(folder, "ref", {"full": ["finished"], "b": ["finished"]}))
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
    message = mistake(report_main.main, *arguments)
    assert message.startswith(f"ablate.report: {said}"), message
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
