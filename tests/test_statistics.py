"""Statistics of pairs: the same figures as other packages, and n/a where the seeds allow none."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pingouin as pg
import pytest
import scikit_posthocs as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from made import PERPLEXITY
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from ablate.analyze import caveats, compare, confounds_between, factor_effects, front, noise
from ablate.analyze.evidence import Evidence, p_equivalent
from ablate.analyze.paired import (
    Difference,
    clopper_pearson,
    holm,
    paired,
    sign_flip,
    smallest_p,
    t_interval,
    unpaired,
)
from ablate.analyze.power import detectable, seeds_for_half, seeds_needed
from ablate.knobs import KnobError
from ablate.report.names import NOT_KNOWN
from ablate.report.told import missing
from ablate.report.warnings import caveats_told
from ablate.study.records import task_record
from ablate.tasks.language_model import LANGUAGE_MODEL
from benchmarks.calibration import NOISES, marginal, measure, simulate

TASK = task_record(LANGUAGE_MODEL)

A = np.array([4.713, 4.742, 4.698, 4.731, 4.709, 4.755, 4.720])
B = np.array([4.672, 4.689, 4.681, 4.664, 4.691, 4.702, 4.655])
C = np.array([4.711, 4.751, 4.702, 4.722, 4.701, 4.760, 4.717])
finite = st.floats(-0.5, 0.5).map(lambda x: round(x, 6))


def trials(cells, **columns):
    """cells: label → test_nll by seed; None: that seed failed."""
    rows = [
        {
            "cell": label,
            "seed": seed,
            "status": "FAILED" if nll is None else "FINISHED",
            "reason": "" if nll is not None else "OSError: x",
            "parameters": 100,
            "seen": 50,
            "train_seconds": 10.0,
            "valid_perplexity": None if nll is None else 100.0,
            "test_perplexity": None if nll is None else 100.0,
            "test_nll": nll,
            "data": "kjv",
            "data_digest": "d" * 64,
            "evaluated": "d" * 64,
            "detail.vocabulary": "10",
            "code": "c" * 64,
            "device": "cpu",
            "threads": "1",
            "precision": "fp32",
            "knob.train_tokens": None,
            "knob.data.name": "kjv",
            "knob.lr": 0.1,
            "knob.hidden": 10,
            "knob.embedding": 10,
            "factor.tie": label,
        }
        for label, values in cells.items()
        for seed, nll in (values.items() if isinstance(values, dict) else enumerate(values))
    ]
    return pd.DataFrame(rows).assign(**columns)


def warnings_for(table):
    return caveats_told(PERPLEXITY, TASK, caveats(PERPLEXITY, TASK, table))


def long(cells):
    return pd.DataFrame(
        [{"cell": cell, "seed": seed, "nll": nll} for cell, nlls in cells.items() for seed, nll in enumerate(nlls)]
    )


# --- One difference.


def test_a_paired_difference_is_pingouins_paired_t_test():
    pg.options["round.column.CI95"] = 12
    found, told = paired(B - A), pg.ttest(B, A, paired=True).iloc[0]
    assert found.p == pytest.approx(told["p_val"])
    assert (found.low, found.high) == pytest.approx(tuple(told["CI95"]))
    assert found.mean == pytest.approx(np.mean(B - A))
    assert found.sd == pytest.approx(np.std(B - A, ddof=1))


def test_the_sign_flip_test_is_scipys_permutation_test_over_all_signs():
    for delta in (B - A, C - A, np.array([0.01, -0.02]), np.array([0.01, 0.01, 0.0, -0.03])):
        told = stats.permutation_test((delta,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip(delta) == pytest.approx(told.pvalue)


def test_the_sign_flip_test_meets_in_the_middle_what_draws_find_by_chance():
    delta = np.random.default_rng(0).normal(0.3, 1, size=30)
    told = stats.permutation_test(
        (delta,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(1)
    )
    assert sign_flip(delta) == pytest.approx(told.pvalue, abs=0.01)


def test_more_than_forty_sign_flips_are_drawn_from_the_callers_generator():
    delta = np.random.default_rng(0).normal(0.3, 1, size=41)
    assert math.isnan(sign_flip(delta))
    drawn = sign_flip(delta, np.random.default_rng(0))
    assert drawn == sign_flip(delta, np.random.default_rng(0))
    assert drawn == pytest.approx(stats.ttest_1samp(delta, 0).pvalue, abs=0.01)


def test_one_seed_has_a_mean_and_nothing_else():
    found = paired([-0.1])
    assert (found.n, found.mean, found.wins, found.losses) == (1, pytest.approx(-0.1), 1, 0)
    unknown = ("low", "high", "p", "p_sign_flip", "error", "df", "sd")
    assert all(math.isnan(getattr(found, name)) for name in unknown)


def test_no_seed_has_nothing():
    assert paired([]).n == 0
    assert all(math.isnan(v) for name, v in vars(paired([])).items() if name not in ("n", "wins", "losses", "deltas"))
    assert paired([]).deltas == ()
    assert unpaired([], [4.0]).n == 0


@pytest.mark.parametrize(("delta", "p"), [([0.0] * 6, 1.0), ([-0.1] * 6, 1 / 32)])
def test_differences_that_do_not_vary_have_no_interval_of_width_zero(delta, p):
    found = paired(delta)
    assert (found.p, found.p_sign_flip, found.sd) == (p, p, 0.0)
    assert all(math.isnan(v) for v in (found.low, found.high))


def test_rounding_is_no_spread():
    assert paired(np.array([3.9, 4.9, 5.9]) - np.array([4.0, 5.0, 6.0])).sd == 0


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_difference_that_is_no_number_is_refused(odd):
    with pytest.raises(ValueError, match="must be finite numbers of shape"):
        paired([0.1, odd])


def test_without_common_seeds_the_difference_is_welchs():
    found, told = unpaired(B, A[:4]), stats.ttest_ind(B, A[:4], equal_var=False)
    interval = told.confidence_interval(0.95)
    assert found.p == pytest.approx(told.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.n == 4
    assert math.isnan(found.p_sign_flip)
    assert math.isnan(unpaired([4.0], [4.1, 4.2]).p)


@given(st.lists(finite, min_size=2, max_size=9), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_seeds_does_not_matter(delta, random):
    shuffled = random.sample(delta, len(delta))
    one, other = vars(paired(delta)), vars(paired(shuffled))
    assert sorted(one.pop("deltas")) == sorted(other.pop("deltas"))
    assert list(one.values()) == pytest.approx(list(other.values()), rel=1e-6, abs=1e-9, nan_ok=True)


@given(st.lists(finite, min_size=2, max_size=9))
@settings(deadline=None)
def test_to_swap_the_two_cells_mirrors_everything(delta):
    one, other = paired(delta), paired([-d for d in delta])
    assert (one.p, one.p_sign_flip) == pytest.approx((other.p, other.p_sign_flip), nan_ok=True)
    assert (one.wins, one.losses) == (other.losses, other.wins)
    assert one.wins_low == pytest.approx(1 - other.wins_high, nan_ok=True)


@given(st.lists(finite, min_size=2, max_size=9))
@settings(deadline=None)
def test_no_test_of_signs_is_surer_than_its_pairs_allow(delta):
    assert paired(delta).p_sign_flip >= smallest_p(len(delta)) * (1 - 1e-9)


@pytest.mark.parametrize(("wins", "n"), [(0, 5), (3, 5), (5, 5), (7, 20)])
def test_the_interval_of_wins_is_that_of_scipys_exact_binomial_test(wins, n):
    told = stats.binomtest(wins, n).proportion_ci(method="exact")
    assert clopper_pearson(wins, n) == pytest.approx((told.low, told.high))


def test_a_tie_is_neither_a_win_nor_a_loss():
    found = paired([-0.1, 0.0, -0.2, 0.3])
    assert (found.wins, found.losses) == (2, 1)
    assert (found.wins_low, found.wins_high) == clopper_pearson(2, 3)
    assert all(math.isnan(end) for end in clopper_pearson(0, 0))


def test_welch_without_any_spread_is_judged_by_the_ways_to_deal_out_the_values():
    assert unpaired([1.0, 1.0, 1.0], [2.0, 2.0, 2.0]).p == pytest.approx(2 / 20)
    assert unpaired([1.0, 1.0], [2.0, 2.0, 2.0]).p == pytest.approx(1 / 10)
    assert unpaired([1.0, 1.0], [1.0, 1.0]).p == 1


def test_equivalence_is_that_of_statsmodels():
    delta = np.array([0.001, -0.004, 0.003, 0.002, -0.001])
    assert p_equivalent(paired(delta), 0.01) == pytest.approx(ttost_paired(delta, np.zeros(5), -0.01, 0.01)[0])
    assert math.isnan(p_equivalent(paired(delta), None))
    assert math.isnan(p_equivalent(paired([0.001, 0.001]), 0.01))


# --- Many tests, and what they could show.


def test_holm_is_that_of_statsmodels_and_leaves_out_what_was_not_tested():
    p = [0.01, 0.04, 0.03, 0.2, 0.005]
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm([0.04, np.nan, 0.03]) == pytest.approx([0.06, np.nan, 0.06], nan_ok=True)
    assert holm([]).size == 0


def test_the_smallest_p_of_few_pairs_cannot_reach_five_per_cent():
    assert [smallest_p(n) for n in (1, 3, 5, 6)] == [1, 0.25, 0.0625, 0.03125]
    assert math.isnan(smallest_p(0))
    assert sign_flip(np.array([-0.1, -0.2, -0.3, -0.1, -0.4])) == smallest_p(5)


@pytest.mark.parametrize("n", [3, 5, 10, 29])
def test_the_detectable_difference_is_that_of_statsmodels(n):
    told = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
    assert detectable(0.02, n) == pytest.approx(0.02 * told, rel=1e-5)


@pytest.mark.parametrize("effect", [0.1, 0.3, 0.5, 1.0, 2.0, 5.0])
def test_the_seeds_needed_are_those_of_statsmodels(effect):
    told = next(n for n in range(2, 2000) if TTestPower().power(effect, n, 0.05) >= 0.8)
    assert seeds_needed(-effect * 0.02, 0.02) == told


def test_so_many_seeds_show_what_they_can_show_and_half_of_it_needs_about_four_times_as_many():
    assert [seeds_needed(detectable(0.01, n), 0.01) for n in range(2, 40)] == list(range(2, 40))
    assert seeds_for_half(30) == 115
    assert seeds_for_half(3) == seeds_needed(detectable(0.7, 3) / 2, 0.7)


def test_an_unseen_spread_promises_nothing():
    assert all(
        math.isnan(x)
        for x in (
            detectable(0.1, 1),
            detectable(0.0, 5),
            detectable(math.nan, 5),
            seeds_needed(0.1, 0.0),
            seeds_needed(0.0, 0.1),
            seeds_needed(math.nan, 0.1),
            seeds_for_half(1),
        )
    )
    assert seeds_needed(1e-6, 1.0) == pytest.approx(7.85e12, rel=0.001)
    assert seeds_needed(10.0, 1e-5) == 2


# --- The comparison.


def test_a_comparison_is_pingouins_pairwise_tests_with_holms_correction():
    table = compare(Evidence(PERPLEXITY, trials({"a": A, "b": B, "c": C}))).set_index("cell")
    told = pg.pairwise_tests(data=long({"a": A, "b": B, "c": C}), dv="nll", within="cell", subject="seed")
    told = told[told["A"] == "a"].set_index("B")["p_unc"]
    assert table.loc[["b", "c"], "p"].tolist() == pytest.approx(told[["b", "c"]].tolist())
    assert table.loc[["b", "c"], "p_holm"].tolist() == pytest.approx(holm(told[["b", "c"]].to_numpy()))
    assert table["verdict"].tolist() == ["baseline", "better", "undecided"]
    assert table["difference_kind"].tolist() == ["", "paired", "paired"]
    assert table.loc["b", "detectable"] == pytest.approx(detectable(np.std(B - A, ddof=1), 7))
    assert table.loc["b", "seeds_for_half"] == seeds_for_half(7)


def test_cells_without_a_common_seed_are_compared_as_posthocs_does_and_flagged():
    apart = {"a": dict(enumerate(A)), "b": {10 + s: x for s, x in enumerate(B)}}
    row = compare(Evidence(PERPLEXITY, trials(apart))).iloc[1]
    told = sp.posthoc_ttest(long({"a": A, "b": B}), "nll", "cell", equal_var=False)
    assert row["p"] == pytest.approx(told.loc["a", "b"])
    assert (row["difference_kind"], row["pairs"], row["verdict"]) == ("unpaired", 0, "better")
    assert math.isnan(row["detectable"])


def test_any_cell_can_be_the_baseline_and_an_unknown_one_is_refused():
    table = compare(Evidence(PERPLEXITY, trials({"a": A, "b": B})), baseline="b")
    assert table["verdict"].tolist() == ["worse", "baseline"]
    assert table["effect"].tolist() == pytest.approx([np.mean(A - B), 0])
    with pytest.raises(KnobError, match=r"baseline lsmt: .* no such cell; did you mean 'lstm'.*it has a, lstm"):
        compare(Evidence(PERPLEXITY, trials({"a": A, "lstm": B})), baseline="lsmt")


def test_every_row_says_what_its_seeds_allow():
    cells = {"base": [4.0, 4.1, 4.2], "one": [3.9, None, None], "none": [None], "same": [4.0, 4.1, 4.2]}
    table = compare(Evidence(PERPLEXITY, trials(cells)))
    assert table["verdict"].tolist() == ["baseline", "one seed", "no result", "undecided"]
    assert table["pairs"].tolist() == [0, 1, 0, 3]
    assert table.loc[3, ["effect", "p"]].tolist() == [0, 1]
    assert compare(Evidence(PERPLEXITY, trials({"base": [None], "b": [4.0]})))["verdict"].tolist() == [
        "baseline",
        "no result",
    ]
    assert compare(Evidence(PERPLEXITY, trials({"only": [4.0]})))["verdict"].tolist() == ["baseline"]


def test_differences_that_are_all_alike_are_judged_by_their_signs():
    few = compare(Evidence(PERPLEXITY, trials({"a": A[:3], "b": A[:3] - 0.1}))).iloc[1]
    many = compare(Evidence(PERPLEXITY, trials({"a": A, "b": A - 0.1}))).iloc[1]
    assert (few["verdict"], few["p"]) == ("undecided", 0.25)
    assert (many["verdict"], many["p"]) == ("better", 1 / 64)
    assert math.isnan(many["low"])


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_loss_that_is_no_finite_number_is_no_result_and_is_named(odd):
    table = trials({"a": [4.0, 4.1, 4.2], "b": [3.9, odd, 4.15]})
    row = compare(Evidence(PERPLEXITY, table)).iloc[1]
    assert (row["n"], row["pairs"]) == (2, 2)
    assert missing(row["missing"]) == "seed 1 finished with a test result that is no finite number"
    assert any("no finite number counts as no result: b (seed 1)" in w for w in warnings_for(table))


@given(st.floats(-3, 3), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=20)
def test_what_all_cells_share_and_the_order_of_rows_change_no_verdict(shared, random):
    table = trials({"a": A, "b": B, "c": C})
    moved = table.assign(test_nll=table["test_nll"] + shared * (1 + table["seed"]))
    order = sorted(range(len(A)), key=lambda _: random.random())
    moved = pd.concat([moved[moved["cell"] == cell].iloc[order] for cell in ("a", "b", "c")])
    columns = ["p", "p_holm", "p_sign_flip", "wins", "effect", "sd"]
    one, other = compare(Evidence(PERPLEXITY, table))[columns], compare(Evidence(PERPLEXITY, moved))[columns]
    assert np.allclose(one.to_numpy(float), other.to_numpy(float), equal_nan=True, atol=1e-6)


# --- Chance, cost, and what else differs.


def test_noise_is_pooled_over_cells_and_pairing_takes_out_what_they_share():
    rng = np.random.default_rng(0)
    shared = 0.03 * rng.normal(size=(200, 1))
    nll = 5 + shared + 0.01 * rng.normal(size=(200, 3))
    found = noise(Evidence(PERPLEXITY, trials({str(c): nll[:, c] for c in range(3)})))
    assert found.sd == pytest.approx(math.sqrt(nll.var(axis=0, ddof=1).mean()))
    assert found.sd_low < math.hypot(0.03, 0.01) < found.sd_high
    assert found.correlation == pytest.approx(0.9, abs=0.03)
    assert 200 < found.df < 3 * 199 / 2  # cells that share their seeds tell less than three of their own
    assert found.paired_sd == pytest.approx(0.01 * math.sqrt(2), rel=0.1)
    assert found.detectable == pytest.approx(detectable(found.paired_sd, 200))


def test_the_noise_of_cells_of_their_own_has_scipys_interval():
    found = noise(Evidence(PERPLEXITY, trials({"a": A})))
    assert found.df == 6
    told = np.std(A, ddof=1) * np.sqrt(6 / stats.chi2.ppf([0.975, 0.025], 6))
    assert (found.sd_low, found.sd_high) == pytest.approx(tuple(told))
    assert NOT_KNOWN[found.reason] == "no cell shares two seeds with the baseline"


@pytest.mark.parametrize("sharing", [0.0, 0.01, 0.03])
@pytest.mark.parametrize("n", [3, 10])
def test_the_interval_of_the_noise_holds_the_truth(n, sharing):
    rng, held = np.random.default_rng(n), 0
    for _ in range(200):
        nll = 5 + sharing * rng.normal(size=(n, 1)) + 0.01 * rng.normal(size=(n, 4))
        found = noise(Evidence(PERPLEXITY, trials({str(c): nll[:, c] for c in range(4)})))
        held += found.sd_low <= math.hypot(sharing, 0.01) <= found.sd_high
    assert held / 200 > 0.89


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"a": [4.0], "b": [3.9]}, "no cell has two seeds with a result: add seeds=5"),
        ({"a": [None]}, "no trial has a result"),
        ({"a": [4.0, 4.0], "b": [4.1, 4.1]}, "every seed of a cell gave the same result"),
    ],
)
def test_noise_that_was_not_seen_is_not_available_and_says_why(cells, reason):
    found = noise(Evidence(PERPLEXITY, trials(cells)))
    assert NOT_KNOWN[found.reason] == reason
    assert math.isnan(found.detectable)
    assert math.isnan(found.sd_low)


def test_noise_of_parallel_cells_is_all_taken_out_by_pairing():
    found = noise(Evidence(PERPLEXITY, trials({"a": A, "b": A - 0.1})))
    assert (found.correlation, found.paired_sd) == (1.0, pytest.approx(0, abs=1e-12))
    assert math.isnan(found.detectable)


def test_the_front_holds_what_nothing_beats():
    cost, value = [1, 2, 3, 3, 2, 1, np.nan], [5, 4, 4, 1, 4, 6, 0]
    assert front(cost, value).tolist() == [True, True, False, True, True, False, False]
    assert front([], []).size == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_every_point_off_the_front_is_beaten_by_one_on_it(points):
    cost, value = np.array(points).T
    on = front(cost, value)
    assert on.any()
    for c, v in zip(cost[~on], value[~on], strict=True):
        assert ((cost[on] <= c) & (value[on] <= v)).any()


def test_confounds_between_two_cells_leave_out_what_was_varied_on_purpose():
    table = trials({"a": A, "b": B, "c": C})
    assert confounds_between(TASK, table, "a", "b") == []
    table.loc[table["cell"] == "b", ["parameters", "knob.lr", "precision", "train_seconds"]] = [200, 0.2, "bf16", 13.0]
    table.loc[table["cell"] == "c", "train_seconds"] = 11.0
    table["factor.hidden"] = table["knob.hidden"].astype(str)
    table.loc[table["cell"] == "c", ["knob.hidden", "knob.embedding", "factor.hidden"]] = [20, 20, "20"]
    assert confounds_between(TASK, table, "a", "b") == [
        ("lr", "0.1", "0.2"),
        ("parameters", "100", "200"),
        ("precision", "fp32", "bf16"),
        ("train_seconds", "10.0", "13.0"),
    ]
    assert confounds_between(TASK, table, "a", "c") == []
    assert confounds_between(TASK, table.assign(data=None), "a", "b") == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"code": "f" * 64}, "same code: version cccccccccccc: a; version ffffffffffff: b."),
        ({"seen": 60}, "equally many tokens: 50: a; 60: b."),
        (
            {"detail.vocabulary": "9", "data_digest": "e" * 64, "evaluated": "e" * 64},
            "(data dddddddddddd, vocabulary 10: a; data eeeeeeeeeeee, vocabulary 9: b).",
        ),
        ({"precision": "bf16", "threads": "2"}, "precision fp32: a; bf16: b; threads 1: a; 2: b."),
        ({"device": "gpu"}, "not computed alike: device cpu: a; gpu: b."),
        ({"knob.lr": 0.2}, "factors of the study: lr (0.1: a; 0.2: b)."),
    ],
)
def test_what_differs_between_cells_is_named_with_its_cells(changes, sentence):
    table = trials({"a": A, "b": B})
    assert warnings_for(table) == []
    for column, value in changes.items():
        table.loc[table["cell"] == "b", column] = value
    (warning,) = warnings_for(table)
    assert sentence in warning


def test_what_has_no_result_is_counted_and_named():
    table = trials({"a": A[:2], "b": [3.9, None], "c": [None, None]})
    table.loc[5, "status"] = "DIVERGED"
    unequal, missing = warnings_for(table)
    assert "same number of finished runs: n = 2: a; n = 1: b; n = 0: c." in unequal
    assert missing.startswith("3 of 6 trials have no result: b (1 failed), c (1 failed, 1 diverged).")


def test_a_cell_trained_by_two_versions_of_the_code_shows_both():
    table = trials({"a": A[:2], "b": B[:2]})
    table.loc[3, "code"] = "f" * 64
    (warning,) = warnings_for(table)
    assert "version cccccccccccc: a; version cccccccccccc, ffffffffffff: b" in warning


# --- Whether all this keeps its word.


@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_hold_the_truth_and_tables_without_an_effect_find_none(n):
    found = measure("normal", n, 1000, 99, np.random.default_rng(n))
    for share in (found.paired, found.marginal, found.shapley):
        assert 0.93 <= share <= 0.97
    assert found.false_holm <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 1000)
    assert found.percentile < 0.93


@pytest.mark.parametrize("noise", NOISES)
def test_the_calibration_measures_the_functions_that_the_report_calls(noise):
    nll = simulate(noise, 5, 3, np.random.default_rng(0))
    low, high, p = t_interval(marginal(nll))
    for study in range(3):
        cells = {f"{depth} {tie}": nll[study, :, 3 * tie + depth] for tie in range(2) for depth in range(3)}
        table = trials(cells).drop(columns="factor.tie")
        table[["factor.depth", "factor.tie"]] = table["cell"].str.split(" ", expand=True).to_numpy()
        row = (
            factor_effects(Evidence(PERPLEXITY, table)).query("factor == 'depth' and level == '1' and at == ''").iloc[0]
        )
        assert row[["low", "high", "p"]].tolist() == pytest.approx([low[study], high[study], p[study]])


def test_what_a_difference_does_not_know_is_not_a_number():
    counted = ("n", "wins", "losses", "deltas")
    assert all(math.isnan(value) for name, value in vars(Difference(0)).items() if name not in counted)
