# ruff: noqa: NPY002 (users' code draws from NumPy's global generator)
"""What a function of one's own keeps, logs and returns."""

from __future__ import annotations

import io
import pickle
import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path

import numpy as np
import pytest
import torch
from own_task import ERROR, Config, Killed, Trained, does, resumes_equal, returns
from torch import nn

import ablate
from ablate.functions import state as states
from ablate.functions import watch
from ablate.functions.fit import Diverged
from ablate.functions.state import RunError
from ablate.knobs import KnobError
from ablate.train import Checkpoints

# --- what can be kept -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, 0.5, "a", None, True, (1, 2), np.float32(1), Path("a"), frozenset()])
def test_keep_refuses_plain_values_and_says_that_they_go_into_a_dict(value):
    with pytest.raises(RunError, match=r'put it into a dict, counters = \{"best": …\}'):
        does(lambda run: run.keep(best=value)).run()


@pytest.mark.parametrize("inside", [object(), nn.Linear(1, 1), defaultdict(int), lambda: 0, np.array([None])])
def test_keep_refuses_what_would_not_load_again_and_names_where_it_is(inside):
    with pytest.raises(RunError, match=r"things\['deep'\]"):
        does(lambda run: run.keep(things={"deep": {"a": inside}})).run()


def test_what_is_kept_once_is_kept_by_one_name_and_before_the_loop():
    def late(run):
        for _ in run.epochs(1):
            run.keep(counters={})

    with pytest.raises(RunError, match="keep: call it before the loop starts"):
        does(late).run()
    with pytest.raises(RunError, match="model is kept already"):
        does(lambda run: (run.keep(model={}), run.keep(model=[]))).run()


def test_a_function_has_one_loop():
    with pytest.raises(RunError, match=r"run\.epochs: a function has one loop, and run\.steps was called before"):
        does(lambda run: list(run.steps(2))).run()
    with pytest.raises(RunError, match=r"run\.steps\(2\.5\): must be a whole number"):
        does(lambda run: run.steps(2.5)).run()


def test_a_state_is_encoded_so_that_it_loads_without_running_code():
    module = nn.BatchNorm1d(3)
    value = {
        "plain": [None, True, 1, 2**70, 0.1, float("inf"), 1 + 2j, "a", b"b"],
        "tuple": (1, (2, [3])), "set": {1, 2}, 4: "key",
        "numpy": [np.float32(0.1), np.int64(3), np.arange(6).reshape(2, 3)[:, ::2], np.array(["a"]), np.bool_(1)],
        "torch": [torch.ones(2, dtype=torch.bfloat16), torch.Size([1, 2]), torch.float32, torch.device("cpu")],
        "more": [OrderedDict(a=1), Counter("aab"), deque([1, 2, 3], maxlen=4), frozenset([1]), Path("x/y")],
        "state": module.state_dict(), "random": random.getstate(), "legacy": np.random.get_state(legacy=False),
    }  # fmt: skip
    saved = pickle.loads(pickle.dumps(states.encode(value)))
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    buffer.seek(0)
    found = states.decode(torch.load(buffer, weights_only=True))
    assert watch.digest_state(states.encode(found)) == watch.digest_state(states.encode(value))
    assert [type(each) for each in found["more"]] == [OrderedDict, Counter, deque, frozenset, type(Path())]
    assert found["more"][2].maxlen == 4
    assert type(found["numpy"][0]) is np.float32
    assert found["state"]._metadata == module.state_dict()._metadata


def test_an_object_without_a_state_is_said_once_and_the_trial_starts_again(tmp_path, capsys):
    class Trees:
        pass

    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        run.keep(trees=Trees())
        for _ in run.epochs(3):
            run.log(valid_error=1)
        return {"test_error": 1}

    Trained(tmp_path, train).train()
    out = capsys.readouterr().out
    assert out.count("after a kill this trial starts from the beginning") == 1
    assert not list(tmp_path.glob("state-*"))


def test_a_function_without_a_loop_says_that_it_starts_from_the_beginning(tmp_path, capsys):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        run.log(valid_error=np.float64(2))
        return {"test_error": np.float64(1), "trees": 7}

    outcome = Trained(tmp_path, train).train()
    assert "never asked for run.epochs or run.steps" in capsys.readouterr().out
    assert (outcome.status, outcome.steps, outcome.values["trees"]) == ("FINISHED", 0, 7.0)


def test_an_early_end_of_the_loop_resumes_to_the_same_end(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        counters = {"bad": 0}
        model = nn.Linear(6, 2)
        run.keep(counters=counters, model=model)
        run.keep_best(model=model)
        for epoch in run.epochs(9):
            with torch.no_grad():
                model.weight += 1
            if not run.log(valid_error=abs(epoch - 2)):
                counters["bad"] += 1
            if counters["bad"] == 3:
                break
        run.load_best()
        return {"test_error": model.weight.sum().item()}

    _, outcome = resumes_equal(tmp_path, train, saves=5)
    assert (outcome.steps, outcome.best_step) == (6, 3)


def test_a_variable_of_the_loop_after_the_last_checkpoint_is_named_with_a_remedy(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        for epoch in run.epochs(2):
            valid = float(epoch)
            run.log(valid_error=valid)
        return {"test_error": valid}

    trained = Trained(tmp_path, train)
    with pytest.raises(Killed):
        trained.train(stop_after=2)
    with pytest.raises(RunError, match=r"'valid'.*resumed after its last checkpoint.*set the variable before the loop"):
        trained.train(resumes=True)


# --- initial values ---------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, extra: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.extra = nn.Linear(16, 16) if extra else None
        self.lstm = nn.LSTM(16, 16)
        self.norm = nn.LayerNorm(16)
        self.out = nn.Linear(16, 20)


def test_initial_values_follow_from_the_name_whatever_is_drawn_before():
    found = []

    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        model = Net(extra=config.width == 1)
        run.initial_values(model)
        found.append({name: tensor.clone() for name, tensor in model.named_parameters()})
        return {"test_error": torch.rand(()).item()}

    after = [train.run(width=1)["test_error"], train.run(width=2)["test_error"], train.run(seed=1)["test_error"]]
    both = found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in both)
    assert not torch.equal(found[0]["out.weight"], found[2]["out.weight"])
    assert after[0] == after[1]


def test_initial_values_keep_a_scheme_of_the_models_own():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)
            self.apply(self.init)

        def init(self, module):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    with pytest.raises(RunError, match=r"a\.weight had a standard deviation of 0\.02.*init=draw"):
        does(lambda run: run.initial_values(Own())).run()
    model = Own()
    does(lambda run: run.initial_values(model, init=model.init)).run()
    assert abs(model.b.weight.std().item() - 0.02) < 0.002


def test_initial_values_leave_tied_tensors_and_those_of_no_distribution(capsys):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(64, 64), nn.Linear(64, 64, bias=False)
            self.out.weight = self.embed.weight
            self.position = nn.Parameter(torch.randn(4, 4))
            self.scale = nn.Parameter(torch.ones(3))

    model = Tied()
    before = model.position.clone()
    does(lambda run: run.initial_values(model)).run()
    assert model.out.weight is model.embed.weight
    assert abs(model.embed.weight.std().item() - 1.0) < 0.1
    assert torch.equal(model.position, before)
    assert "initial_values: position keep values" in capsys.readouterr().out


# --- best weights, logs -----------------------------------------------------------------------------------------------


def test_what_is_tested_is_recorded(tmp_path):
    @ablate.task(Config, metric=ablate.Metric("accuracy", better="higher"))
    def train(config, run):
        weights = torch.zeros(1)
        run.keep(weights=weights)
        run.keep_best(weights=weights)
        best = []
        for epoch in run.epochs(4):
            weights += 1
            best.append(run.log(valid_accuracy=-abs(epoch - 1), valid_other=epoch))
        if config.width == 1:
            run.load_best()
        return {"test_accuracy": weights}

    best = Trained(tmp_path / "1", train, width=1).train()
    last = Trained(tmp_path / "2", train, width=2).train()
    assert (best.values["test_accuracy"], best.values["valid_accuracy"], best.values["tested_best"]) == (2.0, 0.0, 1.0)
    assert (last.values["test_accuracy"], last.values["valid_accuracy"], last.values["tested_best"]) == (4.0, -2.0, 0.0)
    assert best.best_step == last.best_step == 2
    kept = Checkpoints(tmp_path / "1", "f")
    kept.finish()
    (path,) = (tmp_path / "1").glob("best-*")
    assert kept.best(int(path.name.split("-")[1]))["objects"]["weights"].item() == 2.0


def test_a_best_value_after_the_loop_is_the_one_that_is_loaded(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        weights = torch.zeros(1)
        run.keep(weights=weights)
        run.keep_best(weights=weights)
        for epoch in run.epochs(2):
            weights += 1
            run.log(valid_error=9 - epoch)
        weights += 1
        run.log(valid_error=0)
        weights += 1
        run.load_best()
        return {"test_error": weights}

    once, outcome = resumes_equal(tmp_path, train, saves=2)
    assert outcome.values["test_error"] == 3.0
    assert [step for step, _ in once.logs] == [1, 2, 2]


def test_best_weights_that_were_never_best_are_an_error_with_a_remedy():
    with pytest.raises(RunError, match=r"valid_error was never logged; call run\.log\(valid_error=…\) in the loop"):
        does(lambda run: (run.keep_best(a={}), run.load_best())).run()
    with pytest.raises(RunError, match=r"call run\.keep_best\(model=model\) before the loop"):
        does(lambda run: run.load_best()).run()


def test_a_valid_metric_that_is_never_logged_is_an_error_only_where_the_best_is_asked_for(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        if config.width == 1:
            run.keep_best(counters={})
        list(run.epochs(1))
        return {"test_error": 1}

    assert Trained(tmp_path / "0", train).train().status == "FINISHED"
    with pytest.raises(RunError, match="nothing was best, because valid_error was never logged"):
        Trained(tmp_path / "1", train, width=1).train()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(float("nan")), np.float32("-inf")])
@pytest.mark.parametrize("swallowed", ["", "Exception", "BaseException"])
def test_a_number_that_is_not_finite_ends_the_trial_whatever_the_function_catches(tmp_path, value, swallowed):
    went_on = []

    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        for epoch in run.epochs(9):
            try:
                run.log(valid_error=epoch, train_loss=value if epoch == 2 else 0.0)
            except {"": ZeroDivisionError, "Exception": Exception, "BaseException": BaseException}[swallowed]:
                pass
            went_on.append(epoch)
        return {"test_error": 1}

    outcome = Trained(tmp_path, train).train()
    assert (outcome.status, outcome.diverged_at, outcome.steps) == ("DIVERGED", 3, 3)
    assert outcome.values["test_error"] is None
    assert outcome.values["best_valid_error"] == 0.0
    assert max(went_on) <= 2
    with pytest.raises(Diverged, match="diverged at epoch 3: train_loss="):
        train.run()


def test_a_test_value_that_is_not_finite_is_a_divergence(tmp_path):
    outcome = Trained(tmp_path, returns({"test_error": float("nan"), "other": float("inf"), "none": None})).train()
    assert outcome.status == "DIVERGED"
    assert outcome.values["test_error"] is outcome.values["other"] is outcome.values["none"] is None


def test_none_is_left_out_and_a_step_can_be_given(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        assert run.log(valid_error=None) is False
        for epoch in run.epochs(2):
            run.log(valid_error=None, a=1, step=10 * epoch)
        return {"test_error": 1}

    trained = Trained(tmp_path, train)
    trained.train()
    assert trained.logs == [[0, {"a": 1.0}], [10, {"a": 1.0}]]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"test_error": 1}, "test data is read once, at the end; return {'test_error': …}"),
        ({"valid_error": "1"}, "must be one number, not a str"),
        ({"valid_error": torch.ones(2)}, "must be one number, not a Tensor of 2; for example its mean"),
        ({"valid_error": [1]}, "must be one number, not a list of 1"),
        ({"a:b": 1}, "'a:b' is no name"),
    ],
)
def test_what_cannot_be_logged_is_refused(numbers, message):
    with pytest.raises(RunError) as caught:
        does(lambda run: run.log(**numbers)).run()
    assert message in str(caught.value)


def test_a_metric_that_is_logged_as_its_logarithm_has_no_other_name():
    @ablate.task(Config, metric=ablate.Metric("perplexity", scale="log", logged="nll"))
    def train(config, run):
        if config.width == 1:
            run.log(valid_perplexity=3.0)
        return {"test_perplexity": 3.0}

    with pytest.raises(RunError, match="log valid_nll=…, the logarithm of perplexity"):
        train.run(width=1)
    with pytest.raises(RunError, match=r"no test_nll \(test_perplexity\); add test_nll, the logarithm of perplexity"):
        train.run()


def test_exit_fails_with_a_reason(tmp_path):
    with pytest.raises(RunError, match=r"train called exit\(2\); return a result"):
        Trained(tmp_path, does(lambda run: sys.exit(2))).train()


def test_a_config_that_is_changed_is_a_warning(tmp_path, capsys):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        config.lr *= 2
        return {"test_error": config.lr}

    Trained(tmp_path, train).train()
    assert "warning: train changed its config (lr)" in capsys.readouterr().out


def test_a_trial_is_one_process(tmp_path, monkeypatch):
    task = returns({"test_error": 1})
    monkeypatch.setenv("WORLD_SIZE", "1")
    task.settle(task.Config(), "cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for call in (task.run, lambda: task.settle(task.Config(), "cpu"), lambda: Trained(tmp_path, task).train()):
        with pytest.raises(KnobError, match="WORLD_SIZE=2: a trial is one process"):
            call()


def test_the_folder_is_empty_at_a_start_and_kept_on_resume(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        for epoch in run.epochs(3):
            (run.folder / f"{epoch}.txt").touch()
            run.log(valid_error=1, files=len(list(run.folder.iterdir())))
        return {"test_error": 1}

    once, _ = resumes_equal(tmp_path, train, saves=3)
    once.train()
    assert [values["files"] for _, values in once.logs] == [1, 2, 3]


# --- results and outcomes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "the function returned nothing; return a dict"),
        (0.3, "returned a float; return a dict, {\"test_error\": …}"),
        ({}, "returned no test_error (nothing); add test_error"),
        ({"error": 1}, "returned no test_error (error); add test_error"),
        ({"test_error": 1, "name": "x"}, "the result's name: must be one number, not a str"),
        ({"test_error": 1, "test_error_each": np.ones((2, 2))}, "test_error_each: must be one number an example"),
    ],
)  # fmt: skip
def test_a_result_that_cannot_be_recorded_is_refused(tmp_path, result, message):
    with pytest.raises(RunError) as caught:
        Trained(tmp_path, returns(result)).train()
    assert message in str(caught.value)


def test_a_metric_that_is_compared_by_ratios_is_above_zero(tmp_path):
    ratio = ablate.Metric("error", scale="log")
    with pytest.raises(RunError, match=r"returned test_error=0: error is compared by ratios.*without scale='log'"):
        Trained(tmp_path / "zero", returns({"test_error": 0.0}, ratio)).train()
    assert Trained(tmp_path / "small", returns({"test_error": 1e-9}, ratio)).train().status == "FINISHED"
    assert Trained(tmp_path / "none", returns({"test_error": -np.inf}, ratio)).train().status == "DIVERGED"
