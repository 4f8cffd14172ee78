"""Tests and intervals that stay valid at every look."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from ablate.analyze.sequential import always_valid_p, confidence_sequence, critical_t, e_value

ALPHAS = (0.05, 0.05 / 3, 0.05 / 7)


def with_t(t, n):
    """n differences whose t statistic is t."""
    values = np.arange(n) - (n - 1) / 2
    return values / values.std(ddof=1) + t / math.sqrt(n)


@pytest.mark.parametrize(("n", "t"), [(3, 13.2), (5, 5.41), (10, 4.18)])
def test_the_t_that_is_needed_at_each_number_of_seeds(n, t):
    assert critical_t(n, 0.05) == pytest.approx(t, abs=0.05 if n == 3 else 0.005)
    assert float(e_value(with_t(critical_t(n, 0.05), n))) == pytest.approx(20)
    assert float(always_valid_p(with_t(critical_t(n, 0.05), n))) == pytest.approx(0.05)


def test_it_is_the_likelihood_ratio_that_was_published():
    t, n, g = 3.0, 8, 10.0
    squared, nu = t**2, n - 1
    expected = (1 + n * g) ** -0.5 * ((1 + squared / nu) / (1 + squared / (nu * (1 + n * g)))) ** (n / 2)
    assert float(e_value(with_t(t, n))) == pytest.approx(expected)


@pytest.mark.parametrize("t", [0.0, 1.0, 4.0])
def test_without_an_effect_the_evidence_is_one_on_average_whatever_was_seen_before(t):
    n = 6
    before = with_t(t, n)
    # Without an effect, and of unknown scale, the next difference is Student's t with n degrees of freedom.
    scale = math.sqrt((before**2).sum() / n)

    def weighted(x):
        return float(e_value(np.append(before, x))) * stats.t.pdf(x / scale, n) / scale

    mean, _ = integrate.quad(weighted, -np.inf, np.inf, limit=400)
    assert mean == pytest.approx(float(e_value(before)), rel=1e-5)


@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=40),
    st.floats(-3, 3),
    st.sampled_from(ALPHAS),
)
def test_the_interval_excludes_zero_exactly_where_p_is_below_alpha(values, shift, alpha):
    delta = np.array(values) + shift
    p, (low, high) = float(always_valid_p(delta)), confidence_sequence(delta, 1 - alpha)
    if math.isnan(p):
        assert np.isnan([low, high]).all()
    elif abs(p - alpha) > 1e-9:
        assert (low > 0 or high < 0) == (p < alpha)


def test_few_seeds_can_exclude_nothing_and_say_so_by_an_infinite_interval():
    delta = np.array([1.0, 1.001])
    assert [float(end) for end in confidence_sequence(delta)] == [-math.inf, math.inf]
    assert float(always_valid_p(delta)) > 0.05
    three = np.array([1.0, 1.001, 1.002])
    assert np.isfinite(confidence_sequence(three)).all()
    assert np.isinf(confidence_sequence(three, 1 - 0.05 / 2)).all(), "of two comparisons"


@pytest.mark.parametrize("delta", [[], [1.0], [0.5, 0.5, 0.5], [0.0, 0.0]])
def test_without_a_spread_nothing_is_known(delta):
    assert math.isnan(always_valid_p(delta))
    assert math.isnan(e_value(delta))
    assert np.isnan(confidence_sequence(delta)).all()


def test_leading_axes_are_studies():
    delta = np.random.default_rng(0).normal(size=(4, 3, 7))
    assert always_valid_p(delta).shape == (4, 3)
    low, high = confidence_sequence(delta)
    assert low.shape == high.shape == (4, 3)
    one = confidence_sequence(delta[2, 1])
    assert (float(low[2, 1]), float(high[2, 1])) == pytest.approx((float(one[0]), float(one[1])))
    assert always_valid_p(np.zeros((4, 0))).shape == (4,)


@pytest.mark.parametrize("most", [30, 100])
def test_looking_at_every_number_of_seeds_raises_no_more_false_alarms_than_promised(most):
    delta = np.random.default_rng(most).normal(size=(2000, most))
    alarms = np.array([always_valid_p(delta[:, :n]) < 0.05 for n in range(2, most + 1)])
    covered = np.array(
        [(low <= 0) & (high >= 0) for low, high in (confidence_sequence(delta[:, :n]) for n in range(2, most + 1))]
    )
    assert alarms.any(axis=0).mean() <= 0.05
    assert covered.all(axis=0).mean() >= 0.95
