"""A name belongs to one question: neither a study nor a report takes the place of another one."""

from __future__ import annotations

import pytest
from conftest import TINY
from made import results, trials
from program import inside

from ablate.report import write_report

QUIET = ["tracking=off", "report=false", "windows=5", "valid_every=5"]


def studies(folder):
    return sorted(path.stem for path in folder.glob("runs/studies/*.jsonl"))


def asked(*overrides, folder):
    code, out, err = inside("-m", *TINY, *QUIET, *overrides, folder=folder)
    assert (code, err) == (0, "")
    return out


@pytest.mark.parametrize("other", ["lr=0.1", "hidden=16", "data.tokens=5000", "windows=10", "lr=0.1 model=rnn"])
def test_another_question_under_an_automatic_name_has_a_number_and_says_which_command_has_the_name(other, tmp_path):
    asked("depth=1,2", folder=tmp_path)
    out = asked("depth=1,2", *other.split(), folder=tmp_path)
    assert "called depth-2, for depth is another question (" in out
    assert "ablate -m data=synthetic" in out
    assert studies(tmp_path) == ["depth", "depth-2"]
    assert "depth-2" in asked("depth=1,2", *other.split(), folder=tmp_path), "the same question, the same name"
    assert "called" not in asked("depth=1,2", folder=tmp_path)
    assert studies(tmp_path) == ["depth", "depth-2"]


def test_a_study_grows_under_its_name(tmp_path):
    asked("depth=1,2", folder=tmp_path)
    out = asked("depth=1,2,3", "seeds=2", folder=tmp_path)
    assert "study depth: 3 cells, 6 trials" in out
    assert out.count("finished before") == 2
    asked("depth=2,4", folder=tmp_path)
    assert studies(tmp_path) == ["depth"]


def test_another_full_model_is_another_question(tmp_path):
    asked("design=leave_one_out", "model=lstm", "depth=2", folder=tmp_path)
    out = asked("design=leave_one_out", "model=lstm", "depth=3", folder=tmp_path)
    assert "called leave_one_out-2, for leave_one_out is another question (" in out
    asked("design=leave_one_out", "design.components=[depth]", "model=lstm", "depth=2", folder=tmp_path)
    assert studies(tmp_path) == ["leave_one_out", "leave_one_out-2"]


def test_a_design_that_takes_the_place_of_a_presets_has_its_own_name(tmp_path):
    asked("+study=leave_one_out", "design=add_one_in", "plan=true", folder=tmp_path)
    out = asked("+study=leave_one_out", "design=add_one_in", "plan=true", folder=tmp_path)
    assert "study add_one_in: " in out


def test_a_name_that_was_typed_is_kept_and_what_it_stood_for_is_told(tmp_path):
    asked("depth=1,2", "name=mine", folder=tmp_path)
    out = asked("depth=1,2", "name=mine", "lr=0.1", folder=tmp_path)
    assert "name=mine stood for another question until now (lr=0.003, " in out
    assert "its report is replaced" in out
    assert "trained again, lr changed (0.003 → 0.1)" in out
    assert studies(tmp_path) == ["mine"]


@pytest.mark.parametrize(
    ("overrides", "label", "name"),
    [
        (["model=rnn"], "rnn", "rnn"),
        (["model=lstm", "rnn=tanh"], "lstm rnn=tanh", "lstm-rnn"),
        (["model=rnn", "depth=2", "dropout=0.25"], "rnn depth=2 dropout=0.25", "rnn-depth-dropout"),
    ],
)
def test_a_single_cell_is_called_by_its_preset_and_the_parts_that_were_typed(overrides, label, name, tmp_path):
    out = asked(*overrides, folder=tmp_path)
    assert f"\n{label} · seed 0: valid" in out
    assert studies(tmp_path) == [name]


def test_models_side_by_side_tell_the_part_that_all_of_them_were_given(tmp_path):
    out = asked("model=rnn,lstm", "depth=2", folder=tmp_path)
    assert "\nrnn depth=2 · seed 0: valid" in out
    assert "\nlstm depth=2 · seed 0: valid" in out


def test_a_report_beside_another_baseline_leaves_the_first_one_alone(tmp_path):
    found = results(trials({"a": [4.0, 4.1], "b": [3.9, 4.0]}))
    first, same, other = (write_report(found, tmp_path, baseline) for baseline in (None, "a", "b"))
    assert first.folder == same.folder != other.folder
    assert other.folder.name == "study-beside-b"
