"""When there are seeds enough: which comparisons count, and what decides them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made import PERPLEXITY, ladder, one_out, results, trials

from ablate.analyze.sequential import always_valid_p, confidence_sequence
from ablate.analyze.stopping import look
from ablate.analyze.study import analyse
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


def family(study):
    """Names of the comparisons that are looked at."""
    found = look(study)
    return {*found.decided, *found.undecided}


def test_the_comparisons_of_one_factor_are_those_with_the_first_cell():
    table = cells(a=0.1, b=0.0)
    assert family(table) == {"tie=a", "tie=b"}


def test_those_of_a_grid_are_its_effects_and_its_interactions():
    assert family(grid()) == {"depth=on", "tie=on", "depth=on × tie=on"}


def test_those_of_a_design_of_components_are_what_it_measures():
    design = {"kind": "leave_one_out", "components": ["gating", "dropout"]}
    assert family(results(one_out({"gating": -0.3, "dropout": 0.1}), design=design)) == {"gating", "dropout"}


def test_a_component_that_is_measured_in_two_ways_counts_twice():
    effects = {"gating": -0.3, "dropout": 0.1, "tying": -0.1}
    alone = {"base": []} | {f"only {name}": [name] for name in effects}
    table = pd.concat([one_out(effects), ladder(effects, subsets=alone)], ignore_index=True)
    study = results(table, design={"kind": "leave_one_out+add_one_in", "components": list(effects)})
    assert family(study) == {f"{name} ({kind})" for name in effects for kind in ("removal", "addition")}


def test_what_is_decided_is_what_the_page_says_of_a_study_that_was_looked_at():
    study = cells(seeds=5, a=0.1, b=0.002, c=0.002)
    found = look(replace(study, worth="0.001%"))
    assert (found.seeds, found.comparisons) == (5, 3)
    rows = analyse(replace(study, worth="0.001%", stopping={"seeds": "auto"})).factors
    assert found.decided == tuple(f"tie={row.level}" for row in rows.itertuples() if row.verdict in ("helps", "hurts"))
    assert "tie=a" in found.decided
    for row in rows.itertuples():
        assert row.p == pytest.approx(float(always_valid_p(row.deltas)))
        assert (row.low, row.high) == pytest.approx(tuple(map(float, confidence_sequence(row.deltas))))
    told = {"seeds": 5, "comparisons": 3, "decided": found.decided, "undecided": found.undecided}
    assert found.record() == told


def test_a_difference_too_small_to_matter_is_decided_as_well():
    study = cells(seeds=8, a=0.1, b=0.0)
    assert look(replace(study, worth="5%")).undecided == ()
    assert look(replace(study, worth="0.01%")).undecided == ("tie=b",)
    row = analyse(replace(study, worth="5%", stopping={"seeds": "auto"})).factors.set_index("level").loc["b"]
    assert row["verdict"] == "equivalent"
    low, high = confidence_sequence(row["deltas"], 1 - row["p_equivalent"])
    assert max(-float(low), float(high)) == pytest.approx(math.log(1.05))


def test_seeds_without_a_result_are_counted_and_left_out_of_the_comparisons():
    values = [4.0, 4.01, 4.02, 4.03, 3.99, 4.01]
    low = [3.0, None, 3.0, 3.01, 3.02, 3.0]
    found = look(results(trials({"base": values, "a": low, "b": [None] * 6})))
    assert (found.seeds, found.decided, found.undecided) == (6, ("tie=a",), ())


def test_where_nothing_has_a_result_there_is_nothing_to_decide():
    found = look(results(trials({"base": [None] * 3, "a": [4.0] * 3})))
    assert (found.comparisons, found.decided, found.undecided) == (0, (), ())


def test_cells_that_were_evaluated_on_other_data_are_no_comparison():
    study = cells(a=0.1, b=0.1)
    table = study.trials.assign(evaluated=np.where(study.trials["cell"] == "b", "other", "d"))
    assert family(replace(study, trials=table)) == {"tie=a"}


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
