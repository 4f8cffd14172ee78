"""A user's own file on the command line: what its trials share, and what they must not."""

from __future__ import annotations

import re
import shlex

import pytest
from program import inside, journals

TASKS = """
import os
import tempfile
from dataclasses import dataclass, field
import torch
from typing import Annotated, Literal
from pydantic import BaseModel, Field
import ablate

class Optimizer(BaseModel):
    lr: float = 0.1
    momentum: float = 0.9

@dataclass
class Config:
    double: bool = False
    tags: set[str] = field(default_factory=lambda: {"a", "b", "c", "dd", "e"})
    optimizer: Optimizer = field(default_factory=Optimizer)
    layers: list[int] = field(default_factory=lambda: [8, 8])
    price: Annotated[float, Field(gt=0, description="in $ {price}")] = 2.5
    kind: Literal["cheap", "dear"] = "cheap"
    where: str = ""
    limit: int | None = None

class Constant(BaseModel):
    name: Literal["constant"] = "constant"

class Cosine(BaseModel):
    name: Literal["cosine"] = "cosine"
    floor: float = 0.1

@dataclass
class Scheduled:
    double: bool = False
    schedule: Annotated[Constant | Cosine, Field(discriminator="name")] = field(default_factory=Constant)

ERROR = ablate.Metric("error", unit="%")

@ablate.task(Scheduled, metric=ERROR)
def scheduled(config, run):
    return {"test_error": getattr(config.schedule, "floor", -1.0)}

@ablate.task(Config, metric=ERROR, components={"depth": "layers=[8]"})
def small(config, run):
    if config.double:
        torch.set_default_dtype(torch.float64)
    return {"test_error": float(torch.get_default_dtype() == torch.float64)}

@ablate.task(Config, metric=ERROR)
def big(config, run):
    return {"test_error": config.optimizer.lr}

@ablate.task(Config, metric=ERROR)
def edits(config, run):
    with open(__file__, "a") as file:
        file.write("# edited")
    os._exit(1)

@ablate.task(Config, metric=ERROR)
def moves(config, run):
    with open("seen.txt", "a") as file:
        file.write("here ")
    run.keep(state={})
    os.chdir(tempfile.mkdtemp(dir="."))
    for _ in run.epochs(2):
        run.log(valid_error=1.0)
    return {"test_error": config.optimizer.lr}

@ablate.task(Config, metric=ERROR)
def loads(config, run):
    loader = torch.utils.data.DataLoader(range(8), 4, collate_fn=lambda rows: sum(rows), num_workers=1)
    return {"test_error": float(sum(loader))}
"""
QUIET = ["report=false", "tracking=off", "workers=1"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tasks.py").write_text(TASKS)
    return tmp_path


def results(folder):
    """Knobs that are told apart → test error, of every trial that is finished."""
    ended = {path: events for path, events in journals(folder).items() if events[-1]["event"] == "finished"}
    return [
        (events[0]["knobs"]["double"], events[0]["knobs"]["optimizer.lr"], events[-1]["values"]["test_error"])
        for events in ended.values()
    ]


def test_two_tasks_of_one_file_have_results_of_their_own_and_the_same_command_trains_nothing_again(folder):
    for name in ("small", "big"):
        assert inside(f"task=tasks.py:{name}", *QUIET, folder=folder)[0] == 0
    assert sorted(results(folder)) == [(False, 0.1, 0.0), (False, 0.1, 0.1)]
    _, out, _ = inside("task=tasks.py:big", *QUIET, folder=folder)
    assert "finished before, not trained again" in out


def test_what_a_trial_sets_in_its_process_is_not_there_for_the_next(folder):
    code, _, err = inside("-m", "task=tasks.py:small", "double=true,false", *QUIET, folder=folder)
    assert (code, err) == (0, "")
    assert sorted(results(folder)) == [(False, 0.1, 0.0), (True, 0.1, 1.0)]


def test_a_function_that_changes_the_working_directory_loses_no_result_and_the_next_trial_starts_where_it_did(folder):
    code, _, err = inside("-m", "task=tasks.py:moves", "optimizer.lr=1,2", *QUIET, folder=folder)
    assert (code, err) == (0, "")
    assert sorted(results(folder)) == [(False, 1.0, 1.0), (False, 2.0, 2.0)]
    assert (folder / "seen.txt").read_text() == "here here "


def test_what_a_function_starts_is_started_as_in_a_plain_script_and_need_not_be_pickled(folder):
    code, out, err = inside("task=tasks.py:loads", *QUIET, folder=folder)
    assert (code, err) == (0, ""), out
    assert results(folder) == [(False, 0.1, 28.0)]


def test_a_level_of_several_values_leaves_the_others_at_their_defaults(folder):
    typed = ["-m", "task=tasks.py:big", "optimizer={lr:1.0},{momentum:0.1}"]
    code, _, err = inside(*typed, *QUIET, folder=folder)
    assert (code, err) == (0, "")
    assert sorted(results(folder)) == [(False, 0.1, 0.1), (False, 1.0, 1.0)]


def test_a_component_may_be_a_list_and_a_nested_knob_that_is_none_is_refused(folder):
    code, out, _ = inside("task=tasks.py:small", "design=leave_one_out", "plan=true", *QUIET, folder=folder)
    assert code == 0
    assert "without depth" in out
    code, _, err = inside("task=tasks.py:big", "+optimizer.lrr=5", *QUIET, folder=folder)
    assert (code, err) == (2, "ablate: optimizer.lrr=5: unknown knob; did you mean 'optimizer.lr'?\n")


def test_a_design_of_components_where_none_is_declared_says_how_one_is(folder):
    code, _, err = inside("task=tasks.py:big", "design=leave_one_out", "plan=true", *QUIET, folder=folder)
    assert code == 2
    assert err.startswith("ablate: design=leave_one_out: no component is declared; add components={")


def test_help_tells_the_default_and_the_range_of_every_knob_of_a_file(folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    code, out, _ = inside("task=tasks.py:big", "--help", folder=folder)
    assert code == 0
    lines = [re.sub(r"\s+", " ", line.strip()) for line in out.splitlines()]
    for line in (
        "double true or false; default false",
        "optimizer.lr a finite number; default 0.1",
        "layers a list of whole numbers; default [8,8]",
        "price in $ {price} (a finite number above 0; default 2.5)",
        "kind one of cheap, dear; default cheap",
        "where a text; default ''",
        "limit a whole number, or null; default null",
        "seed first seed (a whole number at least 0 and at most 2147483647; default 0)",
    ):
        assert line in lines, line
    # A set has no order: where its default stands in that of the example, once is enough.
    assert re.search(r"^  tags +a list(, for example \[a,b,c,dd,e\])?; default \[\S+\]$", out, re.M)
    assert re.search(r"^  design\.kind .*\(one of grid, .*, cells; default grid\)$", out, re.M)
    monkeypatch.setenv("COLUMNS", "300")
    _, out, _ = inside("task=tasks.py:scheduled", "--help", folder=folder)
    assert re.search(r"schedule=cosine: schedule\.floor\s+a finite number; default 0\.1", out)


def test_a_knob_of_another_kind_of_a_nested_record_is_told_with_what_chooses_it(folder):
    code, _, err = inside("task=tasks.py:scheduled", "schedule.floor=0.5", *QUIET, folder=folder)
    assert code == 2
    told = r"ablate: schedule\.floor: a knob of schedule=cosine, not of the schedule chosen here; use (.+)\n"
    remedy = shlex.split(re.fullmatch(told, err)[1])
    assert inside("task=tasks.py:scheduled", *remedy, *QUIET, folder=folder)[0] == 0
    (events,) = journals(folder).values()
    assert events[-1]["values"]["test_error"] == 0.5


def test_code_that_changes_while_a_study_runs_is_not_trained_under_the_old_name(folder):
    code, out, _ = inside("-m", "task=tasks.py:edits", "optimizer.lr=1,2", *QUIET, folder=folder)
    assert code == 1
    assert re.search(r"tasks.edits: its code has changed since the study was planned \(tasks.py\); start it again", out)
