"""Plans: what a study is going to train, how long that takes, and what its launch writes down."""

from __future__ import annotations

import json
import re

import pytest
from conftest import TINY, knobs_of
from program import claim_folder, inside, journals

from ablate.study.estimate import wall_seconds
from ablate.tasks.language_model import LANGUAGE_MODEL, estimate
from ablate.tasks.language_model.training import effort_of

QUIET = [*TINY, "tracking=off", "report=false"]


@pytest.fixture(autouse=True)
def _measured_in_a_blink(monkeypatch):
    """A plan measures for seconds what a window of each model takes; how long that is matters in none of these."""
    monkeypatch.setattr(estimate, "_CALLS", 2)


PRESETS = {
    "three_models": 3, "data_scaling": 12, "depth_dropout_tie": 18, "leave_one_out": 6, "cumulative": 6,
    "gnmt_depth": 7, "press_wolf": 4, "noise": 25,
}  # fmt: skip


def test_every_preset_of_a_study_is_tested():
    assert {path.stem for path in (LANGUAGE_MODEL.presets / "study").glob("*.yaml")} == {*PRESETS}


def planned(*arguments, folder):
    """Cell → state, and the lines after the table, as plan=true prints them."""
    code, out, err = inside(*arguments, "plan=true", folder=folder)
    assert (code, err) == (0, "")
    rows = [[text.strip() for text in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    return {row[0]: row[2] for row in rows}, out.splitlines()[len(rows) + 4 :]


@pytest.mark.parametrize(("preset", "count"), PRESETS.items())
def test_every_preset_composes_to_its_cells_and_a_plan_of_it_writes_nothing(preset, count, tmp_path):
    tiny = [
        override
        for override in TINY
        if preset != "data_scaling" or not override.startswith(("batch", "window=", "train"))
    ]
    tiny.remove("residual=false")  # a preset says it
    if preset == "press_wolf":  # a recipe that starts from uniform values, divides its rate, and counts epochs
        tiny = [
            override for override in tiny if override.partition("=")[0] not in ("init", "embedding_std", "schedule")
        ]
        tiny += ["epochs=null"]
    if preset == "data_scaling":
        tiny += ["batch=2", "window=2", "data.tokens=200000"]
    cells, lines = planned(f"+study={preset}", *tiny, folder=tmp_path)
    assert len(cells) == count
    assert set(cells.values()) == {"1 to train"}
    assert lines[0] == f"study {preset}: {count} cells, {count} trials: {count} to train"
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "reports").exists()


def test_a_preset_of_a_design_takes_another_model_and_other_knobs(tmp_path):
    cells, lines = planned("+study=leave_one_out", *TINY, "model=lstm", "residual=true", "depth=3", folder=tmp_path)
    assert list(cells) == ["full", "without gating", "without depth", "without residual"]
    assert "note: left out, dropout is off in the full model: without dropout" in lines


def test_a_component_of_ones_own_may_stand_in_a_preset_of_ones_own(tmp_path):
    (tmp_path / "mine" / "study").mkdir(parents=True)
    (tmp_path / "mine" / "study" / "clip.yaml").write_text(
        "# @package _global_\ndefaults: [override /design: leave_one_out]\n"
        "components:\n  clipping: clip=null\n  tying: {off: tie=false, requires: depth=1}\n"
    )
    cells, _ = planned("--config-dir", "mine", "+study=clip", *TINY, "model=lstm", "tie=true", folder=tmp_path)
    assert list(cells) == ["full", "without gating", "without tying", "without clipping"]


def test_a_plan_tells_what_is_done_what_goes_on_and_what_is_left(tmp_path):
    assert inside("depth=1", *QUIET, folder=tmp_path)[0] == 0
    folders = set(journals(tmp_path))
    assert inside("depth=2", *QUIET, folder=tmp_path)[0] == 0
    (second,) = set(journals(tmp_path)) - folders
    journal = claim_folder(second) / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if '"finished"' not in line))
    before = {path: path.read_bytes() for path in tmp_path.glob("runs/**/*") if path.is_file()}
    cells, text = planned("-m", "depth=1,2,3", *TINY, folder=tmp_path)
    assert cells["depth=1"] == "1 done"
    assert cells["depth=3"] == "1 to train"
    assert text[0] == "study depth: 3 cells, 3 trials: 1 done, 2 to train"
    assert re.match(r"about (< 1|\d+) s with workers=1, by [\d.e+]+ operations and 2 shapes of model measured", text[1])
    assert text[-1] == "nothing was trained; without plan=true it starts"
    assert {path: path.read_bytes() for path in tmp_path.glob("runs/**/*") if path.is_file()} == before


def test_a_plan_says_what_is_trained_again_and_why(tmp_path):
    assert inside("depth=1", "lr=0.01", "name=s", "seeds=2", *QUIET, folder=tmp_path)[0] == 0
    _, text = planned("depth=1", "lr=0.02", "name=s", "seeds=3", *TINY, folder=tmp_path)
    assert text[:2] == ["study s: 1 cell, 3 trials: 3 to train", "2 trials again: lr changed (0.01 → 0.02)"]


def test_a_plan_is_of_trials_together_where_they_train_together(tmp_path):
    cells, text = planned("-m", "depth=1,2", *TINY, "seeds=5", "pack=3", "workers=2", folder=tmp_path)
    assert set(cells.values()) == {"5 to train"}
    # Of each depth a pack of three and one of two: four shapes.
    how = "with workers=2, up to 3 trials as one program, by"
    assert re.match(rf"about (< 1|\d+) s {how} [\d.e+]+ operations and 4 shapes of model measured", text[1])


def test_a_launch_writes_down_its_design_its_components_and_every_factors_level(tmp_path):
    arguments = ["-m", "+study=leave_one_out", *QUIET, 'design.exclude=["tie=true & dropout=0"]']
    code, out, err = inside(*arguments, folder=tmp_path)
    assert (code, err) == (0, "")
    assert "note: left out, tie=true & dropout=0: without dropout" in out
    line, _ = (tmp_path / "runs/studies/leave_one_out.jsonl").read_text().splitlines()
    launched = json.loads(line)
    assert launched["design"] == {
        "kind": "leave_one_out",
        "components": ["gating", "depth", "dropout", "tying"],
        "left_out": [
            {"label": "without residual", "reason": "residual is off in the full model"},
            {"label": "without dropout", "reason": "tie=true & dropout=0"},
        ],
    }
    cells = {cell["label"]: cell for cell in launched["cells"]}
    assert list(cells) == ["full", "without gating", "without depth", "without tying"]
    assert cells["without depth"]["levels"] == {"rnn": "lstm", "depth": "1", "dropout": "0.5", "tie": "true"}
    assert cells["without depth"]["components"] == {
        "gating": True, "depth": False, "dropout": True, "tying": True, "residual": False, "forget_bias": False,
        "projection": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "design=leave_one_uot"], "design=leave_one_uot: no such preset; did you mean 'leave_one_out'?"),
        (["-m", "design=leave_one_uot,grid"], "design=leave_one_uot: no such preset; did you mean 'leave_one_out'?"),
        (["-m", 'design="leave_one_out,cumulative"'], "several go without quotes, -m design=leave_one_out,cumulative"),
        (
            ["-m", 'depth="1,2"'],
            "depth=1,2: must be a whole number at least 1 and at most 128; for example 2; the levels",
        ),
        (["-m", "tie=true,false", 'design.exclude=["tie=true && depth=1"]'], "joined by a single &"),
        (
            ["-m", "tie=true,false", "design.exclude=[tie=true & depth=1]"],
            """'design.exclude=["tie=true & depth=1"]'""",
        ),
        (["-m", "+components.clipping=clip=null"], """quote it twice, '+components.clipping="clip=null"'"""),
        (["-m", "design.componets=[tying]"], "unknown knob 'componets' of design; did you mean 'components'?"),
        (["-m", "depth=1,2", "hydra/sweeper=basic"], "all cells of a command are one study"),
        (["-m", "depth=1,2", "hydra/launcher=basic"], "workers=2 says in how many"),
        (["-m", "depth=1,2", "+hydra.launcher.n_jobs=2"], "workers=2 says in how many"),
        (["depth=1", "hydra.mode=RUN"], "hydra.mode=RUN: not in use here"),
        (["-m", "depth=1,2", "hydra.sweep.dir=elsewhere"], "in the folder that runs=… names"),
        (["+study=mine", "hydra.searchpath=[file://presets]"], "name a folder with yours by --config-dir FOLDER"),
        (["--config-name", "mine", "--config-dir", "."], "--config-name: not in use here; presets of your own"),
        (["depth=1", "hydra.run.dir=elsewhere"], "in the folder that runs=… names"),
        (["-m", "plan=true,false"], "a study has one plan"),
    ],
)
def test_a_newcomers_mistake_is_one_line_and_a_code_before_anything_is_trained(arguments, message, tmp_path):
    code, out, err = inside(*arguments, folder=tmp_path)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert not (tmp_path / "runs" / "trials").exists()


def test_the_arithmetic_of_a_trial_counts_the_matrices_that_each_token_meets():
    def effort(*overrides):
        return effort_of(knobs_of(*TINY, *overrides))

    tokens, words, h = 4 * 5, 30, 8
    assert effort("rnn=tanh").window == 6 * tokens * (2 * h * h + h * words)
    assert effort("rnn=lstm", "tie=true").window == 6 * tokens * (8 * h * h + h * words), "tied or not"
    assert effort("rnn=lstm", "depth=3").window == 6 * tokens * (3 * 8 * h * h + h * words)
    assert effort("rnn=tanh", "embedding=5").window == 6 * tokens * (h * 5 + h * h + h * words)
    one = effort("rnn=tanh")
    assert (one.windows, one.evaluations) == (40, 3), "two validations and the test"
    assert one.eval_windows == 3 * (599 // (2 * 5))
    assert one.eval_window == 2 * 2 * 5 * (2 * h * h + h * words)


def test_workers_take_the_next_trial_as_they_become_free():
    assert wall_seconds([3.0, 1.0, 1.0, 1.0], 1) == 6.0
    assert wall_seconds([3.0, 1.0, 1.0, 1.0], 2) == 3.0
    assert wall_seconds([], 4) == 0.0
