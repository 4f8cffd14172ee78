"""Guards: each speaks where it should, names the rows, and is silent otherwise; and effects by budget."""

from __future__ import annotations

import math
from dataclasses import replace

import made
import numpy as np
import pandas as pd
import pytest
from made import PERPLEXITY

from ablate.analyze.by_budget import changes_of_sign, effects_by_budget
from ablate.analyze.evidence import Evidence
from ablate.analyze.guards import guards
from ablate.analyze.study import analyse
from ablate.report.guards import guards_told
from ablate.report.names import part_of
from ablate.report.warnings import warnings_of
from ablate.report.words import findings
from ablate.study.records import task_record
from ablate.tasks.language_model import LANGUAGE_MODEL

TASK = task_record(LANGUAGE_MODEL)

FINE = made.trials({"a": [4.0, 4.01], "b": [4.1, 4.11], "c": [4.05, 4.06]}, steps=1000).assign(
    best_step=700, first_nll=math.log(5000), clipped=0.2
)


def curve(table, valid=lambda step: 5.0, train=lambda step: 5.0):
    """Four measurements of every trial."""
    rows = [
        {"cell": row.cell, "seed": row.seed, "split": split, "step": step, "nll": nll(step)}
        | {"perplexity": np.exp(nll(step))}
        for row in table.itertuples()
        for split, nll in (("valid", valid), ("train", train))
        for step in (250, 500, 750, 1000)
    ]
    return pd.DataFrame(rows)


def told(table, points=None, metric=PERPLEXITY, task=TASK):
    points = curve(table).iloc[:0] if points is None else points
    return guards_told(metric, task, guards(metric, task, table, points), table)


def about(words):
    """What gives the sentence that holds these words; "" where no guard says it."""

    def find(table, points=None):
        return next((sentence for sentence in told(table, points) if words in sentence), "")

    return find


starts, not_converged = about("do not start alike"), about("Not converged")
valid_against_test, capacity = about("disagree about"), about("differ in size")
clipped, jumps = about("clipped nearly always"), about("train loss jumped")


def changed(cell, **columns):
    table = FINE.copy()
    for name, value in columns.items():
        table.loc[table["cell"] == cell, name] = value
    return table


def test_a_comparison_that_is_one_is_left_alone():
    assert told(FINE, curve(FINE)) == []
    assert told(FINE.iloc[:0], curve(FINE).iloc[:0]) == []


def test_a_model_that_starts_worse_than_guessing_is_named():
    said = starts(changed("b", first_nll=math.log(5000) + 1.8).assign(**{"knob.init": "fan_in"}))
    assert "the loss of the first window is higher, in nats, in b (by 1.80)" in said
    assert "init=scaled" in said
    assert "init=scaled" not in starts(changed("b", first_nll=math.log(5000) + 1.8)), "nothing has such a knob"
    scaled = changed("b", first_nll=math.log(5000) + 1.8).assign(**{"knob.init": "scaled"})
    assert "init=scaled" not in starts(scaled), "they have it"
    assert starts(changed("b", first_nll=math.log(5000) + 0.09)) == ""


def test_what_does_not_begin_with_the_same_data_is_no_other_start():
    assert starts(changed("b", alike="another first window", first_nll=2.0)) == ""
    assert starts(changed("b", first_nll=2.0).assign(alike=None)) == "", "nobody knows"


def test_a_name_with_a_hyphen_stays_as_it_is():
    renamed = changed("b", first_nll=20.0).replace({"cell": {"b": "lr=1e-05"}})
    assert "lr=1e-05 (" in starts(renamed)


@pytest.mark.parametrize(("best", "fall", "speaks"), [(1000, 0.05, True), (1000, 0.01, False), (900, 0.05, False)])
def test_what_still_falls_at_the_end_has_not_converged(best, fall, speaks):
    table = changed("c", best_step=best)
    said = not_converged(table, curve(table, valid=lambda step: 5.0 if step < 1000 else 5.0 - fall))
    assert bool(said) is speaks
    if speaks:
        assert "c (−4.9 %)" in said
        assert "a (" not in said
        assert "falling learning rate" not in said
        assert "falling learning rate" in not_converged(
            table.assign(**{"knob.schedule": "linear"}), curve(table, valid=lambda step: 5 - step / 1000)
        )


def test_the_last_half_is_read_between_validations_where_none_fell_on_it():
    table = changed("c", best_step=1000)
    far_apart = curve(table, valid=lambda step: 5 - 0.018 * math.log2(step))
    assert not_converged(table, far_apart) == ""
    far_apart = far_apart[far_apart["step"] != 500]
    assert not_converged(table, far_apart) == "", "0.018 nats in the last doubling, 0.036 since window 250"
    steeper = curve(table, valid=lambda step: 5 - 0.03 * math.log2(step))
    assert "c (−3.0 %)" in not_converged(table, steeper[steeper["step"] != 500])


def test_a_longer_budget_is_twice_the_cells_own():
    table = FINE.assign(best_step=1000, **{"knob.budget": 4.0})
    assert "budget=4,8 shows" in not_converged(table, curve(table, valid=lambda step: 6 - step / 1000))


def test_only_the_longest_budget_can_have_converged():
    table = FINE.assign(best_step=1000)
    table["knob.budget"] = table["factor.budget"] = table["cell"].map({"a": 0.25, "b": 0.5, "c": 1.0})
    said = not_converged(table, curve(table, valid=lambda step: 6 - step / 1000))
    assert "c (" in said
    assert "a (" not in said


def test_a_trial_whose_valid_and_test_text_disagree_is_named():
    table = FINE.copy()
    table.loc[(table["cell"] == "a") & (table["seed"] == 1), "valid_nll"] += 1.2
    table["valid_perplexity"] = np.exp(table["valid_nll"])
    said = valid_against_test(table)
    assert "a seed 1 (valid" in said
    assert "carried" not in said
    assert "carried from window to window" in valid_against_test(table.assign(**{"knob.carry": True}))
    assert "seed 0" not in said
    assert valid_against_test(FINE.assign(valid_nll=FINE["valid_nll"] + 1.2)) == "", "all of them alike"
    table.loc[(table["cell"] == "a") & (table["seed"] == 1), "valid_nll"] -= 1.15
    assert valid_against_test(table) == ""


def test_rows_of_other_sizes_are_named():
    said = capacity(changed("b", parameters=150))
    assert "from 100 parameters (a, c) to 150 (b)" in said
    assert capacity(changed("b", parameters=109)) == ""


def test_a_gradient_that_is_nearly_always_clipped_is_told():
    assert "b (95 %)" in clipped(changed("b", clipped=0.95))
    assert clipped(changed("b", clipped=0.9)) == ""
    always = changed("b", clipped=1.0)
    assert clipped(always.assign(**{"knob.optimizer": "sgd"})) != ""
    assert clipped(always.assign(**{"knob.optimizer": "adam"})) == "", "Adam divides the gradient by its size"


def test_a_jump_of_the_train_loss_is_told():
    spiked = curve(FINE, train=lambda step: 6.5 if step == 750 else 5.0)
    said = jumps(FINE, spiked[spiked["cell"] == "b"])
    assert "b (by 1.5 nats)" in said
    assert jumps(FINE, curve(FINE, train=lambda step: 5.4 if step == 750 else 5.0)) == ""


def test_losses_that_are_no_finite_numbers_are_left_to_others():
    wild = curve(FINE, train=lambda step: math.inf if step > 500 else math.nan, valid=lambda step: math.inf)
    assert told(FINE.assign(best_step=1000), wild) == []


def test_guards_reach_the_page_and_the_terminal():
    table = changed("b", clipped=1.0)
    study = made.results(table, points=made.curves(table))
    said = warnings_of(study, analyse(study))
    assert any("clipped nearly always in b (100 %)" in warning for warning in said)


def by_budget(table, components):
    return effects_by_budget(Evidence(PERPLEXITY, table), components, "budget")


def by_budget_of(effects, seeds=3, noise=0.002):
    """Trials of dropout 0 and 0.5 at each budget; `effects`: budget → nats that dropout adds."""
    rng = np.random.default_rng(0)
    rows = [
        made._row(f"dropout={dropout:g} budget={budget:g}", seed, 5 - budget + 2 * dropout * effect + noise * r)
        | {"factor.dropout": f"{dropout:g}", "factor.budget": f"{budget:g}", "seen": int(1_000_000 * budget)}
        for budget, effect in effects.items()
        for dropout in (0.0, 0.5)
        for seed, r in enumerate(rng.normal(size=seeds))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_an_effect_is_measured_within_each_budget():
    found = by_budget(by_budget_of({0.1: 0.1, 1: -0.05}), None)
    assert list(found["budget"]) == [0.1, 1.0]
    assert list(found["verdict"]) == ["hurts", "helps"]
    assert found["effect"].to_numpy(float) == pytest.approx([0.1, -0.05], abs=0.01)
    assert (found["n"] == 3).all()
    assert list(found["seen"]) == [100_000, 1_000_000]
    assert by_budget(made.trials({"a": [1.0], "b": [2.0]}), None).empty


def test_a_change_of_sign_is_found_between_its_budgets_and_said_first():
    table = by_budget_of({0.1: 0.1, 0.25: 0.05, 0.5: -0.05, 1: -0.1})
    (change,) = changes_of_sign(by_budget(table, None))
    assert (change.before["budget"], change.after["budget"]) == (0.25, 0.5)
    assert 330_000 < change.seen < 380_000
    first = findings(analyse(made.results(table)))[0]
    assert first.startswith("Dropout=0.5 instead of 0 hurts at budget=0.1 and 0.25 (at 0.25: +4.9 %")
    assert " and helps at budget=0.5 and 1 (at 0.5: −4.7 %" in first
    assert first.endswith("its mean effect changes sign near 350,000 tokens of training.")


def test_every_budgets_verdict_is_told_where_the_sign_changes_twice():
    table = by_budget_of({0.25: 0.1, 0.5: -0.05, 1: 0.08})
    first = findings(analyse(made.results(table)))[0]
    places = [first.index(what) for what in ("hurts at budget=0.25 (", "helps at budget=0.5 (", "hurts at budget=1 (")]
    assert places == sorted(places)
    assert "changes sign near 390,000 and 660,000 tokens" in first


def test_a_budget_that_seeds_cannot_tell_is_not_counted_with_its_neighbour():
    table = by_budget_of({0.25: 0.1, 0.5: -0.1, 1: -0.001}, noise=0.02)
    first = findings(analyse(made.results(table)))[0]
    assert "helps at budget=0.5 (−" in first
    assert "cannot be told from chance at budget=1 (" in first


def test_a_budget_without_a_result_is_not_spoken_for():
    table = by_budget_of({0.5: -0.1, 1: -0.1, 2: -0.1})
    table.loc[table["factor.budget"] == "2", ["test_nll", "test_perplexity"]] = np.nan
    table.loc[table["factor.budget"] == "2", "status"] = "FAILED"
    first = findings(analyse(made.results(table)))[0]
    assert first.startswith("Dropout=0.5 instead of 0 helps at budget=0.5 and 1 (")
    assert "2" not in first.split("(")[0].replace("0.5", "")


def test_a_change_of_sign_that_seeds_cannot_tell_is_not_said():
    table = by_budget_of({0.5: 0.006, 1: -0.02}, noise=0.015)
    said = findings(analyse(replace(made.results(table), worth="0.1%")))[0]
    assert "cannot be told from chance at budget=0.5 and 1 (" in said
    assert "helps" not in said
    assert "changes sign" not in said


def test_a_change_of_sign_of_which_one_side_is_sure_is_that_side():
    table = by_budget_of({0.25: 0.1, 1: -0.01}, noise=0.02)
    said = findings(analyse(made.results(table)))[0]
    assert said.startswith("Dropout=0.5 instead of 0 hurts at budget=0.25 (+")
    assert "cannot be told from chance at budget=1 (−" in said
    assert "helps" not in said
    assert "changes sign" not in said


def test_an_effect_that_keeps_its_sign_is_said_so():
    table = by_budget_of({0.5: -0.1, 1: -0.2})
    assert not changes_of_sign(by_budget(table, None))
    said = findings(analyse(made.results(table)))[0]
    assert said.startswith("Dropout=0.5 instead of 0 helps at budget=0.5 and 1 (")
    assert "changes sign" not in said


def test_parts_of_a_design_are_followed_too():
    tables = [
        made.one_out({"dropout": effect, "tying": -0.05}).assign(**{"factor.budget": budget})
        for budget, effect in (("0.5", 0.1), ("1", -0.1))
    ]
    for table, budget in zip(tables, ("0.5", "1"), strict=True):
        table["cell"] = f"budget={budget} " + table["cell"]
        table["seen"] = int(1000 * float(budget))
    found = by_budget(pd.concat(tables, ignore_index=True), ["dropout", "tying"])
    assert list(zip(found["part"], found["verdict"], strict=True)) == [
        ("dropout", "hurts"), ("dropout", "helps"), ("tying", "helps"), ("tying", "helps"),
    ]  # fmt: skip
    assert [change.before["part"] for change in changes_of_sign(found)] == ["dropout"]


def test_a_way_of_measuring_is_named_where_a_study_has_several():
    tables = []
    for budget, effect in (("0.5", 0.1), ("1", -0.1)):
        one = made.one_out({"dropout": effect, "tying": -0.05})
        ladder = made.ladder({"dropout": effect, "tying": -0.05})
        tables.append(pd.concat([one, ladder[~ladder["cell"].isin(one["cell"])]]).assign(**{"factor.budget": budget}))
        tables[-1]["cell"] = f"budget={budget} " + tables[-1]["cell"]
    found = by_budget(pd.concat(tables, ignore_index=True), ["dropout", "tying"])
    assert {part_of(row) for row in found.to_dict("records")} <= {
        f"{part}, {how},"
        for part in ("dropout", "tying")
        for how in ("taken from the full model", "averaged over all orders")
    }


def test_a_budget_at_which_every_trial_of_one_side_diverged_is_told_as_that_and_not_left_out():
    table = by_budget_of({0.5: -0.1, 1: -0.1, 2: -0.1})
    lost = (table["factor.budget"] == "2") & (table["factor.dropout"] == "0.5")
    table.loc[lost, ["test_nll", "test_perplexity"]] = np.nan
    table.loc[lost, "status"] = "DIVERGED"
    analysis = analyse(made.results(table))
    assert list(analysis.by_budget["verdict"]) == ["helps", "helps", "diverges"]
    _, told, *_ = findings(analysis)
    assert told.startswith("Dropout=0.5 instead of 0 helps at budget=0.5 and 1 (at 1: −9.")
    assert told.endswith(
        " and has no effect that could be told, for every trial of one side diverged, at budget=2; "
        "3 of 3 trials with it diverged."
    )
