"""Intervals over test data and seeds together: by hand, by what must hold, and by simulated studies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ablate.analyze import text_and_seeds
from ablate.analyze.paired import t_interval
from benchmarks.text_calibration import BLOCKS, NOISES, SEEDS, TEXT, measure


def test_two_seeds_and_two_blocks_are_as_by_hand():
    # θ = 18 / (2 · 3) = 3; what differs from 3 an example: [-2, -2] and [0, 4], in shares of 1/6.
    found = text_and_seeds([[1, 4], [3, 10]], [1, 2])
    assert found.mean == pytest.approx(3)
    assert found.by_seed == pytest.approx(2 * (16 + 16) / 36)
    assert found.by_text == pytest.approx(2 * (4 + 4) / 36)
    assert found.by_cell == pytest.approx((4 + 4 + 0 + 16) / 36)
    # 16/9 + 4/9 − 6/9 is less than 16/9, which is the least it can be.
    df = (16 / 9) ** 2 / ((16 / 9) ** 2 / 1 + (4 / 9) ** 2 / 1)
    assert (found.error, found.df) == (pytest.approx(4 / 3), pytest.approx(df))
    half = stats.t.ppf(0.975, df) * 4 / 3
    assert (found.low, found.high) == (pytest.approx(3 - half), pytest.approx(3 + half))
    assert found.p == pytest.approx(2 * stats.t.sf(3 / (4 / 3), df))


def test_what_both_count_is_counted_once():
    seed, block = np.array([-1.0, 0.0, 1.0, 0.0])[:, None], np.array([-2.0, 2.0, -2.0, 2.0, 0.0, 0.0])
    found = text_and_seeds(0.2 + seed + block, np.ones(6))
    assert found.by_seed == pytest.approx(2 / 3 / 4)
    assert found.by_text == pytest.approx(16 / 5 / 6)
    assert found.by_cell == pytest.approx((2 * 6 + 16 * 4) / 24**2)
    assert found.error**2 == pytest.approx(found.by_seed + found.by_text - found.by_cell)
    assert found.df == pytest.approx(found.error**4 / (found.by_seed**2 / 3 + found.by_text**2 / 5))


def test_seeds_that_differ_by_the_same_in_every_block_have_students_interval():
    of_seed, sizes = np.array([0.3, 0.1, 0.25]), np.array([10, 12, 11, 9])
    found = text_and_seeds(of_seed[:, None] * sizes, sizes)
    assert (found.low, found.high, found.p) == tuple(pytest.approx(float(x)) for x in t_interval(of_seed))
    assert (found.by_text, found.df) == (pytest.approx(0, abs=1e-20), pytest.approx(2))


def test_it_is_never_shorter_than_the_interval_of_the_seeds_or_of_the_blocks_alone():
    rng = np.random.default_rng(0)
    total = rng.normal(size=(500, 3, 20)) + rng.normal(size=(500, 3, 1)) + rng.normal(size=(500, 1, 20))
    found = text_and_seeds(total, np.ones(20))
    for alone in (t_interval(total.mean(-1)), t_interval(total.mean(-2))):
        assert (found.high - found.low >= (alone[1] - alone[0]) * (1 - 1e-12)).all()
    assert set(np.round(found.df[found.df < 2.0001], 6)) >= {2.0}, "some are that of three seeds alone"
    excludes = (found.low > 0) | (found.high < 0)
    np.testing.assert_array_equal(excludes, found.p < 0.05)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)])
def test_one_seed_or_one_block_has_a_mean_and_nothing_else(shape):
    found = text_and_seeds(np.arange(5.0).reshape(shape), np.ones(shape[1]))
    assert found.mean == 2
    assert np.isnan([found.error, found.df, found.low, found.high, found.p, found.by_seed, found.by_text]).all()


def test_what_does_not_vary_has_no_interval():
    found = text_and_seeds(np.full((3, 4), 0.5), np.ones(4))
    assert found.mean == 0.5
    assert np.isnan([found.error, found.df, found.low, found.high, found.p]).all()
    assert (found.by_seed, found.by_text, found.by_cell) == (0, 0, 0)


def test_many_contrasts_at_once_are_each_as_alone_and_seeds_and_blocks_may_come_in_any_order():
    rng = np.random.default_rng(1)
    total, sizes = rng.normal(size=(2, 3, 5, 8)), rng.integers(3, 9, 8)
    together = text_and_seeds(total, sizes)
    assert together.low.shape == (2, 3)
    alone = text_and_seeds(total[1, 2][::-1][:, ::-1], sizes[::-1])
    for name, value in vars(together).items():
        assert value[1, 2] == pytest.approx(getattr(alone, name)), name


def test_a_shift_moves_the_interval_and_a_scale_stretches_it():
    rng = np.random.default_rng(2)
    total, sizes = rng.normal(size=(4, 6)), rng.integers(3, 9, 6)
    plain, moved = text_and_seeds(total, sizes), text_and_seeds(10 * total + 7 * sizes, sizes)
    for name in ("mean", "low", "high"):
        assert getattr(moved, name) == pytest.approx(10 * getattr(plain, name) + 7)
    assert (moved.error, moved.df) == (pytest.approx(10 * plain.error), pytest.approx(plain.df))


@pytest.mark.parametrize(
    ("total", "sizes"),
    [(np.ones(3), np.ones(3)), (np.ones((2, 3)), np.ones(2)), (np.ones((2, 2)), [1, 0]), ([[1, np.nan]], [1, 1])],
)
def test_totals_and_sizes_that_do_not_fit_are_refused(total, sizes):
    with pytest.raises(ValueError, match="totals must be finite"):
        text_and_seeds(total, sizes)


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("noise", NOISES)
def test_the_interval_holds_the_truth(noise, seeds, blocks):
    for text in TEXT.values():
        assert 0.93 <= measure("normal", seeds, blocks, text, 2000).both <= 0.97
        # Skewed effects of few blocks are what no t interval takes in fully.
        assert 0.91 <= measure(noise, seeds, blocks, text, 2000, is_unequal=True).both <= 0.97


def test_the_interval_of_the_seeds_alone_does_not_where_the_text_matters_most():
    assert measure("normal", 5, 50, 0.9, 2000).seeds < 0.7
