"""Several studies are read as one, where they measure the same."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from made import TASK
from written import assert_same, mirrored, record

from ablate.knobs import KnobError
from ablate.metric import Metric
from ablate.report import write_report
from ablate.track.folder import Folder
from ablate.track.journal import Journal
from ablate.track.read import read_studies, read_study
from ablate.track.sources import open_source


def test_two_studies_are_read_as_one_and_what_they_share_is_there_once(tmp_path, empty_store):
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
    store = mirrored(
        empty_store, folder, *(json.loads(folder.study(n).read_text()) for n in ("leave_one_out", "cumulative"))
    )
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


def test_studies_of_two_tasks_are_not_reported_as_one(tmp_path):
    folder = Folder(tmp_path)
    record(folder, "one", {"full": ["finished"]})
    record(folder, "two", {"full": ["finished"]}, task={**TASK, "name": "digits"})
    with pytest.raises(KnobError, match="one is of the task language_model, two of digits; report each by itself"):
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


def test_the_first_cell_of_the_first_study_stays_first_where_its_trials_ended_in_another(tmp_path):
    here, there = Folder(tmp_path / "here"), Folder(tmp_path / "there")
    record(here, "one", {"full": ["new", "new"], "without tying": ["finished", "finished"]})
    record(there, "two", {"+ tying": ("full", ["finished", "finished"]), "base": ["finished", "finished"]})
    both = read_studies(open_source([str(here.root), str(there.root)], None), ["one", "two"])
    assert list(dict.fromkeys(both.trials["cell"])) == ["full", "without tying", "base"]
    assert set(both.trials["status"]) == {"FINISHED"}
    assert both.same == [("two", "+ tying", "full")]


def test_studies_that_do_not_think_the_same_worth_a_difference_say_which_counts(tmp_path):
    folder = Folder(tmp_path)
    record(folder, "one", {"full": ["finished"]}, worth="2%")
    record(folder, "two", {"b": ["finished"]}, worth="1%")
    record(folder, "none", {"c": ["finished"]})
    said = "What difference is worth something was not said alike"
    for names, told in (
        (["one", "two"], f"{said} (2%: one; 1%: two): the least, 1%, counts here."),
        (["one", "none"], f"{said} (2%: one; nothing: none): none is called equivalent."),
    ):
        warnings = write_report(read_studies(folder, names), tmp_path / "reports").warnings
        assert [line for line in warnings if line.startswith(said)] == [f"{told} --worth sets it for all."]
    for given in ({"worth": "3%"}, {}):
        both = read_studies(folder, ["one", "two"] if given else ["one"], **given)
        assert not [line for line in write_report(both, tmp_path / "reports").warnings if line.startswith(said)]
