"""Learning rates by their formulas, budgets, and the order of the text: exact, and the same after a kill."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import TINY, knobs_of
from test_packs import train

from ablate.protocol import Trial
from ablate.tasks.language_model import engine as engine_module
from ablate.tasks.language_model.data import Corpus, Windows
from ablate.tasks.language_model.engine import text_start
from ablate.tasks.language_model.schedule import budget_windows, lr_factor, validation_windows
from ablate.train.checkpoint import Checkpoints

PER_EPOCH = 50


def factors(*overrides, per_epoch=PER_EPOCH):
    knobs = knobs_of(*TINY, "windows=400", *overrides)
    return [lr_factor(knobs, window, per_epoch) for window in range(budget_windows(knobs, per_epoch))]


def test_a_constant_rate_stays():
    assert set(factors("schedule=constant")) == {1.0}


def test_warm_up_rises_to_the_whole_rate_in_its_share_of_the_budget():
    found = factors("schedule=constant", "warmup=0.1")
    assert found[:40] == [pytest.approx((n + 1) / 40) for n in range(40)]
    assert set(found[40:]) == {1.0}


def test_a_linear_rate_falls_to_its_floor():
    found = factors("schedule=linear", "warmup=0.1", "lr_floor=0.02")
    assert found[40:] == [pytest.approx(1 - 0.98 * (n - 40) / 360) for n in range(40, 400)]
    assert min(found[40:]) > 0.02


def test_a_cosine_begins_where_it_is_told():
    found = factors("schedule=cosine", "decay_from=0.5", "lr_floor=0.1")
    assert set(found[:200]) == {1.0}
    assert found[200:] == [
        pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * (n - 200) / 200)) / 2) for n in range(200, 400)
    ]


def test_an_exponential_rate_is_divided_after_each_epoch():
    """TensorFlow's ptb_word_lm: lr_decay ** max(epoch - max_epoch, 0)."""
    found = factors("schedule=exponential", "decay=2", "decay_from=0.5")  # of 8 epochs, from the fourth on
    by_epoch = [found[epoch * PER_EPOCH : (epoch + 1) * PER_EPOCH] for epoch in range(8)]
    assert [set(epoch) for epoch in by_epoch] == [{0.5 ** max(epoch - 4, 0)} for epoch in range(8)]
    assert min(factors("schedule=exponential", "decay=2", "lr_floor=0.25")) == 0.25


def test_zaremba_small_keeps_its_rate_for_five_epochs_and_halves_it_after_each_other():
    knobs = knobs_of("recipe=zaremba", "data=ptb")
    rates = [knobs.lr * lr_factor(knobs, epoch * 2323 + where, 2323) for epoch in range(13) for where in (0, 2322)]
    assert rates == [20 * 0.5 ** max(epoch - 4, 0) for epoch in range(13) for _ in (0, 1)]


def test_a_smaller_budget_is_the_whole_schedule_at_a_smaller_scale():
    for schedule in (["schedule=linear"], ["schedule=cosine"], ["schedule=exponential", "decay=2"]):
        whole = factors("warmup=0.1", *schedule)
        half = factors("warmup=0.1", "budget=0.5", *schedule)
        assert len(half) == 200
        assert half[20:] == [pytest.approx(factor) for factor in whole[40::2]]


def test_a_budget_scales_windows_and_validations_alike():
    knobs = knobs_of(*TINY, "windows=400", "valid_every=100", "budget=0.25")
    assert budget_windows(knobs, PER_EPOCH) == 100
    assert validation_windows(knobs, PER_EPOCH) == {25, 50, 75, 100}
    epochs = knobs_of(*TINY, "windows=null", "epochs=4", "valid_every=null", "budget=0.5")
    assert (budget_windows(epochs, PER_EPOCH), validation_windows(epochs, PER_EPOCH)) == (100, {25, 50, 75, 100})
    assert budget_windows(knobs_of(*TINY, "windows=1", "budget=0.01"), PER_EPOCH) == 1


@pytest.mark.parametrize(
    "schedule",
    [
        ["schedule=plateau", "decay=4", "lr=9"],
        ["schedule=linear", "warmup=0.3", "lr_floor=0.1"],
        ["schedule=cosine", "decay_from=0.2"],
        ["schedule=exponential", "decay=1.5"],
    ],
    ids=lambda schedule: schedule[0],
)
def test_a_schedule_goes_on_after_a_kill_to_the_same_bits(schedule, tmp_path, monkeypatch):
    trials = [Trial(knobs_of(*TINY, "model=better_lstm", "lr=0.1", "valid_every=5", *schedule, "data.tokens=300"), 3)]
    whole, outcome = train(trials, tmp_path / "whole")
    save = Checkpoints.save

    def save_and_die(self, window, state):
        save(self, window, state)
        if window == 25:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            train(trials, tmp_path / "killed")
    rest, resumed = train(trials, tmp_path / "killed", state_of=25)
    assert resumed == outcome
    assert [e for e in whole[0] if e["step"] > 25] == rest[0]
    assert len({event["lr"] for event in whole[0]}) > 1, "the schedule has changed the rate"


def test_the_order_of_text_is_a_seeds_and_the_same_in_every_cell():
    ids = np.arange(1001, dtype=np.int32)
    starts = {
        seed: {text_start(knobs_of(*TINY, *cell), seed, ids) for cell in ([], ["model=better_lstm"], ["hidden=4"])}
        for seed in range(20)
    }
    assert all(len(of_seed) == 1 for of_seed in starts.values())
    different = {next(iter(of_seed)) for of_seed in starts.values()}
    assert len(different) == 20
    assert min(different) < 200 < 800 < max(different) < 1000
    assert text_start(knobs_of("recipe=book"), 5, ids) == 0


def test_a_trial_reads_from_its_start_and_a_pack_each_its_own(tmp_path, monkeypatch):
    seen = []
    at = Windows.at
    monkeypatch.setattr(Windows, "at", lambda self, n: (seen.append(at(self, n)[0]), at(self, n))[1])
    monkeypatch.setattr(engine_module, "evaluate", lambda program, *_: [1.0] * len(getattr(program, "_models", [1])))
    knobs = knobs_of(*TINY, "windows=1")
    ids = np.arange(4000, dtype=np.int32) % 30
    corpus = Corpus("x", tuple(map(str, range(30))), ids, ids, ids)
    monkeypatch.setattr("test_packs.load_corpus", lambda _: corpus)
    train([Trial(knobs, seed) for seed in (0, 1)], tmp_path)
    assert seen[0].shape == (2, 5, 4)
    for k, seed in enumerate((0, 1)):
        assert seen[0][k, 0, 0] == ids[text_start(knobs, seed, ids)]
