"""Designs: which cells a study has, by which rule, and which of them are left out and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import combinations

import pytest
from conftest import TINY, knobs_of, values_of
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from program import ROOT

from ablate import compose, session
from ablate.compose import compose_jobs, plain_values
from ablate.knobs import KnobError, deciding, nameable
from ablate.knobs import values_of as condition_values
from ablate.launch import KINDS
from ablate.study.cells import Job
from ablate.study.components import declared
from ablate.study.conditions import read_condition
from ablate.study.designs import DESIGNS, Typed, jobs
from ablate.study.jobs import make_study
from ablate.study.plan import fingerprint
from ablate.study.records import space
from ablate.tasks.language_model import LANGUAGE_MODEL
from ablate.tasks.language_model.config import Config

KNOWN = nameable(Config)
QUIET = [*TINY, "tracking=off", "report=false"]


def typed(*overrides):
    """A command line as our sweeper reads it: a comma makes a factor, but not within brackets or quotes."""
    levels, factors = {}, []
    for override in overrides:
        key, _, value = override.partition("=")
        plain = value[:1] not in "[\"'{"
        levels[key] = value.split(",") if plain else [value]
        if plain and "," in value:
            factors.append(key)
    designs = levels.pop("design") if "design" in factors else ()
    return Typed(levels, [key for key in factors if key != "design"], designs)


def study_of(*overrides):
    """The study that a command line asks for, without the program around it."""
    found = jobs(typed(*TINY, *overrides), space(LANGUAGE_MODEL, lambda given: values_of(*given)))
    return make_study([Job(tuple(job), values_of(*job), asked) for job, asked in found])


def labels(*overrides):
    return [cell.label for cell in study_of(*overrides).cells]


def parts(cell):
    k = cell.config
    return k.rnn, k.depth, k.dropout, k.tie, k.residual


BETTER = ("lstm", 2, 0.5, True, False)


def test_leave_one_out_is_the_full_model_and_the_full_model_without_each_component_that_is_on():
    study = study_of("design=leave_one_out", "model=better_lstm")
    assert {cell.label: parts(cell) for cell in study.cells} == {
        "full": BETTER,
        "without gating": ("tanh", 2, 0.5, True, False),
        "without depth": ("lstm", 1, 0.5, True, False),
        "without dropout": ("lstm", 2, 0.0, True, False),
        "without tying": ("lstm", 2, 0.5, False, False),
    }
    assert study.record() == {
        "kind": "leave_one_out",
        "components": ["gating", "depth", "dropout", "tying"],
        "left_out": [
            {"label": f"without {name}", "reason": f"{name} is off in the full model"}
            for name in ("residual", "forget_bias", "projection")
        ],
    }
    assert study.name == "leave_one_out"


def test_a_part_that_does_nothing_in_the_full_model_is_not_taken_from_it():
    on = ("residual=true", "forget_bias=1")
    one_layer = study_of("design=leave_one_out", "model=lstm", *on)
    assert [cell.label for cell in one_layer.cells] == ["full", "without gating", "without forget_bias"]
    assert {"label": "without residual", "reason": "residual does nothing in the full model, where depth=1"} in (
        one_layer.record()["left_out"]
    )
    assert labels("design=leave_one_out", "model=lstm", *on, "depth=2")[-2:] == [
        "without residual", "without forget_bias",
    ]  # fmt: skip
    assert labels("design=leave_one_out", "model=rnn", *on, "depth=2") == ["full", "without depth", "without residual"]
    with pytest.raises(KnobError, match=r"residual does nothing in the full model, where depth=1 \(residual=false\)"):
        study_of("design=leave_one_out", "model=lstm", "design.components=[residual]", *on)


def test_a_part_is_not_added_to_a_model_in_which_it_does_nothing():
    on = ("model=better_lstm", "residual=true", "forget_bias=1")
    study = study_of("design=add_one_in", *on)
    assert [cell.label for cell in study.cells] == [
        "base", "only gating", "only depth", "only dropout", "only tying",
    ]  # fmt: skip
    reasons = {left["label"]: left["reason"] for left in study.record()["left_out"]}
    assert reasons["only residual"] == "residual alone does nothing, where depth=1"
    assert reasons["only forget_bias"] == "forget_bias alone does nothing, where rnn=tanh"
    assert labels("design=cumulative", *on)[-2:] == ["+ residual", "+ forget_bias"]
    with pytest.raises(KnobError, match=r"add it later, design.components=\[depth,residual\]"):
        study_of("design=cumulative", *on, "design.components=[residual,depth]")


def test_cumulative_goes_from_the_plainest_model_to_the_full_one_in_the_order_given():
    order = "design.components=[tying,gating,depth,dropout]"
    study = study_of("design=cumulative", "model=better_lstm", order)
    assert [(cell.label, *parts(cell)) for cell in study.cells] == [
        ("base", "tanh", 1, 0.0, False, False),
        ("+ tying", "tanh", 1, 0.0, True, False),
        ("+ gating", "lstm", 1, 0.0, True, False),
        ("+ depth", "lstm", 2, 0.0, True, False),
        ("+ dropout", *BETTER),
    ]
    assert study.components == ["tying", "gating", "depth", "dropout"]
    assert study.left_out == []


def test_add_one_in_is_the_plainest_model_and_each_component_alone():
    study = study_of("design=add_one_in", "model=better_lstm", "design.components=[dropout,tying]")
    assert [(cell.label, *parts(cell)) for cell in study.cells] == [
        ("base", "lstm", 2, 0.0, False, False),
        ("only dropout", "lstm", 2, 0.5, False, False),
        ("only tying", "lstm", 2, 0.0, True, False),
    ]


def test_one_factor_varies_each_factor_by_itself_from_the_baseline_which_comes_first():
    study = study_of("design=one_factor", "depth=1,2,4", "tie=true,false", "dropout=0.2")
    assert [(c.label, c.config.depth, c.config.tie, c.config.dropout) for c in study.cells] == [
        ("baseline", 1, False, 0.2), ("depth=2", 2, False, 0.2), ("depth=4", 4, False, 0.2), ("tie=true", 1, True, 0.2),
    ]  # fmt: skip
    assert study.cells[0].levels == {"depth": "1", "tie": "false"}
    assert study.cells[3].levels == {"depth": "1", "tie": "true"}
    assert study.name == "one_factor-depth-tie"


def test_in_a_latin_square_every_two_levels_of_two_factors_meet_once():
    study = study_of("design=latin_square", "depth=1,2,3,4", "dropout=0,0.1,0.2,0.3", "hidden=4,8,16,32", "lr=0.5")
    levels = [(c.config.depth, c.config.dropout, c.config.hidden) for c in study.cells]
    assert len(levels) == 16
    for one, other in combinations(range(3), 2):
        assert len({(cell[one], cell[other]) for cell in levels}) == 16
    assert study.cells[1].label == "depth=1 dropout=0.1 hidden=8"
    assert study.name == "latin_square-depth-dropout-hidden"
    assert study.record()["kind"] == "latin_square"


def test_a_sweep_over_seed_gives_replicates_in_every_design():
    factors = {"one_factor": ["depth=1,2"], "latin_square": ["depth=1,2", "dropout=0,0.5", "lr=0.1,0.2"]}
    for design in ("one_factor", "latin_square", "leave_one_out", "cumulative"):
        depth = factors.get(design, ["model=better_lstm"])
        by_sweep, by_count = (study_of(f"design={design}", *depth, seeds).cells for seeds in ("seed=0,1", "seeds=2"))
        assert [(c.label, c.seeds) for c in by_sweep] == [(c.label, c.seeds) for c in by_count]
        assert {cell.seeds for cell in by_sweep} == {(0, 1)}
    assert labels("design=leave_one_out", "model=lstm", "lr=0.1,0.1") == ["full", "without gating"]


def test_cells_can_be_listed_one_by_one():
    study = study_of("design=cells", 'design.cells=["depth=1 tie=True","depth=2 dropout=0.5"]', "seeds=2")
    assert [cell.label for cell in study.cells] == ["depth=1 tie=true", "depth=2 dropout=0.5"]
    assert study.cells[1].levels == {"depth": "2", "tie": "false", "dropout": "0.5"}
    assert study.cells[1].seeds == (0, 1)
    assert study.name == "cells"


def test_two_designs_together_have_each_configuration_once():
    study = study_of("design=leave_one_out,cumulative", "model=better_lstm")
    assert [cell.label for cell in study.cells] == [
        "full", "without gating", "without depth", "without dropout", "without tying", "base", "+ gating", "+ depth",
    ]  # fmt: skip
    assert study.record()["kind"] == "leave_one_out+cumulative"
    assert study.name == "leave_one_out-cumulative"


def test_a_design_of_components_is_made_at_each_level_of_any_other_factor():
    found = labels(
        "design=leave_one_out", "model=rnn,better_lstm", "lr=0.1,0.01", "design.components=[tying]", "tie=true"
    )
    assert found == [f"model={m} lr={lr} {what}" for m in ("rnn", "better_lstm") for lr in ("0.1", "0.01")
                     for what in ("full", "without tying")]  # fmt: skip
    with pytest.raises(KnobError, match="depth: design=leave_one_out varies it, as the component depth"):
        study_of("design=leave_one_out", "model=better_lstm", "depth=1,2")
    assert len(labels("design=leave_one_out", "model=better_lstm", "depth=2,3", "design.components=[tying]")) == 4


def test_every_cell_says_which_declared_components_are_on_and_every_factors_level():
    study = study_of("depth=1,2", "tie=true,false")
    assert study.cells[2].levels == {"depth": "2", "tie": "true"}
    assert study.cells[2].components == {
        "gating": True, "depth": True, "dropout": False, "tying": True, "residual": False, "forget_bias": False,
        "projection": False,
    }  # fmt: skip
    assert study.record() == {"kind": "grid", "components": [], "left_out": []}


def test_a_component_is_added_in_one_line_and_is_in_every_design():
    clipping = '+components.clipping="clip=null"'
    assert labels("design=leave_one_out", "model=better_lstm", clipping)[-1] == "without clipping"
    cumulated = study_of("design=cumulative", "model=better_lstm", clipping)
    assert [cell.config.clip for cell in cumulated.cells] == [None] * 5 + [0.25]
    several = study_of("design=add_one_in", "model=lstm", '+components.steps={off:"lr=1 decay=null",requires:"lr<2"}')
    assert several.cells[-1].label == "only steps"
    assert several.cells[0].config.lr == 1.0


def test_a_component_with_rules_leaves_cells_out_and_says_why():
    study = study_of("tie=true,false", "embedding=8,9")
    assert [cell.label for cell in study.cells] == [
        "tie=true embedding=8",
        "tie=false embedding=8",
        "tie=false embedding=9",
    ]
    assert study.record()["left_out"] == [
        {"label": "tie=true embedding=9", "reason": "tying requires embedding=hidden"}
    ]
    excludes = '+components.clipping={off:"clip=null",excludes:"tie=true"}'
    study = study_of("design=cumulative", "model=better_lstm", "design.components=[clipping,tying]", excludes)
    assert [cell.label for cell in study.cells] == ["base", "+ clipping"]
    assert [left.reason for left in study.left_out] == ["clipping excludes tie=true"]


def test_a_cell_asked_for_alone_that_breaks_a_rule_is_an_error_and_so_is_a_study_of_such_cells():
    message = "tie=true embedding=9 hidden=8: tying needs embedding = hidden; use embedding=8, or tie=false"
    for more in ((), ("depth=1,2",)):
        with pytest.raises(KnobError) as caught:
            study_of("tie=true", "embedding=9", *more)
        assert caught.value.problems == (message,)
    with pytest.raises(KnobError, match=r"depth=2: clipping requires depth=1, which does not hold"):
        study_of("depth=2,3", '+components.clipping={off:"clip=null",requires:"depth=1"}')


def test_excluded_cells_are_left_out_with_the_condition_as_the_reason():
    study = study_of("residual=true,false", "depth=1,2", 'design.exclude=["residual=true & depth=1"]')
    assert [cell.label for cell in study.cells] == ["residual=true depth=2", "residual=false depth=1",
                                                     "residual=false depth=2"]  # fmt: skip
    assert study.record()["left_out"] == [{"label": "residual=true depth=1", "reason": "residual=true & depth=1"}]
    with pytest.raises(KnobError, match="leaves no cell"):
        study_of("depth=1,2", 'design.exclude=["depth<3"]')


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("tie=true", True), ("tie!=true", False), ("dropout=0.5", True), ("dropout>0.4 & depth<=2", True),
        ("embedding=hidden", True), ("embedding!=hidden", False), ("hidden>depth", True), ("rnn=lstm", True),
        ("model=better_lstm", True), ("model=rnn", False), ("data=synthetic", True), ("data.vocab_size<31", True),
        ("data.path=x", False), ("epochs<5", False), ("epochs=null", True), ("clip=0.25", True), ("lr>=0.002", True),
    ],
)  # fmt: skip
def test_a_condition_is_evaluated_on_the_resolved_knobs(condition, holds):
    knobs = knobs_of(*TINY, "model=better_lstm")
    assert read_condition(condition, "design.exclude", KNOWN).holds(condition_values(knobs)) is holds


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("tie=true && depth=1", "cannot be read; a condition is comparisons"),
        ("tie=true, depth=1", "cannot be read"),
        ("tie=true and depth=1", "cannot be read"),
        ("tie=true | depth=1", "cannot be read"),
        ("tie==true", "cannot be read"),
        ("tie", "cannot be read"),
        ("", "cannot be read"),
        ("tei=true", "unknown knob 'tei'; did you mean 'tie'?"),
        ("embedding!=hiden", "hiden is no level of embedding and no knob; did you mean 'hidden'?"),
        ("rnn=lstmm", "lstmm is no level of rnn and no knob; did you mean"),
        ("depth=0", "0 is no level of depth and no knob; depth must be a whole number at least 1"),
        ("tie>false", "tie has no order; compare it with = or !="),
        ("seeds=3", "unknown knob 'seeds'"),
    ],
)
def test_a_condition_that_cannot_be_is_refused_with_what_works(condition, message):
    with pytest.raises(KnobError) as caught:
        read_condition(condition, "design.exclude", KNOWN)
    assert message.split("; did you mean")[0] in str(caught.value)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["design=leave_one_out", "model=rnn"],
            "has no component to vary: gating is off in the full model (rnn=tanh)",
        ),
        (["design=one_factor"], "none is given; add one, depth=1,2,4"),
        (
            ["design=latin_square", "depth=1,2,4", "lr=0.1,0.3"],
            "takes three factors with equally many levels, and given is depth with 3, lr with 2; for example",
        ),
        (["design=cells"], """names no cells; for example 'design.cells=["depth=1 tie=true","depth=2"]'"""),
        (["design=cells", 'design.cells=["dpeth=1"]'], "unknown knob 'dpeth'; did you mean 'depth'?"),
        (["design=cells", 'design.cells=["data.vocabsize=9"]'], "unknown knob 'vocabsize' of data"),
        (["design=cells", 'design.cells=["depth"]'], "depth is no override"),
        (
            ["design=cells", 'design.cells=["depth=1,2 tie=true"]'],
            "a cell has one level of depth; write a cell for each",
        ),
        (["design=cells", 'design.cells=["depth=1"]', "depth=2,4"], "design.cells sets depth too"),
        (['design.cells=["depth=1"]'], "not used by design=grid; add design=cells"),
        (["design.components=[tying]"], "not used by design=grid; choose one of leave_one_out"),
        (["design=leave_one_out", "design.components=[dropuot]"], "no component 'dropuot'; did you mean 'dropout'?"),
        (["design=leave_one_out", 'design.components="dropout,tying"'], "must be a list, for example [dropout,tying]"),
        (["+study=three_models,data_scaling"], "a study has one study"),
        (["design=leave_one_out", "model=lstm", '+components.b="rnn=tanh"'], "components gating and b both set rnn"),
    ],
)
def test_a_newcomers_mistake_is_told_with_what_works(overrides, message):
    with pytest.raises(KnobError) as caught:
        study_of(*overrides)
    assert len(caught.value.problems) == 1
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ("rnnn=tanh", "components.x=rnnn=tanh: unknown knob 'rnnn'; did you mean 'rnn'?"),
        ("depth=0", "components.x=depth=0: depth must be a whole number at least 1"),
        ("rnn=tahn", "rnn must be one of lstm, tanh; did you mean 'tanh'?"),
        ("", "components.x: needs the override that switches it off"),
        (None, "components.x: needs the override that switches it off"),
        (
            {"off": "tie=false", "require": "depth=1"},
            "require is none of off, requires, excludes, idle; did you mean 'requires'?",
        ),
        ({"off": "tie=false", "requires": "embeding=hidden"}, "unknown knob 'embeding'; did you mean 'embedding'?"),
        ({"off": "tie=false", "requires": 3}, "components.x.requires=3 is no condition"),
    ],
)
def test_a_component_that_cannot_be_is_refused_with_what_works(declaration, message):
    with pytest.raises(KnobError) as caught:
        declared({"x": declaration}, KNOWN)
    assert len(caught.value.problems) == 1
    assert message in str(caught.value)
    with pytest.raises(KnobError, match="a component's name is of letters, digits and _"):
        declared({"my part": "depth=1"}, KNOWN)


@pytest.mark.parametrize("off", ["tie=false", "tie=False", 'model="plain"', "model='plain'", "dropout=.0"])
def test_a_component_is_off_at_its_level_however_that_is_written(off):
    part = declared({"x": off}, KNOWN)["x"]
    assert not part.is_on({"tie": False, "model": "plain", "dropout": 0.0})
    assert part.is_on({"tie": True, "model": "fancy", "dropout": 0.5})


def test_a_level_has_one_form_and_one_fingerprint_however_it_is_typed():
    preset, spelled = knobs_of("model=lstm"), knobs_of("model=rnn", "rnn=lstm", "dropout=0", "lr=3e-3")
    assert json.dumps(deciding(preset)) == json.dumps(deciding(spelled))
    assert fingerprint("lm", deciding(preset), 0, "d", "c") == fingerprint("lm", deciding(spelled), 0, "d", "c")
    assert isinstance(knobs_of("recipe=book", "schedule=plateau", "lr=1", "clip=1", "decay=2").lr, float)
    assert isinstance(knobs_of("depth=3").depth, int)
    assert labels("dropout=0,0.0,0.5") == ["dropout=0", "dropout=0.5"]


def test_a_composed_copy_is_what_hydra_composes():
    asked = [
        ["+study=gnmt_depth", f"model={model}", f"depth={depth}", "embedding=${hidden}", f"hidden={hidden}",
         "name='a b'", '+design.new={x: ["y"]}']
        for model in ("rnn", "lstm") for depth in (1, 2) for hidden in (8, 16)
    ]  # fmt: skip
    with initialize_config_dir(str(LANGUAGE_MODEL.presets), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", ["+study=gnmt_depth"], run_mode=RunMode.MULTIRUN)
        ours = [job.values for job in compose_jobs(loader, master, [(overrides, None) for overrides in asked])]
        theirs = [plain_values(loader.load_sweep_config(master, overrides)) for overrides in asked]
    assert ours == theirs
    assert ours[0]["embedding"] == 8


@pytest.mark.parametrize(
    ("overrides", "compositions"),
    [
        (["depth=1,2", "tie=true,false", "hidden=9", "lr=1", "lr=2"], 1),
        (["model=lstm", "data=text", "data.path='a b'", "seeds=3", "+components.wide.off='hidden=8'"], 1),
        (["+study=gnmt_depth", "recipe=book", "embedding=${hidden}", "hidden=8,16", "~components.tying"], 2),
        (["model=rnn,lstm", "hidden=9", "name='x y'"], 3),  # one that says how to sweep, and one for each
    ],
)
def test_hydra_composes_the_files_of_a_command_once_and_its_values_are_set_as_hydra_does(
    overrides, compositions, monkeypatch
):
    calls, load = [], ConfigLoaderImpl.load_configuration
    monkeypatch.setattr(
        ConfigLoaderImpl, "load_configuration", lambda *given, **named: calls.append(1) or load(*given, **named)
    )
    with session._without_hydra():
        found = session._jobs(LANGUAGE_MODEL, overrides, None)
    assert len(calls) == compositions
    assert [job.values for job in found] == [compose.values_of(LANGUAGE_MODEL, job.overrides) for job in found]


@pytest.mark.parametrize(
    ("design", "base"), [("leave_one_out", "full"), ("add_one_in", "base"), ("cumulative", "base")]
)
def test_a_design_without_the_cell_that_its_others_are_compared_with_is_refused(design, base):
    tie = {
        "leave_one_out": "tie=true & depth=2 & dropout=0.5 & rnn=lstm",
        "add_one_in": "tie=false & depth=1 & rnn=tanh",
    }
    asked = f'design.exclude=["{tie.get(design, tie["add_one_in"])} & dropout=0.5"]'
    if design != "leave_one_out":
        asked = asked.replace("dropout=0.5", "dropout=0")
    with pytest.raises(KnobError, match=f"{base}: left out .*, and the other cells of the design are compared with it"):
        study_of("model=better_lstm", "forget_bias=0", f"design={design}", asked)


def test_at_a_level_where_a_whole_design_is_left_out_nothing_is_wrong():
    asked = ["model=better_lstm", "design=leave_one_out", "hidden=8,16", 'design.exclude=["hidden=16"]']
    assert {label.partition(" ")[0] for label in labels(*asked)} == {"hidden=8"}


def test_designs_load_neither_torch_nor_hydra(tmp_path):
    code = "import sys, ablate.study.designs, ablate.study.cells; assert not {'torch', 'hydra'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path)
    assert done.returncode == 0


def test_every_design_that_can_be_asked_for_has_cells_and_a_preset():
    presets = {path.stem for path in (ROOT / "ablate" / "conf" / "design").glob("*.yaml")}
    assert {*KINDS} == {*DESIGNS} == presets
