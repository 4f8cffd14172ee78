"""A name belongs to one question: neither a study nor a report takes the place of another one."""

from __future__ import annotations

from unittest import mock

import pytest
from conftest import TINY, values_of
from made import results, trials
from program import inside
from test_designs import study_of

from ablate.report import write_report
from ablate.study import run as study_run
from ablate.study.cells import Job
from ablate.study.jobs import make_study
from ablate.study.naming import differences, named, question
from ablate.track.folder import Folder
from ablate.track.journal import Journal

QUIET = ["tracking=off", "report=false", "windows=5", "valid_every=5"]


class Launched:
    """A runs folder that holds launches alone, the newest of each name."""

    def __init__(self):
        self.launches = {}

    def launch(self, name):
        return self.launches.get(name)

    def studies(self):
        return sorted(self.launches)

    def asks(self, *overrides):
        """Launch a study, and give its name and what is told of it."""
        found = named(study_of(*overrides), self)
        cells = [{"label": c.label, "trials": [{"seed": seed} for seed in c.seeds]} for c in found.study.cells]
        self.launches[found.study.name] = {
            "question": question(found.study), "command": f"ablate {overrides}", "cells": cells
        }  # fmt: skip
        return found.study.name, found.note


@pytest.mark.parametrize("other", ["lr=0.1", "hidden=16", "data.tokens=5000", "windows=10", "model=rnn"])
def test_another_question_under_an_automatic_name_has_a_number_and_says_which_command_has_the_name(other):
    folder = Launched()
    assert folder.asks("depth=1,2") == ("depth", "")
    name, told = folder.asks("depth=1,2", other)
    assert name == "depth-2"
    assert "called depth-2, for depth is another question (" in told
    assert "ablate ('depth=1,2',)" in told
    assert folder.asks("depth=1,2", other)[0] == "depth-2", "the same question, the same name"
    assert folder.asks("depth=1,2", "lr=0.5")[0] == "depth-3"
    assert folder.asks("depth=1,2") == ("depth", "")


def test_a_study_grows_under_its_name():
    folder = Launched()
    for more in (["depth=1,2"], ["depth=1,2,3", "seeds=2"], ["depth=1,2,3,4", "seeds=2", "worth=2%"]):
        assert folder.asks(*more) == ("depth", "")
    assert folder.asks("depth=2,8")[0] == "depth"


def test_a_command_that_asks_for_less_than_before_says_what_the_report_goes_without():
    folder = Launched()
    folder.asks("depth=1,2,3", "seeds=2")
    assert folder.asks("depth=1,2", "seeds=2")[1].startswith(
        "depth had 2 trials that this command does not ask for (of depth=3); its report is without them."
    )
    assert folder.asks("depth=1,2,3", "seeds=2") == ("depth", "")
    assert folder.asks("depth=1,2,3")[1].startswith("depth had 3 trials that")
    assert folder.asks("depth=1,2")[1].startswith("depth had 1 trial that")


def test_another_full_model_is_another_question_and_fewer_of_its_components_are_not():
    folder = Launched()
    full = ["design=leave_one_out", "model=lstm"]
    assert folder.asks(*full, "depth=2")[0] == "leave_one_out"
    name, told = folder.asks(*full, "depth=3")
    assert (name, "called leave_one_out-2, for leave_one_out is another question (" in told) == (
        "leave_one_out-2",
        True,
    )
    assert folder.asks(*full, "depth=2", "design.components=[depth]")[0] == "leave_one_out"
    assert folder.asks("design=add_one_in", "model=lstm", "depth=2") == ("add_one_in", "")


def test_a_factor_beside_a_design_of_components_belongs_to_the_question():
    folder = Launched()
    design = ["design=leave_one_out", "model=better_lstm", "forget_bias=0"]
    assert folder.asks(*design, "lr=0.01,0.02")[0] == "leave_one_out"
    name, told = folder.asks(*design, "clip=0.5,1")
    assert name == "leave_one_out-2"
    assert "(of lr there, clip here; " in told


def test_another_task_under_a_name_that_was_typed_is_another_question():
    mine = study_of("depth=1,2")
    theirs = {"question": question(mine) | {"task": ["other"]}}
    assert differences(theirs, question(mine)) == ["of other there, language_model here"]


def test_a_question_keeps_its_number_when_the_first_name_has_become_free():
    folder = Launched()
    folder.asks("depth=1,2")
    assert folder.asks("depth=1,2", "lr=0.1")[0] == "depth-2"
    assert folder.asks("depth=1,2", "lr=0.5")[0] == "depth-3"
    del folder.launches["depth-2"]
    assert folder.asks("depth=1,2", "lr=0.5")[0] == "depth-3"
    del folder.launches["depth"]
    assert folder.asks("depth=1,2", "lr=0.5") == ("depth-3", "")
    assert folder.asks("depth=1,2") == ("depth", "")


def test_a_value_from_the_environment_is_in_a_question_by_its_variable_alone(monkeypatch):
    monkeypatch.setenv("WHERE", "/secret/place")
    job = Job((), values_of("data=text", "data.path=${oc.env:WHERE}/a.txt"), None, {"WHERE": "/secret/place"})
    assert "/secret" not in str(question(make_study([job])))


def test_two_studies_that_begin_at_once_have_names_of_their_own(tmp_path):
    taken = study_of(*QUIET, "depth=1,2", "lr=0.1")

    def other(*_):
        if not (tmp_path / "runs" / "studies" / "depth.jsonl").exists():
            event = {"study": "depth", "question": question(taken), "command": "x", "cells": []}
            Journal(Folder(tmp_path / "runs").study("depth")).append("launched", **event)
        return original(*_)

    original = study_run.make_plan
    with mock.patch.object(study_run, "make_plan", other):
        code, out, err = inside("-m", *TINY, *QUIET, "depth=1,2", folder=tmp_path)
    assert (code, err) == (0, "")
    assert "called depth-2, for depth is another question (lr=0.1 there, 0.003 here; x)" in out


def test_a_name_that_was_typed_is_kept_and_what_it_stood_for_is_told(tmp_path):
    mine = ["-m", *TINY, *QUIET, "depth=1,2", "name=mine"]
    inside(*mine, folder=tmp_path)
    code, out, err = inside(*mine, "lr=0.1", folder=tmp_path)
    assert (code, err) == (0, "")
    assert "name=mine stood for another question until now (lr=0.003 there, 0.1 here; " in out
    assert "its report becomes that of the new one" in out
    assert "trained again, lr changed (0.003 → 0.1)" in out


@pytest.mark.parametrize(
    ("overrides", "label", "name"),
    [
        (["model=rnn"], "rnn", "rnn"),
        (["model=lstm", "rnn=tanh"], "lstm rnn=tanh", "lstm-rnn"),
        (["model=rnn", "depth=2", "dropout=0.25"], "rnn depth=2 dropout=0.25", "rnn-depth-dropout"),
    ],
)
def test_a_single_cell_is_called_by_its_preset_and_the_parts_that_were_typed(overrides, label, name):
    study = study_of(*overrides)
    assert ([cell.label for cell in study.cells], study.name) == ([label], name)


def test_models_side_by_side_tell_the_part_that_all_of_them_were_given():
    assert [cell.label for cell in study_of("model=rnn,lstm", "depth=2").cells] == ["rnn depth=2", "lstm depth=2"]


def test_a_report_beside_another_baseline_leaves_the_first_one_alone(tmp_path):
    found = results(trials({"a": [4.0, 4.1], "b": [3.9, 4.0]}))
    first, same, other = (write_report(found, tmp_path, baseline) for baseline in (None, "a", "b"))
    assert first.folder == same.folder != other.folder
    assert other.folder.name == "study-beside-b"
