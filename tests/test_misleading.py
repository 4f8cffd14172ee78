"""Sentences of the page that said more than their rows: each on made-up results on which one once did."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made import PERPLEXITY, TASK, _row, ladder, one_out, results
from test_guards import by_budget_of
from test_headlines import depth_tie, diverged, grid, said
from test_sources import SQUARE, found_in, study, values

from ablate.analyze.caveats import caveats
from ablate.analyze.evidence import Diverged
from ablate.analyze.guards import disagreements, falling
from ablate.analyze.paired import paired
from ablate.analyze.published import figures
from ablate.analyze.study import analyse
from ablate.metric import Metric
from ablate.report import told
from ablate.report.figures import stability
from ablate.report.files import Files
from ablate.report.noise import noise_told
from ablate.report.notes import effects_caption
from ablate.report.records import published
from ablate.report.sections import make_sections
from ablate.report.tables import _changes as changes
from ablate.report.warnings import caveats_told, warnings_of
from ablate.report.words import findings, stopped


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


AUTO = {"seeds": "auto", "max_seeds": 9, "look": None}


def page(results, folder):
    """The sections' sentences, and the comparison as Markdown."""
    made = make_sections(results, analyse(results), defaultdict(lambda: None), Files(folder, "study"))
    said = {section.id: " ".join(section.says) for section in made}
    return said, (folder / "comparison.md").read_text(encoding="utf-8")


def test_an_interval_that_seeds_auto_cannot_give_is_not_told_as_a_lack_of_spread(tmp_path):
    few = lost(depth_tie(noise=0.05, seeds=3), depth="4", tie="false", seed=2)
    apart = depth_tie(noise=0.05)
    apart.loc[apart["cell"] == "depth=4 tie=false", "seed"] += 10
    for table in (few, apart):
        _, shown = page(replace(results(table), stopping=AUTO), tmp_path)
        assert "(no interval)" in shown
        assert "no spread" not in shown


def test_the_page_of_seeds_auto_names_the_test_that_it_used(tmp_path):
    said, shown = page(replace(results(depth_tie()), stopping=AUTO), tmp_path)
    assert "Student's t: a rule" not in said["method"]
    assert "at all looks at once" in said["method"]
    assert "p: t test that is valid at every look" in shown
    said, shown = page(results(depth_tie()), tmp_path)
    assert "Student's t: a rule" in said["method"]
    assert "p: t test, corrected" in shown


def test_rows_without_pairs_are_told_from_chance_by_their_seeds():
    table = grid({(("x", "1"),): 4.0, (("x", "2"),): 3.99}, noise=0.05)
    table.loc[table["cell"] == "x=2", "seed"] += 10
    assert said(table)[-1].endswith(" beside x=1, the first row, which these seeds cannot tell from chance.")


def test_no_winner_is_named_alone_where_validation_is_a_tie():
    table = grid({(("x", "1"),): 4.0, (("x", "2"),): 3.9, (("x", "3"),): 3.8})
    table.loc[table["cell"] != "x=1", ["valid_nll", "valid_perplexity"]] = [3.0, np.exp(3.0)]
    assert said(table)[-1].startswith("x=2 has, like x=3, the lowest valid perplexity")


def test_two_ways_of_measuring_a_part_differ_by_what_is_said():
    subsets = {"none": "", "only a": "a", "only b": "b", "without a": "bc", "without b": "ac", "full": "abc"}
    table = ladder({"a": -0.1, "b": -0.05, "c": -0.05}, seeds=8, noise=0.002, subsets=subsets)
    table.loc[(table["cell"] == "without a") & (table["seed"] > 3), "test_nll"] += 0.2
    table.loc[table["cell"] == "only a", "test_nll"] -= 0.05
    few = ((table["cell"] == "only a") & (table["seed"] > 3)).to_numpy()
    design = {"kind": "leave_one_out+add_one_in", "components": ["a", "b", "c"]}
    found = analyse(results(diverged(table, few), design=design)).disagreements
    row = found.set_index("component").loc["a"]
    assert row["n"] == 4
    assert row["first_effect"] - row["second_effect"] == pytest.approx(row["effect"])


def test_a_part_without_which_most_trials_diverge_is_named_and_nothing_has_the_largest_benefit():
    table = one_out({"a": -0.2, "b": -0.05, "c": -0.03}, seeds=3, noise=0.003)
    design = {"kind": "leave_one_out", "components": ["a", "b", "c"]}
    table.loc[table["cell"] == "without a", "test_nll"] -= 0.4  # the one that is left is lucky
    where = ((table["cell"] == "without a") & (table["seed"] < 2)).to_numpy()
    (_, told, *_) = said(diverged(table, where), design)
    assert told.startswith("B earns its keep: ")
    assert "Of a (without it −18" in told
    assert "nothing can be said: the side that looks better lost more trials." in told


def test_what_varies_in_its_last_digit_alone_has_no_spread():
    found = paired([12092.91] * 3)
    assert np.std([12092.91] * 3, ddof=1) > 0
    assert (found.sd, found.p) == (0.0, 0.25)


def test_a_hyphen_in_a_unit_is_no_minus():
    metric = Metric("score", "higher", unit="F1-points")
    assert told.value(metric, -1.5, 0.1) == "−1.50 ± 0.10 F1-points"
    assert told.change(metric, 2.0) == "−2.00 F1-points"
    assert metric.text(-1.5) == "−1.50 F1-points"


def test_what_could_have_been_shown_is_a_size_whichever_way_is_better():
    rows = pd.DataFrame({"detectable": [0.5], "lost": [Diverged()], "deltas": [()], "delta_seeds": [()], "contrast": 0})
    for better in ("lower", "higher"):
        assert changes(Metric("score", better), rows)["detectable"].tolist() == [0.5]


def test_a_row_without_a_result_is_no_single_run():
    table = grid({(("x", "1"),): 4.0, (("x", "2"),): None}, seeds=1)
    (first, *_) = warnings_of(results(table), analyse(results(table)))
    assert first.startswith("Every row that has a result is a single run (n = 1)")


def test_a_table_of_effects_says_where_there_are_no_pairs():
    table = grid({(("x", "1"),): 4.0, (("x", "2"),): 3.99}, noise=0.05)
    for shift, welch in ((0, False), (10, True)):
        table.loc[table["cell"] == "x=2", "seed"] += shift
        found = analyse(results(table))
        (note, *_) = effects_caption(results(table), found, found.factors, "by it")
        assert ("Welch's" in note.says) == welch


def test_where_every_trial_diverged_this_is_what_is_told():
    table = depth_tie()
    assert said(diverged(table, np.full(len(table), True)))[-1] == "No trial has a result: 20 of 20 diverged."


def test_seeds_with_other_numbers_of_blocks_give_no_interval_over_test_data():
    table = one_out({"a": -0.2, "b": -0.02}, seeds=4, noise=0.002)
    blocks = pd.DataFrame([
        {"cell": row.cell, "seed": row.seed, "block": block, "examples": 10, "total": 10 * row.test_nll + block}
        for row in table.itertuples()
        for block in range(3 if row.seed % 2 else 5)
    ])  # fmt: skip
    design = {"kind": "leave_one_out", "components": ["a", "b"]}
    assert analyse(results(table, design=design, blocks=blocks)).components["text_low"].isna().all()


def test_a_comparison_that_is_left_alone_is_not_all_that_the_study_was_made_for():
    assert "where the only comparison that has a result is decided" in stopped(
        {"max_seeds": 6, "look": {"seeds": 3, "decided": ["a"], "undecided": []}}
    )


def test_a_part_that_two_designs_answer_differently_is_told_by_both():
    subsets = {"full": "abc", "without a": "bc", "without b": "ac", "without c": "ab", "none": "", "+ a": "a"}
    table = ladder({"a": 0.1, "b": -0.03, "c": -0.03}, noise=0.003, subsets=subsets)
    table.loc[table["cell"] == "full", "test_nll"] -= 0.3
    design = {"kind": "leave_one_out+cumulative", "components": ["a", "b", "c"]}
    (told, _) = said(table, design)
    assert " and a (without it +2" in told
    assert "Measured another way, a hurts: added in its turn it makes test perplexity 10." in told
    assert "another way, b" not in told
    few = diverged(table, ((table["cell"] == "without a") & (table["seed"] > 0)).to_numpy()).assign(status="FAILED")
    few["status"] = few["status"].where(few["test_nll"].isna(), "FINISHED")
    (told, _) = said(few, design)
    assert "Whether a (without it +2" in told
    assert "Measured another way, a hurts: " in told
    (_, told, _) = said(diverged(table, (table["cell"] == "full").to_numpy()), design)
    assert told.startswith("A hurts: added in its turn it makes")


def test_no_source_is_called_the_largest_where_that_is_not_settled():
    (told,) = noise_told(PERPLEXITY, found_in(study(values((0.02, 0.02, 0.02), 0.002))))
    assert told.startswith("Of the sources of noise in test perplexity the largest estimate is that of ")
    assert told.endswith("not settled.")


def test_a_source_of_few_seeds_may_be_the_largest_although_its_estimate_is_the_least():
    codes = np.array([(a, b, c) for a in range(9) for b in range(9) for c in range(2)])
    wide, narrow, pair = (np.random.default_rng(1).normal(0, 1, n) for n in (9, 9, 2))
    rest = np.random.default_rng(2).normal(0, 0.001, len(codes))
    score = 4 + 0.05 * wide[codes[:, 0]] + 0.005 * narrow[codes[:, 1]] + 0.003 * pair[codes[:, 2]] + rest
    found = found_in(study(score.tolist(), codes))
    first, second, third = found.table["low"][0], found.table["high"][1], found.table["high"][2]
    assert second < first < third
    (told,) = noise_told(PERPLEXITY, found)
    assert told.startswith("Of the sources")
    assert told.endswith("not settled.")


def test_what_diverged_is_told_before_the_sources_of_noise():
    table = study(values())
    where = SQUARE[:, 0] == 0
    told = findings(analyse(results(diverged(table, where), design={"kind": "latin_square"})))
    assert told[0].startswith("Trials that diverged: ")
    assert len(told) == 2


def test_the_figure_by_seeds_has_no_interval_of_two_that_are_alike(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(stability, "save", lambda *drawn: shown.extend(drawn[-1]))
    effects = pd.DataFrame({"name": ["a"], "deltas": [(0.01, 0.01, 0.02, 0.03)], "verdict": ["helps"]})
    for looked in (False, True):
        stability.draw_stability(Metric("error"), effects, None, looked, tmp_path)
        assert shown[-1].says[0] == "+0.0100, without an interval, by the first 2 seeds"
        assert shown[-1].says[1].startswith("+0.0133 (−0.0")


def test_the_settings_of_an_average_are_words_in_a_spreadsheet():
    found = analyse(results(depth_tie())).factors
    assert changes(PERPLEXITY, found)["where"].tolist()[0] == "tie=false; tie=true"


def test_a_row_has_not_converged_only_where_most_of_its_trials_have_not():
    table = grid({(("x", "1"),): 4.0}).assign(steps=8)
    points = pd.DataFrame([
        {"cell": "x=1", "seed": seed, "split": "valid", "step": step, "nll": 4 - step / 20}
        for seed in range(5)
        for step in (2, 4, 8)
    ])  # fmt: skip
    for late, speaks in ((1, False), (3, True)):
        best = np.where(table["seed"] < late, 8, 4)
        assert bool(falling(PERPLEXITY, table.assign(best_step=best), points)) is speaks


def test_rows_whose_valid_and_test_data_agree_are_not_blamed_for_as_many_that_do_not():
    table = grid({(("x", "1"),): 4.0, (("x", "2"),): 3.9})
    for apart in (-2.0, 2.0):
        odd = table.assign(valid_nll=table["test_nll"] + np.where(table["cell"] == "x=2", apart, 0.0))
        assert {each.cell for each in disagreements(PERPLEXITY, odd)} == {"x=2"}


def test_a_row_of_which_some_trials_are_evaluated_on_other_data_is_not_compared():
    table = grid({(("x", "1"),): 4.0, (("x", "2"),): 3.9})
    for cell in ("x=1", "x=2"):
        odd = table.assign(evaluated=np.where((table["cell"] == cell) & (table["seed"] == 1), "e", "d"))
        assert said(odd)[-1].startswith("x=1 reaches a test perplexity of ")


def test_warnings_say_no_more_than_was_recorded():
    table = grid({(("x", "1"),): 4.0, (("x", "2"),): 3.9})
    table["precision"] = np.where(table["cell"] == "x=1", "fp32", "bf16")
    (told, *_) = warnings_of(results(table), analyse(results(table)))
    assert told.endswith("Results change with the precision, and times cannot be compared.")
    waiting = lost(table.assign(precision="fp32"), "UNFINISHED", x="2")
    (*_, told) = warnings_of(results(waiting), analyse(results(waiting)))
    assert told.endswith("(5 unfinished). The means of these rows will change with them.")
    accuracy = Metric("accuracy", better="higher")
    shown = replace(caveats(PERPLEXITY, TASK, table), not_finite=[("x=2", 1)])
    assert "A test accuracy that is no finite number counts as no result: x=2 (seed 1)." in caveats_told(
        accuracy, TASK, shown
    )


def on_blocks(table, apart):
    """Ten blocks of test data, on which cells differ by up to `apart` more or less than on average, by their place."""
    place = {cell: i for i, cell in enumerate(dict.fromkeys(table["cell"]))}
    return pd.DataFrame([
        {"cell": row.cell, "seed": row.seed, "block": block, "examples": 10}
        | {"total": 10 * (row.test_nll + place[row.cell] * apart * (1 if block % 2 else -1))}
        for row in table.itertuples()
        for block in range(10)
    ])  # fmt: skip


def test_what_is_as_good_as_none_on_these_test_data_may_be_more_on_others():
    parts = one_out({"a": -0.2, "b": 0.0}, seeds=6, noise=0.001)
    means = {(("x", x), ("y", y)): 4.0 - (y == "2") / 5 for x in "12" for y in "12"}
    factors = grid(means, noise=0.0005)
    design = {"kind": "leave_one_out", "components": ["a", "b"]}
    for table, of in ((parts, design), (factors, None)):
        for apart, larger in ((0.03, True), (0.0001, False)):
            told = " ".join(findings(analyse(results(table, design=of, blocks=on_blocks(table, apart)))))
            assert "ess difference than ±1.0 %" in told
            assert ("with other test data the difference may be larger (−" in told) is larger


def test_what_helps_at_a_budget_may_be_nothing_on_other_test_data():
    table = by_budget_of({0.5: -0.02, 1: -0.02, 2: -0.02})
    for apart, none in ((0.05, True), (0.0001, False)):
        told = " ".join(findings(analyse(results(table, blocks=on_blocks(table, apart)))))
        assert "helps at budget=" in told
        assert ("; with other test data it may be none (−" in told) is none


def test_beside_what_is_published_trials_that_diverged_are_told_and_no_infinite_number():
    table = grid({(("x", "1"),): 4.8, (("x", "2"),): 4.7}, seeds=3).assign(data="ptb")
    recipe = next(figure["match"] for figure in figures("language_model") if figure["match"])
    for name, value in recipe.items():
        table[f"knob.{name}"] = pd.Series([None if value == "null" else value] * len(table), dtype=object)
    first = (table["cell"] == "x=1").to_numpy()
    table.loc[~first, "knob.depth"] = 7
    some = published(analyse(results(diverged(table, first & (table["seed"] == 0).to_numpy()))))
    assert some.rows[0][1].endswith(" (n = 2; 1 of 3 diverged)")
    none = published(analyse(results(diverged(table, first))))
    assert none.says[0].startswith("No cell that has a result follows a published recipe.")
    table.loc[first & (table["seed"] == 0), ["test_nll", "test_perplexity"]] = [800.0, np.inf]
    assert published(analyse(results(table))).rows[0][1] == "over 1,000,000 (n = 3)"
