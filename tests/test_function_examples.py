"""The values by example that a function of one's own gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from own_task import ERROR, Config, Trained, data, error_of, model_of, resumes_equal, returns, step_of

import ablate
from ablate.functions.state import RunError
from ablate.protocol import Blocks
from ablate.train.examples import EXAMPLES


def examines(values, result=None, blocks=None, metric=ERROR, times=1):
    """A task that gives these examples, and returns their mean or this."""

    @ablate.task(Config, metric=metric)
    def train(config, run):
        for _ in run.epochs(2):
            run.log(**{f"valid_{metric.recorded}": 1.0})
        for _ in range(times):
            run.examples(values, blocks=blocks)
        return {f"test_{metric.recorded}": np.mean(np.asarray(values, float)) if result is None else result}

    return train


VALUES = [0.0, 100.0, 0.0, 0.0, 100.0, 0.0]
KINDS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "integers": lambda values: np.array(values, np.int32),
    "single precision": lambda values: torch.tensor(values, requires_grad=True),
    "bfloat16": lambda values: torch.tensor(values, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("kind", KINDS)
def test_examples_of_any_kind_are_recorded_in_blocks_and_in_a_file(tmp_path, kind):
    outcome = Trained(tmp_path, examines(KINDS[kind](VALUES), 100 / 3)).train()
    assert outcome.blocks == Blocks([1] * 6, VALUES)
    saved = np.load(tmp_path / EXAMPLES)
    assert (saved.dtype, saved.tolist()) == (np.float16, VALUES)


def test_many_examples_are_cut_into_fifty_runs_of_neighbours(tmp_path):
    values = np.random.default_rng(0).normal(size=1234)
    outcome = Trained(tmp_path, examines(values)).train()
    assert {*outcome.blocks.sizes} == {24, 25}
    assert len(outcome.blocks.sizes) == 50
    ends = np.cumsum(outcome.blocks.sizes)
    assert np.cumsum(outcome.blocks.totals) == pytest.approx(np.cumsum(values)[ends - 1])


NUMBERS = [7, 3, 7, 9, 3, 7]


@pytest.mark.parametrize(
    "labels",
    [
        ["b", "a", "b", "c", "a", "b"],
        ("b", "a", "b", "c", "a", "b"),
        np.array(["b", "a", "b", "c", "a", "b"]),
        NUMBERS,
        np.array(NUMBERS),
        [*np.array(NUMBERS)],
        torch.tensor(NUMBERS),
    ],
)
def test_examples_with_labels_are_recorded_by_label_in_the_order_of_the_first_of_each(tmp_path, labels):
    outcome = Trained(tmp_path, examines(VALUES, blocks=labels)).train()
    assert outcome.blocks == Blocks([3, 2, 1], [0.0, 200.0, 0.0])


def test_examples_of_a_logarithm_and_of_what_is_better_higher_are_as_recorded(tmp_path):
    nll = ablate.Metric("perplexity", scale="log", logged="nll")
    assert Trained(tmp_path / "1", examines([1.0, 2.0], metric=nll)).train().blocks == Blocks([1, 1], [1.0, 2.0])
    higher = ablate.Metric("accuracy", better="higher")
    assert Trained(tmp_path / "2", examines([1.0, 0.0], metric=higher)).train().blocks == Blocks([1, 1], [1.0, 0.0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"values": np.ones((2, 2))}, "must be one number an example, an array of shape (examples,)"),
        ({"values": torch.tensor(1.0)}, "must be one number an example"),
        ({"values": [1.0, [2.0]], "result": 1.0}, "must be one number an example"),
        ({"values": ["1", "2"], "result": 1.0}, "must be one number an example"),
        ({"values": [1.0]}, "there is one example; what test data add to an interval needs at least 2"),
        ({"values": [1.0, float("nan")], "result": 1.0}, "example 1 is nan, and test_error is 1; give finite values"),
        ({"values": [1.0, float("inf")], "result": 1.0}, "example 1 is inf"),
        ({"values": [0.0, 1.0], "times": 2}, "called twice; call it once, after the loop"),
        ({"values": [0.0, 1.0], "blocks": ["a"]}, "there are 2 values and 1 labels of blocks"),
        ({"values": [0.0, 1.0], "blocks": [0.5, 1.5]}, "blocks must be one label an example, a text or a whole number"),
        ({"values": [0.0, 1.0], "blocks": 2}, "blocks must be one label an example"),
        ({"values": [0.0, 1.0], "blocks": ["a", "a"]}, "the labels make 1 block; 2 to 1,000 are possible"),
        ({"values": [0.0] * 1001, "blocks": [*range(1001)]}, "the labels make 1001 blocks; 2 to 1,000 are possible"),
        ({"values": VALUES, "result": 33.0}, "mean of the examples is 33.3333, and the function returned test_error="),
        ({"values": [0.0, 1.0], "metric": ablate.Metric("perplexity", scale="log")}, "is not the logarithm of a mean"),
    ],
)  # fmt: skip
def test_examples_that_cannot_be_used_are_refused_in_a_line(tmp_path, given, message):
    for train in (Trained(tmp_path, examines(**given)).train, examines(**given).run):
        with pytest.raises(RunError) as caught:
            train()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / EXAMPLES).exists()


def test_a_mean_that_was_taken_in_single_precision_is_the_mean(tmp_path):
    values = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) + 3
    assert Trained(tmp_path, examines(values, values.mean())).train().blocks is not None


def test_examples_of_a_trial_that_diverged_are_none_and_those_before_are_gone(tmp_path):
    Trained(tmp_path, examines(VALUES)).train()
    outcome = Trained(tmp_path, examines([1.0, float("nan")])).train()
    assert (outcome.status, outcome.blocks) == ("DIVERGED", None)
    assert not (tmp_path / EXAMPLES).exists()


def test_examples_are_the_same_after_a_stop(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        model = model_of(config)
        optimizer = torch.optim.Adam(model.parameters(), config.lr)
        run.keep(model=model, optimizer=optimizer)
        for _ in run.epochs(config.epochs):
            step_of(model, optimizer, *data())
            run.log(valid_error=error_of(model).mean())
        run.examples(error_of(model))
        return {"test_error": error_of(model).mean()}

    once, outcome = resumes_equal(tmp_path, train, 3)
    assert sum(outcome.blocks.sizes) == 48
    assert (once.folder / EXAMPLES).read_bytes() == (tmp_path / "stopped" / EXAMPLES).read_bytes()


def test_values_of_examples_that_disagree_with_their_mean_are_a_warning(tmp_path, capsys):
    Trained(tmp_path, returns({"test_error": 50.0, "test_error_each": [0, 1]})).train()
    assert (
        "warning: test_error is 50, and the mean of test_error_each is 0.5; give both in one unit"
        in capsys.readouterr().out
    )
    assert np.load(tmp_path / "test_error_each.npy").tolist() == [0, 1]
