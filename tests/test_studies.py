"""python -m ablate.studies: what there is, what is left to do, and studies that are renamed and deleted."""

from __future__ import annotations

import shutil

import pytest
from program import mistake
from recorded import Trial, copied, finished_study, launch

from ablate import studies
from ablate.track.claims import claimed
from ablate.track.folder import Folder
from ablate.track.journal import Journal
from ablate.track.mlflow.store import Store
from ablate.track.process import this_process
from ablate.track.read import read_study


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "runs")


@pytest.fixture
def with_store(folder, empty_store):
    """A store for its runs in MLflow, which would take seconds to make."""
    folder.root.mkdir()
    shutil.copy(empty_store, folder.database())


def said(capsys, folder, *arguments):
    studies.main(["--runs", str(folder), *arguments])
    return capsys.readouterr().out


def refused(folder, *arguments):
    return mistake(studies.main, "--runs", folder, *arguments)


def half_done(folder, name="half"):
    """A study of two cells, one of which has a finished trial, the other a failed one and one that never began."""
    prints = {"a": ["1" * 64], "b": ["2" * 64, "3" * 64]}
    done, failed = Trial(folder, "1" * 64), Trial(folder, "2" * 64)
    for trial in (done, failed):
        trial.start()
    done.finish()
    failed.append("failed", reason="OSError: x")
    cells = [
        {"label": label, "levels": {}, "trials": [{"seed": i, "fingerprint": p} for i, p in enumerate(of_cell)]}
        for label, of_cell in prints.items()
    ]
    launched = launch(name) | {"cells": cells, "command": "python -m ablate -m x=a,b"}
    Journal(folder.study(name)).append("launched", **{k: v for k, v in launched.items() if k != "event"})


def test_studies_are_listed_with_what_is_done_and_their_size(folder, capsys):
    half_done(folder)
    finished_study(folder, 1.0, 2.0)
    rows = [line.split("│") for line in said(capsys, folder).splitlines() if line.startswith("│")]
    assert [[field.strip() for field in row[1:4]] for row in rows] == [
        ["half", "2", "1 of 3 done, 1 failed"], ["s", "1", "2 of 2 done"]
    ]  # fmt: skip
    assert all("kB" in row[5] for row in rows)


def test_a_study_says_what_each_cell_has_and_the_command_that_finishes_it(folder, capsys):
    half_done(folder)
    out = said(capsys, folder, "show", "half")
    assert "│ a    │ 1 finished             │" in out
    assert "│ b    │ 1 failed, 1 unfinished │" in out
    assert "to finish it: python -m ablate -m x=a,b\n" in out
    assert f"python -m ablate.report half --runs {folder}" in out


def test_what_is_being_trained_is_running_and_neither_renamed_nor_deleted(folder, capsys):
    half_done(folder)
    with claimed(folder.trial("3" * 64), "launch"):
        out = said(capsys, folder, "show", "half")
        assert "1 failed, 1 running" in out
        assert "to finish it" not in out
        for action in (["rename", "half", "other"], ["delete", "half", "--yes"]):
            assert refused(folder, *action) == "ablate.studies: half: is running; stop it, or wait until it has ended"
    assert folder.studies() == ["half"]


def test_a_renamed_study_has_its_results_and_its_runs_in_mlflow_under_the_new_name(folder, with_store, capsys):
    launched = finished_study(folder, 1.0, 2.0)
    folder.latest().write_text("s")
    assert copied(folder, None, launched)[0]
    before = read_study(folder).trials
    told = f"s is now mine; in MLflow too; python -m ablate.report mine --runs {folder} writes its report"
    assert said(capsys, folder, "rename", "s", "mine").startswith(told)
    assert folder.launch("mine")["command"] == "c name=mine"
    assert folder.studies() == ["mine"]
    assert read_study(folder, "mine").trials.equals(before)
    assert folder.newest_study() == "mine"
    store = Store(f"sqlite:///{folder.database()}")
    assert store.studies() == ["mine"]
    assert read_study(store, "mine").trials.equals(before)
    assert copied(folder, None, folder.launch("mine"))[0]
    assert Store(f"sqlite:///{folder.database()}").studies() == ["mine"], "the mirror finds the same run"


def test_a_deleted_study_is_gone_with_its_runs_once_that_is_confirmed_and_its_report_stays(
    folder, with_store, tmp_path, capsys
):
    launched = finished_study(folder, 1.0) | {"reports": str(tmp_path / "reports")}
    Journal(folder.study("s")).append("launched", **{k: v for k, v in launched.items() if k not in ("event", "time")})
    assert copied(folder, None, folder.launch("s"))[0]
    report = tmp_path / "reports" / "s" / "mine.txt"
    report.parent.mkdir(parents=True)
    report.write_text("notes")
    assert said(capsys, folder, "delete", "s") == (
        f"would be deleted: {folder.study('s')}, its runs in MLflow; add --yes\n"
    )
    assert folder.studies() == ["s"]
    assert "s is deleted, its report stays; python -m ablate.track prune" in said(
        capsys, folder, "delete", "s", "--yes"
    )
    assert (folder.studies(), report.read_text()) == ([], "notes")
    assert Store(f"sqlite:///{folder.database()}").studies() == []


def test_a_study_between_two_trials_is_running_until_it_has_ended(folder):
    launched = finished_study(folder, 1.0) | {"process": this_process()}
    Journal(folder.study("s")).append("launched", **{k: v for k, v in launched.items() if k not in ("event", "time")})
    assert (
        refused(folder, "delete", "s", "--yes") == "ablate.studies: s: is running; stop it, or wait until it has ended"
    )
    Journal(folder.study("s")).append("ended", id="x")
    studies.main(["--runs", str(folder), "delete", "s", "--yes"])
    assert folder.studies() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "haf"], "no study 'haf'; did you mean 'half'? in "),
        (["rename", "half", "a b"], "a b: a name has at most 100 letters"),
        (["rename", "half", "half"], "half: there is such a study already; choose another name"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, folder):
    half_done(folder)
    assert message in refused(folder, *arguments)
    assert folder.studies() == ["half"]


def test_a_folder_without_studies_says_how_to_start_one(folder):
    assert refused(folder) == f"ablate.studies: no study in {folder}; start one with python -m ablate"
    assert not folder.root.exists()
