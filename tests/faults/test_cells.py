"""One cell that breaks leaves the others alone, and the study says which broke, how, and where its log is."""

from __future__ import annotations

import re
import shutil
import sys

import pandas as pd
import pytest
from conftest import TINY
from program import inside, journals
from written import assert_same

from ablate.analyze.differs import code_in_common, confounds_between
from ablate.tasks.language_model.own_parts import check_layer, check_optimizer
from ablate.track.folder import Folder
from ablate.track.mlflow.store import Store
from ablate.track.read import read_study

LAYERS = """
import ctypes, os, sys, torch
from ablate.tasks.language_model.model.layers import TanhLayer

class Raises(TanhLayer):
    def forward(self, x_TBD, state):
        raise RuntimeError("no $ig_nal | <here>")

class Exits(TanhLayer):
    def forward(self, x_TBD, state):
        print("about to leave")
        sys.exit(0)

class Crashes(TanhLayer):
    def forward(self, x_TBD, state):
        ctypes.string_at(0)

class NotANumber(TanhLayer):
    calls = 0
    def forward(self, x_TBD, state):
        h_TBH, state = super().forward(x_TBD, state)
        if self.training:
            self.calls += 1
        return (h_TBH * float("nan") if self.calls == 33 else h_TBH), state

class Infinite(TanhLayer):
    def forward(self, x_TBD, state):
        h_TBH, state = super().forward(x_TBD, state)
        return h_TBH * float("inf"), state

class Healthy(TanhLayer):
    pass
"""
POINTS = {name.lower(): name for name in ("Raises", "Exits", "Crashes", "NotANumber", "Infinite", "Healthy")}
STUDY = ["-m", f"rnn={','.join(POINTS)},tanh", *TINY]


@pytest.fixture(scope="module")
def study(tmp_path_factory, empty_store):
    """A study of five cells that break, each in its own way, and two that do not."""
    # Layers of the user's own, registered by the entry points of an installed distribution.
    folder = tmp_path_factory.mktemp("cells")
    (folder / "runs").mkdir()
    shutil.copy(empty_store, folder / "runs")
    (folder / "mylayers.py").write_text(LAYERS)
    info = folder / "mylayers-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: mylayers\nVersion: 1\n")
    lines = [f"{name} = mylayers:{kind}" for name, kind in POINTS.items()]
    (info / "entry_points.txt").write_text("\n".join(["[ablate.rnn]", *lines, ""]))
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(folder)
        yield folder, inside(*STUDY, folder=folder)
        sys.modules.pop("mylayers", None)


def analysed(results):
    return results.trials.assign(code=code_in_common(results.trials, results.sources))


@pytest.fixture
def own_parts(tmp_path, monkeypatch):
    """Registers layers and optimisers of an installed module, name → "module:attribute"."""

    def register(source="", group="rnn", **points):
        (tmp_path / "parts_of_ones_own.py").write_text(source)
        info = tmp_path / "parts-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Name: parts\nVersion: 1\n")
        lines = [f"{name} = {point}" for name, point in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[ablate.{group}]", *lines, ""]))
        monkeypatch.syspath_prepend(tmp_path)

    yield register
    sys.modules.pop("parts_of_ones_own", None)
    check_layer.cache_clear()
    check_optimizer.cache_clear()


def last_event(folder, cell):
    by_rnn = {events[0]["knobs"]["rnn"]: events for events in journals(folder).values()}
    return by_rnn[cell][-1]


def test_the_healthy_cell_has_its_result_and_the_code_is_1(study):
    folder, (code, out, err) = study
    assert (code, err) == (1, "")
    assert "rnn=tanh · seed 0: valid" in out
    table = pd.read_csv(folder / "reports" / "rnn" / "comparison.csv").set_index("cell")
    assert dict(table["n"]) == {f"rnn={name}": int(name in ("healthy", "tanh")) for name in (*POINTS, "tanh")}


def test_an_exception_is_listed_with_its_reason_and_its_log(study):
    folder, (_, out, _) = study
    assert "rnn=raises seed 0: FAILED RuntimeError: no $ig_nal | <here> · log: runs/trials/" in out
    log = re.search(r"<here> · log: (runs/trials/\w+/trial\.log)", out).group(1)
    assert "Traceback" in (folder / log).read_text()
    page = (folder / "reports" / "rnn" / "index.html").read_text()
    assert "&lt;here&gt;" in page
    assert "<here>" not in page


def test_sys_exit_ends_its_own_trial_and_not_the_study(study):
    folder, (_, out, _) = study
    assert "rnn=exits seed 0: FAILED SystemExit: 0" in out
    assert "about to leave" not in out
    log = re.search(r"SystemExit: 0 · log: (runs/trials/\w+/trial\.log)", out).group(1)
    assert "about to leave" in (folder / log).read_text()


def test_a_crash_in_c_code_is_listed_with_the_place_in_its_log(study):
    folder, (_, out, _) = study
    assert "rnn=crashes seed 0: FAILED the worker process was killed (SIGSEGV)" in out
    log = re.search(r"SIGSEGV\) · log: (runs/trials/\w+/trial\.log)", out).group(1)
    assert "Segmentation fault" in (folder / log).read_text()
    assert "mylayers.py" in (folder / log).read_text()


def test_a_loss_that_is_no_number_is_a_result_with_its_window_and_no_average(study):
    folder, (_, out, _) = study
    assert "rnn=notanumber · seed 0: DIVERGED at window 33" in out
    assert "rnn=infinite · seed 0: DIVERGED at window 1:" in out
    assert "rnn=notanumber seed 0: DIVERGED the loss was no finite number at window 33" in out
    assert last_event(folder, "notanumber")["diverged_at"] == 33
    table = pd.read_csv(folder / "reports" / "rnn" / "comparison.csv").set_index("cell")
    assert table.loc[["rnn=infinite", "rnn=notanumber"], "test_mean"].isna().all()


def test_the_study_is_the_same_from_its_journals_and_from_mlflow(study):
    folder, _ = study
    journals = read_study(Folder(folder / "runs"))
    assert list(journals.trials["status"]) == ["FAILED"] * 3 + ["DIVERGED"] * 2 + ["FINISHED"] * 2
    assert journals.trials.loc[0, "reason"] == "RuntimeError: no $ig_nal | <here>"
    assert_same(journals, read_study(Store(f"sqlite:///{folder}/runs/mlflow.db")))


def test_a_layer_of_ones_own_is_the_part_that_differs_and_no_other_code(study):
    folder, (_, out, _) = study
    results = read_study(Folder(folder / "runs"))
    assert results.trials["code"].nunique() == 2
    assert any("mylayers.py" in files for versions in results.sources for files in versions.values())
    assert "by the same code" not in out
    told = confounds_between(results.task, analysed(results), "rnn=healthy", "rnn=tanh")
    assert not [what for what, _, _ in told if what == "code"]


def test_code_that_cells_have_in_common_is_told_apart_and_so_are_two_versions_of_a_layer():
    trials = pd.DataFrame({"cell": ["a", "b", "c"], "code": ["1", "2", "3"]})
    core, layer = {"core.py": "x"}, {"mine.py": "y"}
    assert code_in_common(trials, [{"1": core, "2": core | layer, "3": core | layer}]).nunique() == 1
    assert code_in_common(trials, [{"1": core, "2": core | layer, "3": core | {"mine.py": "z"}}]).nunique() == 3
    assert code_in_common(trials, [{"1": core, "2": core, "3": {"core.py": "z"} | layer}]).nunique() == 2
    assert list(code_in_common(trials, [])) == ["1", "2", "3"]


def test_a_file_that_one_study_has_and_another_has_not_is_other_code_unless_a_factor_of_one_chooses_it():
    trials = pd.DataFrame({"cell": ["a", "b", "c"], "code": ["1", "2", "3"]})
    core = {"core.py": "x"}
    assert code_in_common(trials, [{"1": core | {"a.py": "y"}}, {"2": core | {"b.py": "z"}}]).nunique() == 3
    mixed = {"1": core, "2": core | {"mine.py": "y"}}
    assert code_in_common(trials, [mixed, {"3": core | {"mine.py": "y"}}]).nunique() == 1


def test_what_diverged_stands_and_what_failed_is_tried_again(study):
    folder, _ = study
    before = {path: len(events) for path, events in journals(folder).items()}
    code, out, _ = inside(*STUDY, "tracking=off", "report=false", folder=folder)
    assert code == 1
    assert out.count("finished before, not trained again") == 4
    again = {events[0]["knobs"]["rnn"] for path, events in journals(folder).items() if len(events) > before[path]}
    assert again == {"raises", "exits", "crashes"}


def test_absurd_learning_rates_diverge_or_are_infinite_and_the_others_stand(tmp_path):
    arguments = ["-m", *TINY, "lr=0.01,1e9,1e38", "optimizer=sgd", "clip=null", "embedding_std=1e9", "tracking=off"]
    code, out, err = inside(*arguments, folder=tmp_path)
    assert (code, err) == (1, "")
    assert "lr=1e+38 · seed 0: DIVERGED at window" in out
    assert "lr=1000000000.0 · seed 0: valid over 1,000,000" in out
    assert "lr=0.01 · seed 0: valid" in out


_LAYER = """
from torch import nn

class Layer(nn.Module):
    def __init__(self, {made_of}):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, {called_with}):
        raise RuntimeError

    def fan_in(self):
        return {fan_in}
"""
_RIGHT = {"made_of": "size, hidden", "called_with": "x, state", "fan_in": {"linear.weight": 3}}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"made_of": "size"}, r"rnn=own: cannot be made as Layer\(input_size, hidden_size\): .* 2 positional"),
        ({"called_with": "x"}, r"rnn=own: forward\(x_TBD, state\) cannot be called: too many positional arguments"),
        ({"fan_in": {"weight": 3}}, r"rnn=own: fan_in\(\) must give .* \(linear\.weight, linear\.bias\), by name"),
    ],
)
def test_a_layer_without_the_interface_is_refused_before_anything_trains(wrong, message, tmp_path, own_parts):
    own_parts(_LAYER.format(**_RIGHT | wrong), own="parts_of_ones_own:Layer")
    code, out, err = inside("-m", "rnn=lstm,own", *TINY, folder=tmp_path)
    assert (code, out) == (2, "")
    assert re.search(message, err)
    assert not (tmp_path / "runs" / "trials").exists()


@pytest.mark.parametrize(
    ("group", "point", "message"),
    [
        ("rnn", "no_such_module:Layer", "rnn=own: its entry point 'no_such_module:Layer' cannot be imported"),
        ("rnn", "parts_of_ones_own:Layr", "rnn=own: its entry point 'parts_of_ones_own:Layr' cannot be imported"),
        ("rnn", "sys:path", "rnn=own: must be a class of torch.nn.Module"),
        ("optimizer", "no_such_module:adam", "optimizer=own: its entry point 'no_such_module:adam' cannot be imported"),
        ("optimizer", "sys:path", "optimizer=own: must be a function (parameters, lr)"),
    ],
)
def test_an_entry_point_that_leads_nowhere_is_refused_before_anything_trains(
    group, point, message, tmp_path, own_parts
):
    own_parts(group=group, own=point)
    code, out, err = inside("-m", f"{group}=own", *TINY, folder=tmp_path)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
