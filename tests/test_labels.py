"""Display names: what a user calls a cell, in everything that a report writes, and in nothing that is trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import make_plan
from program import inside, mistake
from test_designs import QUIET, study_of
from written import record

from ablate.analyze.study import analyse
from ablate.knobs import KnobError
from ablate.report import write_report
from ablate.report.__main__ import main
from ablate.study.launched import LaunchRecord
from ablate.track.folder import Folder
from ablate.track.labels import renamed
from ablate.track.read import read_studies, read_study

NAMES = {"depth=1 tie=true": "Tied LSTM"}


def recorded(folder, study="s", **more):
    record(Folder(folder), study, {"depth=1 tie=true": ["finished"] * 2, "full": ["finished"] * 2}, **more)
    return Folder(folder)


def test_a_display_name_stands_wherever_a_cell_is_named(tmp_path):
    found = read_study(recorded(tmp_path, labels=NAMES))
    for table in (found.trials, found.curves, found.blocks):
        assert list(dict.fromkeys(table["cell"])) == ["Tied LSTM", "full"]
    assert [*found.samples] == ["Tied LSTM", "full"]
    assert found.labels == NAMES
    plain = read_study(recorded(tmp_path, "plain"))
    assert found.trials.dtypes.to_dict() == plain.trials.dtypes.to_dict()
    assert analyse(found).comparison["cell"].tolist() == ["Tied LSTM", "full"]


def test_the_page_says_what_a_display_name_stands_for(tmp_path):
    page = write_report(read_study(recorded(tmp_path, labels=NAMES)), tmp_path / "r").page.read_text(encoding="utf-8")
    assert "Display names: Tied LSTM is depth=1 tie=true." in page


def test_a_name_of_the_report_takes_the_place_of_one_of_the_launch_by_either_name(tmp_path):
    folder = recorded(tmp_path, labels=NAMES)
    for known_as in ("depth=1 tie=true", "Tied LSTM"):
        found = read_studies(folder, ["s"], labels={known_as: "Ours"})
        assert list(found.trials["cell"].unique()) == ["Ours", "full"]
        assert found.labels == {"depth=1 tie=true": "Ours"}


def test_a_baseline_is_known_by_its_label_too(tmp_path):
    found = read_studies(recorded(tmp_path), ["s"], labels={"full": "Everything"})
    reports = [write_report(found, tmp_path, baseline).folder.name for baseline in ("full", "Everything")]
    assert reports == ["s-beside-Everything"] * 2


def test_names_of_several_studies_are_those_of_the_first_that_has_the_cell(tmp_path):
    recorded(tmp_path, "one", labels=NAMES)
    cells = {"+ tie": ("depth=1 tie=true", ["finished"] * 2), "x": ["finished"]}
    record(Folder(tmp_path), "two", cells, labels={"+ tie": "Other", "x": "Full"})
    found = read_studies(Folder(tmp_path), ["one", "two"], labels={"x": "X"})
    assert list(found.trials["cell"].unique()) == ["Tied LSTM", "full", "X"]
    assert found.same == [("two", "Other", "Tied LSTM")]


def test_the_comparisons_that_the_last_look_names_have_display_names(tmp_path):
    found = read_study(recorded(tmp_path))
    look = {"seeds": 3, "decided": ["full"], "undecided": ["depth=1 tie=true"]}
    stopped = replace(found, stopping={"seeds": "auto", "max_seeds": 3, "look": look})
    shown = renamed(stopped, NAMES, "--label").stopping["look"]
    assert (shown["decided"], shown["undecided"]) == (["full"], ["Tied LSTM"])


@pytest.mark.parametrize(
    ("labels", "refusal"),
    [
        ({"depth=1 tie=tru": "x"}, "--label: no cell 'depth=1 tie=tru'; did you mean 'depth=1 tie=true'"),
        ({"x": "y"}, "there are depth=1 tie=true, full"),
        ({"depth=1 tie=true": "full"}, "--label: 'full' would be the name of 'depth=1 tie=true', 'full'"),
        ({"full": " "}, "must be a name in one line, for example Our model"),
        ({"full": "a\nb"}, "must be a name in one line"),
    ],
)
def test_an_unknown_cell_a_name_that_is_none_and_one_name_for_two_cells_are_refused(tmp_path, labels, refusal):
    with pytest.raises(KnobError, match=refusal):
        read_studies(recorded(tmp_path), ["s"], labels=labels)


def test_the_name_is_what_follows_the_last_equals_sign(tmp_path, capsys):
    recorded(tmp_path)
    where = ["--runs", str(tmp_path), "--reports", str(tmp_path / "reports")]
    main(["s", *where, "--label", "depth=1 tie=true=Tied LSTM", "--columns", "cell,test", "--digits", "3"])
    assert "Tied LSTM" in capsys.readouterr().out
    latex = (tmp_path / "reports" / "s" / "comparison.tex").read_text(encoding="utf-8")
    assert "\nTied LSTM & " in latex
    assert "depth=1" not in latex


@pytest.mark.parametrize(
    ("option", "refusal"),
    [
        (["--label", "full"], '--label "full": must be CELL=NAME, for example --label "full=Our model"'),
        (["--label", "full=a", "--label", "full=b"], "'full' has the name 'a' already; give it one"),
        (["--digits", "two"], "--digits=two: must be a whole number from 0 to 6, for example 1"),
        (["--columns", "cell,tst"], "--columns: no column 'tst'; did you mean 'test'?"),
    ],
)
def test_a_mistake_in_an_option_is_told_in_one_line_and_writes_nothing(tmp_path, option, refusal):
    recorded(tmp_path)
    assert refusal in mistake(main, "s", "--runs", tmp_path, "--reports", tmp_path / "reports", *option)
    assert not (tmp_path / "reports").exists()


def test_the_names_of_a_launch_are_recorded_and_change_no_trial(tmp_path):
    plain, named = (study_of("tie=true,false", *more) for more in ([], [r"labels={tie\=true:Tied,tie\=false:Free}"]))
    one, other = (make_plan(study, Folder(tmp_path)) for study in (plain, named))
    assert [planned.fingerprint for planned in one] == [planned.fingerprint for planned in other]
    assert [cell.record() for cell in plain.cells] == [cell.record() for cell in named.cells]
    event = LaunchRecord(Folder(tmp_path), named, "python -m ablate", "").event(other)
    assert event["labels"] == {"tie=true": "Tied", "tie=false": "Free"}
    assert [cell["label"] for cell in event["cells"]] == ["tie=true", "tie=false"]


def test_names_of_a_launch_are_checked_before_it_and_a_cell_that_was_left_out_may_have_one():
    with pytest.raises(KnobError, match="labels: no cell 'tie=tru'; did you mean 'tie=true'"):
        study_of("tie=true,false", r"labels={tie\=tru:Tied}")
    with pytest.raises(KnobError, match="labels: 'T' would be the name of 'tie=true', 'tie=false'"):
        study_of("tie=true,false", r"labels={tie\=true:T,tie\=false:T}")
    left_out = study_of("tie=true,false", 'design.exclude=["tie=false"]', r"labels={tie\=false:Free}")
    assert [cell.label for cell in left_out.cells] == ["tie=true"]


def test_a_preset_of_a_study_names_its_cells(tmp_path):
    file = tmp_path / "conf" / "study" / "mine.yaml"
    file.parent.mkdir(parents=True)
    text = '# @package _global_\nlabels:\n  "depth=1 tie=true": Tied LSTM\n  "depth=1 tie=tru": Free\n'
    file.write_text(text, encoding="utf-8")
    asked = ["-m", "depth=1,2", "tie=true,false", "+study=mine", "--config-dir", str(file.parent.parent), *QUIET]
    code, _, err = inside(*asked, "plan=true", folder=tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "labels: no cell 'depth=1 tie=tru'; did you mean 'depth=1 tie=true'" in err
