"""Sentences of the page that said more than their rows: each on made-up results on which one once did."""

from __future__ import annotations

import numpy as np
import pandas as pd
from made import _row, results
from test_guards import by_budget_of
from test_headlines import depth_tie, diverged, grid, said

from ablate.analyze.study import analyse
from ablate.report.words import findings


def lost(table, status="FAILED", **of):
    """The same trials, but those of these levels, and of these seeds, have no result."""
    where = np.full(len(table), True)
    for name, value in of.items():
        where &= (table[name if name == "seed" else f"factor.{name}"] == value).to_numpy()
    return diverged(table, where).assign(status=np.where(where, status, table["status"]))


def at_budgets(effects, seeds=5):
    """Trials of dropout on and off at each (budget, tie) of `effects`, which are nats that dropout adds there."""
    rng = np.random.default_rng(0)
    return pd.DataFrame([
        _row(f"dropout={dropout} tie={tie} budget={budget}", seed, 5 + dropout * effect + rng.normal(0, 0.003))
        | {"factor.dropout": str(dropout), "factor.tie": tie, "factor.budget": budget, "seen": 10**6 * int(budget)}
        for (budget, tie), effect in effects.items()
        for dropout in (0, 1)
        for seed in range(seeds)
    ])  # fmt: skip


def test_a_budget_at_which_trials_failed_and_diverged_has_no_result_and_no_number():
    table = lost(by_budget_of({0.5: -0.1, 1: -0.1, 2: -0.1}), dropout="0.5", budget="2")
    table = lost(table, "DIVERGED", dropout="0.5", budget="2", seed=0)
    (_, told, *_) = findings(analyse(results(table)))
    assert told.endswith(" and has no result at budget=2; 1 of 3 trials with it diverged.")
    assert "nan" not in told


def test_divergence_at_one_budget_is_told_of_that_one():
    table = lost(by_budget_of({0.5: -0.1, 1: -0.1, 2: -0.1}, seeds=5), "DIVERGED", dropout="0", budget="0.5", seed=4)
    (_, told, *_) = findings(analyse(results(table)))
    assert "helps at budget=0.5 (" in told
    assert "1 of 5 trials without it diverged) and helps at budget=1 and 2 (" in told


def test_a_crossover_is_told_before_what_a_part_does_at_each_budget():
    table = at_budgets({("1", "no"): 0.2, ("1", "yes"): -0.2, ("2", "no"): 0.2, ("2", "yes"): -0.2})
    told = findings(analyse(results(table)))[0]
    assert told.startswith("What dropout does depends on tie: dropout=1 instead of 0 changes test perplexity by +22")
    assert "exploratory" in told.split(").")[0]
    assert " on average over 2 settings of the rest, 95 % interval" in told


def test_means_over_other_settings_are_no_change_of_sign():
    effects = {("1", "no"): 0.2, ("1", "yes"): -0.1, ("2", "no"): 0.2, ("2", "yes"): -0.1}
    told = findings(analyse(results(lost(at_budgets(effects), dropout="1", tie="no", budget="2"))))[0]
    assert "changes sign" not in told
    assert " at tie=yes alone, 95 % interval" in told


def test_what_is_equivalent_in_some_contexts_names_them_and_who_diverged():
    table = depth_tie(untied=(4.0, 4.0005), tied=(4.1, 4.5))
    (told, *_) = said(table[table["cell"] != "depth=4 tie=true"])
    assert told.endswith("Less difference than ±1.0 % either way: depth=4 instead of 1 at tie=false alone.")
    (_, told, *_) = said(depth_tie(untied=(4.0, 3.8), tied=(4.0, None)))
    assert "either way: tie=true instead of false at depth=1 alone (5 of 10 trials with it diverged)." in told


def test_nothing_matters_most_where_some_setting_does_not_train():
    means = {(("x", x), ("y", y)): None if y == "3" else 4.0 + (x == "2") / 50 for x in "12" for y in "123"}
    assert "matters most" not in " ".join(said(grid(means)))
    trained = {levels: mean for levels, mean in means.items() if mean is not None}
    assert "X matters most" in " ".join(said(grid(trained)))
