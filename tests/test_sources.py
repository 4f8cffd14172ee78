"""Where the noise of a seed comes from: a seed for each source, and the share that each has."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY, knobs_of
from made import PERPLEXITY, TASK, results, trials
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from test_packs import train

from ablate.analyze.caveats import caveats
from ablate.analyze.sources import (
    RESIDUAL,
    TOTAL,
    interval_of_difference,
    mean_squares,
    sources_of_noise,
)
from ablate.analyze.study import analyse
from ablate.metric import Metric
from ablate.protocol import Trial
from ablate.report.noise import noise_told
from ablate.report.write import write_report
from ablate.tasks.language_model import training
from ablate.tasks.language_model.config import seed_of
from ablate.tasks.language_model.engine import text_start
from ablate.tasks.language_model.trial import Training
from benchmarks.sources import DESIGNS, SIZES, crossing, measure, simulate, square

KNOBS = {"order_seed": "the order of the text", "init_seed": "the initial values", "dropout_seed": "the dropout masks"}
CELL = [*TINY, "model=better_lstm", "dropout=0.5", "precision=fp32"]
NAMES = [*KNOBS]
SQUARE = square(5)


# A seed for each source


def test_sources_that_all_have_the_trials_seed_are_the_trial_to_the_last_bit(tmp_path):
    own = [f"{name}=3" for name in NAMES]
    plain, same, other = Trial(knobs_of(*CELL), 3), Trial(knobs_of(*CELL, *own), 3), Trial(knobs_of(*CELL, *own), 0)
    (curve,), (outcome,) = train([plain], tmp_path / "plain")
    assert train([same], tmp_path / "same") == ([curve], [outcome])
    (its_curve,), (its_outcome,) = train([other], tmp_path / "other")
    assert (its_curve, its_outcome.values) == (curve, outcome.values)
    assert its_outcome.sample != outcome.sample, "what else a seed draws is still the trial's"


@pytest.mark.parametrize("name", NAMES)
def test_a_source_with_a_seed_is_that_seeds_whatever_the_trials_and_the_others_stay(name):
    ids = np.arange(1001, dtype=np.int32)

    def drawn(seed, *overrides):
        knobs = knobs_of(*CELL, *overrides)
        t = Training(Trial(knobs, seed), 30, torch.device("cpu"))
        masks = t.model.dropouts[1].mask(torch.Size((50, 8)), torch.float32)
        return {
            "order_seed": text_start(knobs, seed, ids),
            "init_seed": t.model.embedding.weight.tolist(),
            "dropout_seed": masks.tolist(),
            "torch": torch.initial_seed(),
        }

    three, zero, mixed = drawn(3), drawn(0), drawn(0, f"{name}=3")
    assert all(three[what] != zero[what] for what in zero)
    assert mixed == {**zero, name: three[name]}


def test_a_seed_of_zero_is_a_seed():
    assert (seed_of(0, 7), seed_of(None, 7)) == (0, 7)


def test_only_cells_that_read_the_same_text_first_have_to_start_alike():
    alike = {
        training.describe(knobs_of(*CELL, *own)).alike
        for own in ([], ["init_seed=1"], ["order_seed=1"], ["order_seed=2"])
    }
    assert len(alike) == 3


# Variance components


@pytest.mark.parametrize("codes", DESIGNS.values(), ids=DESIGNS)
@pytest.mark.parametrize("sds", SIZES)
def test_estimates_are_unbiased_and_intervals_hold_the_truth(codes, sds):
    found = measure(codes, sds[: codes.shape[1]], "normal", 4000, np.random.default_rng(0))
    assert all(0.935 <= share <= 0.985 for share in (*found.sources, found.total)), found
    assert 0.94 <= found.residual <= 0.96
    assert max(np.abs(found.bias)) < 4


@pytest.mark.parametrize("codes", DESIGNS.values(), ids=DESIGNS)
def test_mean_squares_are_those_of_statsmodels(codes):
    y = np.random.default_rng(1).normal(size=len(codes))
    table = pd.DataFrame(codes, columns=list("abc")[: codes.shape[1]]).assign(y=y)
    theirs = anova_lm(ols("y ~ " + " + ".join(f"C({name})" for name in table.columns[:-1]), table).fit(), typ=2)
    found = mean_squares(y, codes)
    assert [*found.source, float(found.residual)] == pytest.approx((theirs["sum_sq"] / theirs["df"]).tolist())
    assert [*found.df, found.residual_df] == theirs["df"].tolist()


def test_the_interval_excludes_zero_exactly_where_the_f_test_does():
    codes = SQUARE
    found = mean_squares(simulate(codes, (0.7, 0.7, 0.7), "normal", 500, np.random.default_rng(2)), codes)
    low, high = interval_of_difference(found.source, found.df, found.residual, found.residual_df)
    f = found.source / found.residual[:, None]
    assert ((low > 0) == (f > stats.f.ppf(0.975, 4, 12))).all()
    assert ((high < 0) == (f < stats.f.ppf(0.025, 4, 12))).all()


@pytest.mark.parametrize(
    "codes",
    [
        [(i,) for i in range(5)],  # nothing left for the residual
        [(i, 0) for i in range(3)] + [(0, j) for j in range(1, 3)],  # one after the other
        [(i, i) for i in range(4)] * 3,  # always together
        [(i, j) for i in range(2) for j in range(2)] + [(0, j) for j in range(2, 9)],  # uneven
    ],
)
def test_a_design_that_cannot_tell_sources_apart_has_no_estimate(codes):
    assert mean_squares(np.random.default_rng(0).normal(size=len(codes)), np.array(codes)) is None


# A study of noise


def study(values, codes=SQUARE, knobs=NAMES, **columns):
    """A table of trials, one a cell, each source with the seed that `codes` says."""
    cells = [" ".join(f"{name}={seed}" for name, seed in zip(knobs, row, strict=True)) for row in codes.tolist()]
    table = trials({cell: [value] for cell, value in zip(cells, values, strict=True)})
    seeds = {f"{what}.{name}": codes[:, i] for i, name in enumerate(knobs) for what in ("factor", "knob")}
    seeds |= {name: pd.Series(values, dtype=object) for name, values in seeds.items() if name.startswith("knob")}
    seeds |= {name: pd.Series(values).map(str) for name, values in seeds.items() if name.startswith("factor")}
    return table.drop(columns="factor.tie").assign(**{"knob.dropout": 0.5, **seeds, **columns})


def values(sds=(0.02, 0.005, 0.0), residual=0.002, codes=SQUARE):
    """Scores of one study, whose sources have these standard deviations."""
    relative = [sd / residual for sd in sds]
    return (4 + residual * simulate(codes, relative, "normal", 1, np.random.default_rng(5))[0]).tolist()


def found_in(table):
    return sources_of_noise(PERPLEXITY, TASK, table)


def test_each_source_has_its_variance_its_interval_and_its_share():
    found = found_in(study(values()))
    table = found.table.set_index("source")
    assert [*table.index] == [*KNOBS.values(), RESIDUAL, TOTAL]
    order, masks = table.loc["the order of the text"], table.loc["the dropout masks"]
    assert (order["seeds"], order["df"], table.loc[RESIDUAL, "df"]) == (5, 4, 12)
    assert order["low"] < 0.02 < order["high"]
    assert masks["low"] == 0 < masks["high"] < 0.005
    assert table["share"].drop(TOTAL).sum() == pytest.approx(1)
    assert (found.asked, found.trials, found.missing, found.idle, found.reason) == (True, 25, 0, [], "")


def test_shares_and_intervals_are_the_same_whatever_the_seeds_are_called_and_the_trials_order():
    codes, shuffled = SQUARE, np.random.default_rng(0).permutation(25)
    y = values()
    one, other = study(y), study(np.array(y)[shuffled].tolist(), 7 * codes[shuffled] + 1)
    pd.testing.assert_frame_equal(found_in(one).table, found_in(other).table)


def test_a_lost_trial_leaves_a_table_that_counts_it():
    y = values()
    y[7] = None
    found = found_in(study(y))
    assert (found.trials, found.missing, len(found.table)) == (24, 1, 5)
    assert "24 trials, 1 more without a result" in noise_page(study(y))


def test_a_source_without_a_seed_of_its_own_has_the_trials_and_those_that_change_together_are_one():
    codes = crossing(4, 3)
    y = values((0.02, 0.01), 0.001, codes)
    table = trials({f"order_seed={i}": y[3 * i : 3 * i + 3] for i in range(4)}).drop(columns="factor.tie")
    orders = codes[:, 0]
    table = table.assign(**{"factor.order_seed": orders.astype(str), "knob.order_seed": orders, "knob.dropout": 0.5})
    found = found_in(table).table
    together = "the initial values and the dropout masks"
    assert found["source"].tolist() == ["the order of the text", together, RESIDUAL, TOTAL]
    assert found["seeds"].tolist()[:2] == [4, 3]
    by_null = table.assign(**{"knob.init_seed": pd.Series([None] * 12, dtype=object)})
    pd.testing.assert_frame_equal(found_in(by_null).table, found)


def test_masks_that_are_never_drawn_are_left_out_and_named():
    found = found_in(study(values(), **{"knob.dropout": 0.0}))
    assert found.idle == ["the dropout masks"]
    assert found.table["source"].tolist() == ["the order of the text", "the initial values", RESIDUAL, TOTAL]
    assert found.table["df"].tolist()[:3] == [4, 4, 16]
    assert "Left out, as it has no effect here: the dropout masks." in noise_page(
        study(values(), **{"knob.dropout": 0})
    )


def test_trials_of_the_same_seeds_are_no_new_draws():
    once = study(values())
    twice = pd.concat([once, once.assign(seed=1)], ignore_index=True)
    pd.testing.assert_frame_equal(found_in(twice).table, found_in(once).table)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (study([None] * 25), "no trial has a result"),
        (study([4.0] * 25), "every trial gave the same result"),
        (study(values()[:3], SQUARE[:3]), "each seed of one source has to meet seeds of the others"),
        (study(values()[:3], SQUARE[:3, :1] + np.arange(3)[:, None], NAMES[:1]), "design=latin_square"),
    ],
)
def test_what_cannot_be_told_says_why(table, reason):
    found = found_in(table)
    assert found.table.empty
    (said,) = noise_told(PERPLEXITY, found)
    assert reason in said


def test_a_study_of_anything_else_is_not_asked():
    y = values()
    other = study(y, **{"factor.depth": [str(1 + i % 2) for i in range(25)]})
    for table in (other, trials({"a": [4.0, 4.1], "b": [4.2, 4.3]})):
        assert not found_in(table).asked
        assert noise_told(PERPLEXITY, found_in(table)) == []
    assert not sources_of_noise(PERPLEXITY, {**TASK, "noise": {}}, study(y)).asked
    assert not sources_of_noise(PERPLEXITY, {k: v for k, v in TASK.items() if k != "noise"}, study(y)).asked


def test_the_sentence_names_the_largest_and_says_where_that_is_not_settled():
    (clear,) = noise_told(PERPLEXITY, found_in(study(values((0.0, 0.05, 0.0), 0.002))))
    assert clear.startswith("The largest source of noise in test perplexity is the initial values (standard deviation ")
    assert "% of the variance), followed by " in clear
    assert "not settled" not in clear
    (close,) = noise_told(PERPLEXITY, found_in(study(values((0.02, 0.02, 0.02), 0.002))))
    assert close.endswith("The intervals overlap: which source is the largest is not settled.")
    (none,) = noise_told(PERPLEXITY, found_in(study(values((0.0, 0.0, 0.0), 0.01))))
    assert none.startswith(
        "No source of noise in test perplexity can be told from the residual; the largest estimate is"
    )


def test_a_linear_metric_is_told_in_its_unit():
    error = Metric("error", unit="%")
    table = study(values()).rename(columns={"test_nll": "test_error"})
    (said,) = noise_told(error, sources_of_noise(error, TASK, table.assign(test_error=table["test_error"] * 100)))
    assert "standard deviation" in said
    assert " points, 95 % interval " in said


def noise_page(table, folder=None):
    from ablate.report.noise import sources_table

    return sources_table(PERPLEXITY, found_in(table)).note


@pytest.mark.figures("comparison", "effects")
def test_the_page_tells_of_sources_and_not_of_the_effects_of_seeds(tmp_path):
    table = study(values())
    made = write_report(results(table, design={"kind": "latin_square"}), tmp_path)
    page = made.page.read_text(encoding="utf-8")
    assert made.findings[0].startswith("The largest source of noise in test perplexity is the order of the text")
    assert len(made.findings) == 1
    assert page.count("Where the noise of a seed comes from") >= 1
    assert (made.folder / "noise.csv").is_file()
    assert re.findall(r'scope="col"[^>]*>(?!<a href="#term-)[^<]*', page) == []  # every heading is in the glossary
    assert "→" not in (made.folder / "noise.md").read_text(encoding="utf-8")
    assert not (made.folder / "factors.md").exists()
    assert not (made.folder / "effects.png").exists()
    assert "How sure are we" not in page
    assert not any("single run" in warning for warning in made.warnings)


def test_a_crossing_has_no_effects_of_its_seeds_either():
    codes = crossing(3, 3)
    analysis = analyse(results(study(values((0.02, 0.01), 0.001, codes), codes, NAMES[:2])))
    assert analysis.factors.empty
    assert analysis.interactions.empty
    assert analysis.sources.asked
    assert caveats(PERPLEXITY, TASK, study(values())).seeds == {}


def test_a_task_says_which_of_its_knobs_are_sources():
    assert {name: noise["source"] for name, noise in TASK["noise"].items()} == KNOBS
    assert [noise["needs"] for noise in TASK["noise"].values()] == [None, None, "dropout"]
