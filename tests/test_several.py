"""Studies that lie in several runs folders and MLflow stores are reported as if they lay in one."""

from __future__ import annotations

import shutil

import pytest
from written import record

from ablate.knobs import KnobError
from ablate.report import __main__ as report_main
from ablate.report import write_report
from ablate.track.folder import Folder
from ablate.track.mlflow.mirror import Mirror
from ablate.track.read import read_studies, read_study
from ablate.track.sources import Several, open_source

ONE = {"full": ["finished", "finished"], "b": ["finished"]}
TWO = {"everything": ("full", {1: "finished", 2: "finished"}), "c": ["finished"]}


@pytest.fixture
def apart(tmp_path, empty_store):
    """Two runs folders with a study each, and one with both; the second folder's study is in a store as well."""
    one, two, both = (Folder(tmp_path / name) for name in ("one", "two", "both"))
    for folder, name, cells in ((one, "s", ONE), (two, "t", TWO), (both, "s", ONE), (both, "t", TWO)):
        record(folder, name, cells)
    shutil.copy(empty_store, two.database())
    Mirror(two, None, two.launch("t"), print).sync()
    return one, two, both


def test_studies_of_two_runs_folders_or_of_a_folder_and_a_store_are_reported_as_those_of_one_folder(apart, tmp_path):
    one, two, both = apart
    whole = write_report(read_studies(both, ["s", "t"]), tmp_path / "whole")
    store = f"sqlite:///{two.database()}"
    for number, places in enumerate((["--runs", str(two)], ["--store", store])):
        reports = tmp_path / str(number)
        for names in (["s", "t"], ["t"]):
            report_main.main([*names, "--runs", str(one), *places, "--reports", str(reports)])
        commands = (both.launch("s")["command"], both.launch("t")["command"])
        assert all(command in whole.page.read_text() for command in commands)
        assert (reports / "s+t" / "index.html").read_bytes() == whole.page.read_bytes()
    assert list(read_studies(both, ["s", "t"]).trials["cell"]) == ["full", "full", "full", "b", "c"]


def test_where_no_study_is_named_the_one_launched_last_in_any_of_the_places_is_read(apart):
    one, two, _ = apart
    record(Folder(one.root), "newer", {"full": ["finished"]})
    for sources in ((one, two), (two, one)):
        assert read_study(Several(sources)).name == "newer"
    assert Several([one, two]).studies() == ["newer", "s", "t"]


def test_a_study_that_two_places_have_is_refused_only_when_it_is_asked_for_and_once_renamed_both_are_read(apart):
    one, two, _ = apart
    record(two, "s", {"d": ["finished"]})
    both = Several([one, two])
    assert read_study(both, "t").name == "t"
    with pytest.raises(KnobError, match=f"the study 's' is in {one} and in {two}; .* --runs {one} rename s s-2$"):
        read_studies(both, ["s", "t"])
    two.study("s").rename(two.study("other"))
    assert read_studies(both, ["s", "t"]).name == "s+t"


def test_two_stores_have_no_command_that_renames_and_say_so(apart, tmp_path):
    _, two, _ = apart
    shutil.copytree(two.root, tmp_path / "copy")
    stores = [f"sqlite:///{folder}/mlflow.db" for folder in (two.root, tmp_path / "copy")]
    with pytest.raises(KnobError, match=r"leave out all but one$"):
        read_study(open_source(store=stores), "t")


@pytest.mark.parametrize("order", [["s", "t"], ["t", "s"]])
def test_a_trial_that_was_not_finished_in_one_place_is_taken_from_the_other(order, tmp_path):
    record(here := Folder(tmp_path / "here"), "s", {"full": ["finished", "running"]})
    record(there := Folder(tmp_path / "there"), "t", {"full": ["failed", "finished"]})
    trials = read_studies(Several([here, there]), order).trials
    assert list(trials["status"]) == ["FINISHED", "FINISHED"]
    assert list(trials["cell"]) == ["full", "full"]
