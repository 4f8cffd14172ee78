"""When there are seeds enough: which comparisons count, and what decides them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made import PERPLEXITY, ladder, one_out, results, trials

from ablate.analyze.sequential import always_valid_p, confidence_sequence
from ablate.analyze.stopping import is_decided, look, primary_family
from ablate.knobs import KnobError
from ablate.metric import Metric
from ablate.worth import margin
from benchmarks.stopping import by_always_valid_p, by_t, simulate

ERROR = Metric("error", unit="%")
ACCURACY = Metric("accuracy", better="higher")


def cells(seeds=6, **effects):
    """A baseline and a cell for each effect, in nats; a little noise."""
    noise = np.random.default_rng(1).normal(0, 0.005, (len(effects) + 1, seeds))
    values = {"base": 4 + noise[0]} | {name: 4 + e + noise[i] for i, (name, e) in enumerate(effects.items(), 1)}
    return results(trials({name: list(of_cell) for name, of_cell in values.items()}))


def grid(seeds=6):
    """depth × tie, with an interaction."""
    table = ladder({"depth": -0.3, "tie": 0.2}, seeds=seeds, interaction=0.1)
    return results(table.drop(columns=["component.depth", "component.tie"]))


def test_the_comparisons_of_one_factor_are_those_with_the_first_cell():
    assert list(primary_family(cells(a=0.1, b=0.0))) == ["a", "b"]


def test_those_of_a_grid_are_its_effects_and_its_interactions():
    family = primary_family(grid())
    assert list(family) == ["depth=on", "tie=on", "depth=on × tie=on"]
    assert all(deltas.shape == (6,) for deltas in family.values())


def test_those_of_a_design_of_components_are_their_effects_of_one_kind():
    design = {"kind": "leave_one_out", "components": ["gating", "dropout"]}
    study = results(one_out({"gating": -0.3, "dropout": 0.1}), design=design)
    assert list(primary_family(study)) == ["gating", "dropout"]
    both = results(ladder({"gating": -0.3, "dropout": 0.1}), design=design)
    assert list(primary_family(both)) == ["gating", "dropout"], "Shapley values, and not every kind"


def test_each_comparison_is_decided_at_its_share_of_the_error():
    study = cells(seeds=4, a=0.1, b=0.002, c=0.002)
    family = primary_family(study)
    found = look(replace(study, worth="0.001%"))
    assert found.seeds == 4
    assert found.comparisons == 3
    assert found.decided == tuple(name for name, d in family.items() if always_valid_p(d) < 0.05 / 3)
    assert set(found.decided) | set(found.undecided) == {"a", "b", "c"}
    assert found.record() == {
        "seeds": 4, "comparisons": 3, "decided": found.decided, "undecided": found.undecided,
    }  # fmt: skip


def test_a_difference_too_small_to_matter_is_decided_as_well():
    study = cells(seeds=8, a=0.1, b=0.0)
    assert look(replace(study, worth="5%")).undecided == ()
    assert look(replace(study, worth="0.01%")).undecided == ("b",)
    low, high = confidence_sequence(primary_family(study)["b"], 1 - 0.05 / 2)
    assert -math.log(1.05) < low < 0 < high < math.log(1.05)


def test_without_a_margin_nothing_is_equivalent():
    delta = np.array([-0.001, 0.001, 0.0, 0.001, -0.001, 0.0005, -0.0005, 0.0])
    assert is_decided(delta, 0.05, 0.01)
    assert not is_decided(delta, 0.05, None)
    assert not is_decided(np.zeros(8), 0.05, 0.01), "a spread of 0 was not seen"


def test_seeds_without_a_result_are_counted_and_left_out_of_the_comparisons():
    values = [4.0, 4.01, 4.02, 4.03, 3.99]
    study = results(trials({"base": values, "a": [3.0, None, 3.0, 3.01, 3.02], "b": [None] * 5}))
    found = look(study)
    assert (found.seeds, found.decided, found.undecided) == (5, ("a",), ())
    assert len(primary_family(study)["a"]) == 4


def test_where_nothing_has_a_result_there_is_nothing_to_decide():
    found = look(results(trials({"base": [None] * 3, "a": [4.0] * 3})))
    assert (found.comparisons, found.decided, found.undecided) == (0, (), ())


def test_cells_that_were_evaluated_on_other_data_are_no_comparison():
    study = cells(a=0.1, b=0.1)
    table = study.trials.assign(evaluated=np.where(study.trials["cell"] == "b", "other", "d"))
    assert list(primary_family(replace(study, trials=table))) == ["a"]


def test_a_look_at_fewer_seeds_is_the_look_that_was_made_then():
    study = grid(seeds=8)
    for seeds in range(3, 9):
        some = replace(study, trials=study.trials[study.trials["seed"] < seeds])
        fresh = replace(some, trials=pd.DataFrame(some.trials.to_dict("records")))
        assert look(some) == look(fresh)


@pytest.mark.parametrize(
    ("worth", "metric", "expected"),
    [
        (None, PERPLEXITY, math.log(1.01)),
        ("2%", PERPLEXITY, math.log(1.02)),
        (None, ERROR, None),
        (0.5, ERROR, 0.5),
        ("0.5", ERROR, 0.5),
        ("0.5%", ERROR, 0.5),
        (0.01, ACCURACY, 0.01),
        (3, Metric("delay", unit="ms"), 3.0),
    ],
)
def test_what_a_difference_has_to_be_worth_is_a_margin_of_scores(worth, metric, expected):
    assert margin(worth, metric) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("worth", "metric", "message"),
    [
        ("1%", ACCURACY, "worth=1%: accuracy is compared by differences; use a number, worth=0.5"),
        ("1%", Metric("delay", unit="ms"), "worth=1%: delay is compared by differences; use a number of ms, worth=0.5"),
        (0.5, PERPLEXITY, "worth=0.5: perplexity is compared by ratios; use a percentage, worth=1%"),
        ("0%", PERPLEXITY, "worth=0%: must be a percentage, or a number, above 0; for example worth=1%"),
        (-1, ERROR, "worth=-1: must be a percentage, or a number, above 0; for example worth=0.5"),
        ("nan", ERROR, "worth=nan: must be"),
        ("inf%", PERPLEXITY, "worth=inf%: must be"),
        ("a lot", PERPLEXITY, "worth=a lot: must be"),
    ],
)
def test_what_is_no_such_difference_is_refused_in_a_line(worth, metric, message):
    with pytest.raises(KnobError) as caught:
        margin(worth, metric)
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith(message)


def test_simulated_studies_are_wrong_as_rarely_as_promised_and_a_t_test_that_is_peeked_at_is_not():
    delta = simulate(3, 0.0, 500, np.random.default_rng(0))
    assert by_always_valid_p(delta, None).differs <= 0.05
    assert by_t(delta).differs > 0.2
    assert by_always_valid_p(delta + 1.0, 1.0).equivalent <= 0.05
    large = by_always_valid_p(delta + 2.0, None)
    assert large.decided > 0.95
    assert 5 < large.median < large.ninth < 20
