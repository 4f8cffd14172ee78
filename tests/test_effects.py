"""Effects of factors and components: held against other packages, against known truths, and on studies with holes."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pandas as pd
import pingouin as pg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import PERPLEXITY
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from ablate.analyze import component_effects, disagreements, factor_effects, interactions, variance, variance_shares
from ablate.analyze.evidence import Evidence, complete
from ablate.analyze.families import judge_alone
from ablate.analyze.paired import paired
from ablate.analyze.variance import LEAST_SQUARES, MIXED_MODEL, MIXED_MODEL_FAILED
from ablate.report.parts import disagreement

# pingouin calls pandas in a way that pandas 4 will no longer have.
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.dropna")


def study(levels, nll, seeds=5, components=None):
    """One row a trial. levels: cell → {factor: level}; nll: (cell, seed) → test_nll, None: it failed."""
    rows = [
        {
            "cell": cell,
            "seed": seed,
            "status": "FAILED" if nll(cell, seed) is None else "FINISHED",
            "test_nll": nll(cell, seed),
            **{f"factor.{name}": level for name, level in its.items()},
            **{f"component.{name}": on for name, on in (components or {}).get(cell, {}).items()},
        }
        for cell, its in levels.items()
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def grid(seeds=5, seed=0, without=(), **factors):
    """A grid with noise; `without`: (cell, seed) that failed."""
    levels = {
        " ".join(f"{k}={v}" for k, v in zip(factors, combination, strict=True)): dict(
            zip(factors, combination, strict=True)
        )
        for combination in product(*factors.values())
    }
    rng = np.random.default_rng(seed)
    shared = 0.03 * rng.normal(size=seeds)
    values = {
        (c, s): 5 + shared[s] + 0.01 * i + 0.01 * rng.normal() for i, c in enumerate(levels) for s in range(seeds)
    }
    return study(levels, lambda c, s: None if (c, s) in without else values[c, s], seeds)


def ablation(designs, nll, seeds=4):
    """Cells by the set of components that are on: label ↦ "ab" and so on; every component is its own factor."""
    names = sorted(set("".join(designs.values())))
    states = {cell: {name: name in on for name in names} for cell, on in designs.items()}
    levels = {cell: {f"knob_{n}": str(on).lower() for n, on in its.items()} for cell, its in states.items()}
    return study(levels, lambda c, s: nll(designs[c], s), seeds, states)


def subsets(names):
    return ["".join(some) for size in range(len(names) + 1) for some in combinations(names, size)]


def wavy(on, seed):
    """Some function of components and seed, without any structure."""
    return 5 + 0.05 * np.sin(7 * seed + sum(map(ord, on)) ** 2) - 0.02 * len(on)


def only(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


# --- Factors.


def test_a_main_effect_is_the_one_of_a_repeated_measures_anova():
    table = grid(depth=["1", "2", "4"], tie=["false", "true"])
    told = pg.rm_anova(
        data=table.rename(columns={"factor.depth": "depth", "factor.tie": "tie"}),
        dv="test_nll", within=["depth", "tie"], subject="seed",
    ).set_index("Source")  # fmt: skip
    row = only(factor_effects(Evidence(PERPLEXITY, table)), factor="tie", at="")
    assert row["p"] == pytest.approx(told.loc["tie", "p_unc"])
    assert (row["n"], row["contexts"], row["dropped"], row["reference"]) == (5, 3, 0, "false")


def test_an_interaction_is_the_one_of_a_repeated_measures_anova():
    table = grid(depth=["1", "2"], tie=["false", "true"])
    told = pg.rm_anova(
        data=table.rename(columns={"factor.depth": "depth", "factor.tie": "tie"}),
        dv="test_nll", within=["depth", "tie"], subject="seed",
    ).set_index("Source")  # fmt: skip
    row = only(interactions(Evidence(PERPLEXITY, table)))
    assert row["p"] == pytest.approx(told.loc["depth * tie", "p_unc"])
    nll = table.pivot(index="seed", columns="cell", values="test_nll").to_numpy()
    delta = (nll[:, 3] - nll[:, 2]) - (nll[:, 1] - nll[:, 0])
    assert (row["effect"], row["low"], row["high"]) == pytest.approx(
        (paired(delta).mean, paired(delta).low, paired(delta).high)
    )


def test_a_simple_effect_is_the_paired_t_test_at_its_combination():
    table = grid(depth=["1", "2", "4"], tie=["false", "true"])
    found = factor_effects(Evidence(PERPLEXITY, table))
    nll = table.pivot(index="seed", columns="cell", values="test_nll")
    row = only(found, factor="depth", level="4", at="tie=true")
    assert row["p"] == pytest.approx(stats.ttest_rel(nll["depth=4 tie=true"], nll["depth=1 tie=true"]).pvalue)
    assert found["p_holm"].tolist() == pytest.approx(pg.multicomp(found["p"].to_numpy(), method="holm")[1])
    assert len(found) == 3 + 7


def test_a_factor_that_was_varied_alone_has_a_marginal_effect_and_no_simple_ones():
    table = grid(tie=["false", "true"])
    assert factor_effects(Evidence(PERPLEXITY, table))[["at", "contexts"]].to_numpy().tolist() == [["", 1]]
    assert interactions(Evidence(PERPLEXITY, table)).empty


def test_effects_come_out_as_they_were_put_in_with_the_word_for_them():
    rng = np.random.default_rng(0)
    levels = {f"{d} {t}": {"depth": d, "tie": t} for d in "12" for t in ("no", "yes")}
    effect = {"1 no": 0, "2 no": 0.2, "1 yes": -0.1, "2 yes": -0.3}
    noise = {key: 0.003 * rng.normal() for key in product(levels, range(6))}
    found = study(levels, lambda c, s: 5 + s + effect[c] + noise[c, s], 6)
    depth, tie = (only(factor_effects(Evidence(PERPLEXITY, found)), factor=f, at="") for f in ("depth", "tie"))
    assert (depth["effect"], tie["effect"]) == pytest.approx((0.0, -0.3), abs=0.01)
    assert (depth["verdict"], tie["verdict"]) == ("undecided", "helps")
    assert only(factor_effects(Evidence(PERPLEXITY, found)), factor="depth", at="tie=no")["verdict"] == "hurts"
    assert only(interactions(Evidence(PERPLEXITY, found)))["verdict"] == "better together"


def test_a_failed_trial_takes_its_seed_and_a_failed_cell_its_combination_and_both_are_counted():
    lost = [("depth=2 tie=true", 1), *[("depth=4 tie=true", s) for s in range(5)]]
    found = factor_effects(Evidence(PERPLEXITY, grid(depth=["1", "2", "4"], tie=["false", "true"], without=lost)))
    row = only(found, factor="depth", level="2", at="")
    assert (row["n"], row["contexts"], row["dropped"]) == (4, 2, 2)
    row = only(found, factor="depth", level="4", at="")
    assert (row["n"], row["contexts"], row["dropped"]) == (5, 1, 5)
    row = only(found, factor="depth", level="4", at="tie=true")
    assert (row["n"], row["verdict"], row["dropped"]) == (0, "no result", 5)
    row = only(found, factor="tie", at="")
    assert (row["n"], row["contexts"]) == (4, 2)


def test_a_combination_that_was_never_asked_for_is_no_loss():
    table = grid(depth=["1", "2"], tie=["false", "true"])
    table = table[table["cell"] != "depth=2 tie=true"]
    row = only(factor_effects(Evidence(PERPLEXITY, table)), factor="depth")
    assert (row["contexts"], row["dropped"], row["n"]) == (1, 0, 5)
    assert interactions(Evidence(PERPLEXITY, table)).empty


def test_levels_that_an_older_journal_leaves_out_are_read_from_the_knobs():
    table = grid(depth=["1", "2"], tie=["false", "true"])
    table["knob.tie"] = table["factor.tie"] == "true"
    whole = factor_effects(Evidence(PERPLEXITY, table))
    table.loc[table["factor.tie"] == "false", "factor.tie"] = None
    assert factor_effects(Evidence(PERPLEXITY, table)).equals(whole)


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=6))
def test_every_seed_that_is_used_has_all_the_contexts_that_are_used(known):
    known = np.array(known)
    seeds, contexts = complete(known)
    assert known[np.ix_(seeds, contexts)].all()
    assert seeds.any() == contexts.any() == known.any()


@given(st.permutations(range(5)), st.floats(-2, 2))
@settings(deadline=None, max_examples=15)
def test_neither_the_names_of_the_seeds_nor_what_they_share_change_an_effect(order, shared):
    table = grid(depth=["1", "2"], tie=["false", "true"])
    moved = table.assign(seed=[order[s] for s in table["seed"]], test_nll=table["test_nll"] + shared * table["seed"])
    for analysis in (factor_effects, interactions):
        one, other = (
            analysis(Evidence(PERPLEXITY, t))[["effect", "low", "high", "p"]].to_numpy(float) for t in (table, moved)
        )
        assert np.allclose(one, other, atol=1e-7)


@pytest.mark.parametrize(
    "table",
    [
        grid(seeds=1, depth=["1", "2"], tie=["false", "true"]),
        grid(depth=["1"]),
        grid(seeds=2, depth=["1", "2"], without=[(f"depth={d}", s) for d in (1, 2) for s in (0, 1)]),
        grid(seeds=1, depth=["1", "2"]).assign(test_nll=[np.inf, np.nan]),
        grid(seeds=2, depth=["1", "2"]).assign(test_nll=4.0),
        grid(depth=["1", "2"]).drop(columns="factor.depth"),
    ],
)
def test_small_and_broken_studies_give_rows_without_a_verdict_and_a_reason(table):
    verdicts = {
        *factor_effects(Evidence(PERPLEXITY, table))["verdict"],
        *interactions(Evidence(PERPLEXITY, table))["verdict"],
    }
    assert verdicts <= {"one seed", "no result", "undecided", "diverges"}
    shares = variance_shares(PERPLEXITY, table)
    assert shares.table.empty
    assert shares.reason
    assert component_effects(Evidence(PERPLEXITY, table)).empty


# --- Variance.


@pytest.mark.parametrize("without", [(), (("depth=2 tie=true", 1), ("depth=1 tie=false", 3))])
def test_shares_of_variance_are_statsmodels_type_two_anova(without):
    table = grid(depth=["1", "2", "4"], tie=["false", "true"], without=without)
    shares = variance_shares(PERPLEXITY, table)
    data = table.dropna().rename(columns={"factor.depth": "depth", "factor.tie": "tie"})
    told = anova_lm(ols("test_nll ~ C(seed) + C(depth) * C(tie)", data).fit(), typ=2)
    told.index = ["seed", "depth", "tie", "depth × tie", "residual"]
    found = shares.table.set_index("term").loc[told.index]
    total = ((data["test_nll"] - data["test_nll"].mean()) ** 2).sum()
    assert found["df"].tolist() == told["df"].tolist()
    assert found["share"].tolist() == pytest.approx((told["sum_sq"] / total).tolist())
    assert found["p"].tolist() == pytest.approx(told["PR(>F)"].tolist(), nan_ok=True)
    assert (shares.method, shares.reason) == (LEAST_SQUARES, "")
    if not without:
        assert found["share"].sum() == pytest.approx(1)


def test_one_factor_with_seeds_as_blocks_is_pingouins_repeated_measures_anova():
    table = grid(depth=["1", "2", "4"])
    told = pg.rm_anova(
        data=table, dv="test_nll", within="factor.depth", subject="seed", detailed=True, effsize="n2"
    ).iloc[0]
    row = only(variance_shares(PERPLEXITY, table).table, term="depth")
    assert row["p"] == pytest.approx(told["p_unc"])
    f, df, n = told["F"], 2, 15
    assert row["partial_omega2"] == pytest.approx(df * (f - 1) / (df * (f - 1) + n))


def test_terms_that_a_design_cannot_tell_apart_are_left_out():
    levels = {"full": {"a": "1", "b": "1"}, "without a": {"a": "0", "b": "1"}, "without b": {"a": "1", "b": "0"}}
    rng = np.random.default_rng(0)
    table = study(levels, lambda c, s: 5 + rng.normal())
    assert variance_shares(PERPLEXITY, table).table["term"].tolist() == ["a", "b", "seed", "residual"]


def test_a_study_with_holes_and_many_seeds_takes_a_mixed_model_and_agrees_with_least_squares():
    lost = [("depth=1 tie=true", 3), ("depth=2 tie=false", 7)]
    table = grid(seeds=14, depth=["1", "2"], tie=["false", "true"], without=lost)
    shares = variance_shares(PERPLEXITY, table)
    assert shares.method == MIXED_MODEL
    found = shares.table.set_index("term")["p"]
    data = table.dropna().rename(columns={"factor.depth": "depth", "factor.tie": "tie"})
    told = anova_lm(ols("test_nll ~ C(seed) + C(depth) * C(tie)", data).fit(), typ=2)["PR(>F)"]
    assert np.log10(found["tie"]) == pytest.approx(np.log10(told["C(tie)"]), rel=0.25)
    assert found["depth × tie"] == pytest.approx(told["C(depth):C(tie)"], abs=0.1)


def test_a_mixed_model_that_does_not_converge_is_said_to_have_been_tried(monkeypatch):
    monkeypatch.setattr(variance, "_likelihood", lambda *_: None)
    table = grid(seeds=14, depth=["1", "2"], tie=["false", "true"], without=[("depth=1 tie=true", 3)])
    shares = variance_shares(PERPLEXITY, table)
    assert shares.method == MIXED_MODEL_FAILED
    assert shares.table["p"].notna().sum() == 4


# --- Components.


def test_leaving_one_out_measures_each_component_in_the_full_model():
    table = ablation({"full": "abc", "without a": "bc", "without b": "ac", "without c": "ab"}, wavy)
    found = component_effects(Evidence(PERPLEXITY, table))
    assert found["kind"].tolist() == ["removal"] * 3
    row = only(found, component="b")
    told = paired(np.array([wavy("abc", s) - wavy("ac", s) for s in range(4)]))
    assert (row["without"], row["with_"]) == ("without b", "full")
    assert (row["effect"], row["low"], row["high"], row["p"]) == pytest.approx((told.mean, told.low, told.high, told.p))


def test_adding_one_in_measures_each_component_in_the_plainest_model():
    found = component_effects(
        Evidence(PERPLEXITY, ablation({"base": "", "only a": "a", "only b": "b", "only c": "c"}, wavy))
    )
    assert found[["component", "kind", "without", "with_"]].to_numpy().tolist() == [
        [name, "addition", "base", f"only {name}"] for name in "abc"
    ]


def test_a_ladder_measures_each_step_also_when_its_top_was_listed_before():
    steps = {"base": "", "+ b": "b", "+ a": "ab", "+ c": "abc"}
    order = ["b", "a", "c"]
    ladder = component_effects(Evidence(PERPLEXITY, ablation(steps, wavy)), order)
    told = {("a", "+ b", "+ a"), ("b", "base", "+ b"), ("c", "+ a", "+ c")}
    cumulative = ladder[ladder["kind"] == "cumulative"]
    assert set(cumulative[["component", "without", "with_"]].itertuples(index=False, name=None)) == told
    joined = {"full": "abc", "without a": "bc", "without b": "ac", "base": "", "+ b": "b", "+ a": "ab"}
    found = component_effects(Evidence(PERPLEXITY, ablation(joined, wavy)), order)
    assert set(found.loc[found["kind"] == "cumulative", "with_"]) == {"+ b", "+ a", "full"}
    assert set(found.loc[found["kind"] == "removal", "component"]) == {"a", "b", "c"}
    assert set(found.loc[found["kind"] == "addition", "component"]) == {"b"}


@pytest.mark.parametrize("names", ["ab", "abc", "abcd"])
def test_shapley_values_add_up_to_the_full_model_against_the_plainest(names):
    table = ablation({on or "none": on for on in subsets(names)}, wavy)
    found = component_effects(Evidence(PERPLEXITY, table))
    shapley = found[found["kind"] == "shapley"]
    whole = np.mean([wavy(names, s) - wavy("", s) for s in range(4)])
    assert shapley["effect"].sum() == pytest.approx(whole)
    assert shapley["component"].tolist() == list(names)
    assert set(shapley["without"]) | set(shapley["with_"]) == {"none", names}
    assert "cumulative" not in set(found["kind"])  # it would be one of many orders


def test_a_shapley_value_is_the_mean_over_all_orders_and_has_a_t_interval_over_seeds():
    values = [[wavy("", s), wavy("a", s), wavy("b", s), wavy("ab", s)] for s in range(4)]
    table = ablation({on or "none": on for on in subsets("ab")}, wavy)
    row = only(component_effects(Evidence(PERPLEXITY, table)), component="a", kind="shapley")
    told = paired(np.array([((a - none) + (ab - b)) / 2 for none, a, b, ab in values]))
    assert (row["effect"], row["low"], row["high"], row["p"]) == pytest.approx((told.mean, told.low, told.high, told.p))


def test_a_component_without_effect_has_a_shapley_value_of_nothing():
    table = ablation({on or "none": on for on in subsets("abc")}, lambda on, s: wavy(on.replace("c", ""), s))
    row = only(component_effects(Evidence(PERPLEXITY, table)), component="c", kind="shapley")
    assert row["effect"] == pytest.approx(0, abs=1e-12)
    assert row["verdict"] == "undecided"


def test_a_seed_that_misses_one_subset_is_in_no_shapley_value():
    table = ablation(
        {on or "none": on for on in subsets("ab")}, lambda on, s: None if (on, s) == ("a", 2) else wavy(on, s)
    )
    found = component_effects(Evidence(PERPLEXITY, table))
    assert set(found.loc[found["kind"] == "shapley", "n"]) == {3}
    assert only(found, component="b", kind="addition")["n"] == 4


def test_two_variants_of_a_component_allow_no_shapley_value_but_pairs():
    levels = {f"depth={d} tie={t}": {"depth": d, "tie": t} for d in "124" for t in ("false", "true")}
    on = {c: {"depth": its["depth"] != "1", "tie": its["tie"] == "true"} for c, its in levels.items()}
    found = component_effects(Evidence(PERPLEXITY, study(levels, lambda c, s: wavy(c, s), components=on)))
    assert set(found["kind"]) == {"removal", "addition"}
    row = only(found, component="depth", kind="removal")
    assert (row["without"], row["with_"]) == ("depth=1 tie=true", "depth=2 tie=true")


def test_cells_that_differ_in_another_factor_as_well_are_no_pair():
    levels = {"full": {"tie": "true", "lr": "1"}, "without tie": {"tie": "false", "lr": "2"}}
    levels |= {"full, slow": {"tie": "true", "lr": "2"}}
    on = {cell: {"tie": its["tie"] == "true"} for cell, its in levels.items()}
    found = component_effects(Evidence(PERPLEXITY, study(levels, lambda c, s: wavy(c, s), components=on)))
    assert found[["without", "with_", "at"]].to_numpy().tolist() == [["without tie", "full, slow", "lr=2"]]


def test_what_belongs_to_a_component_can_be_said():
    levels = {"full": {"tie": "true", "lr": "1"}, "without tie": {"tie": "false", "lr": "2"}}
    on = {cell: {"tie": its["tie"] == "true"} for cell, its in levels.items()}
    table = study(levels, lambda c, s: wavy(c, s), components=on)
    assert component_effects(Evidence(PERPLEXITY, table), {"tie": ["tie"]}).empty
    assert len(component_effects(Evidence(PERPLEXITY, table), {"tie": ["tie", "lr"]})) == 1
    assert component_effects(Evidence(PERPLEXITY, table), []).empty


def test_every_context_of_an_ablation_has_rows_of_its_own():
    levels = {
        f"{n} {name}": {"size": n, "tie": tie} for n in ("10", "20") for name, tie in (("full", "t"), ("cut", "f"))
    }
    on = {cell: {"tie": its["tie"] == "t"} for cell, its in levels.items()}
    found = component_effects(Evidence(PERPLEXITY, study(levels, lambda c, s: wavy(c, s), components=on)))
    assert found[["at", "without", "with_"]].to_numpy().tolist() == [
        ["size=10", "10 cut", "10 full"],
        ["size=20", "20 cut", "20 full"],
    ]


def test_holm_corrects_the_rows_of_a_table_together_and_a_pair_of_cells_that_stands_there_twice_once():
    found = component_effects(Evidence(PERPLEXITY, ablation({on or "none": on for on in subsets("abc")}, wavy)))
    tests = found.assign(key=[contrast.key for contrast in found["contrast"]]).drop_duplicates("key")
    told = dict(zip(tests["key"], pg.multicomp(tests["p"].to_numpy(), method="holm")[1], strict=True))
    assert found["p_holm"].tolist() == pytest.approx([told[contrast.key] for contrast in found["contrast"]])


def test_a_component_that_helps_alone_and_hurts_in_company_is_pointed_out():
    rng = np.random.default_rng(0)

    def nll(on, _):
        effect = -0.1 if on == "a" else 0.1 if on == "ab" else 0.0
        return 5 + effect + 1e-3 * rng.normal()

    evidence = Evidence(PERPLEXITY, ablation({"none": "", "a": "a", "b": "b", "ab": "ab"}, nll))
    row = only(judge_alone("disagreements", disagreements(component_effects(evidence), evidence)), component="a")
    assert (row["first"], row["second"], row["verdict"]) == ("removal", "addition", "hurts")
    scores = evidence.scores
    delta = (scores["ab"] - scores["b"]) - (scores["a"] - scores["none"])
    assert row["p"] == pytest.approx(stats.ttest_1samp(delta, 0).pvalue)
    assert disagreement(PERPLEXITY, row).startswith(
        "What a does depends on the parts around it: it changes perplexity by +10.4 % in the full model and by −9.6 % "
        "in the plainest model, which differ by +22.1 % (95 % interval +21.8 % to +22.5 %, 4 seeds), exploratory."
    )


def test_signs_that_differ_by_chance_are_no_contradiction():
    evidence = Evidence(PERPLEXITY, ablation({on or "none": on for on in subsets("ab")}, wavy))
    found = component_effects(evidence)
    apart = judge_alone("disagreements", disagreements(found, evidence))
    assert set(apart["verdict"]) == {"undecided"}
    assert not {*np.sign(found["effect"])} <= {1.0}
    single = Evidence(PERPLEXITY, grid(depth=["1", "2"]))
    assert disagreements(component_effects(single), single).empty


def test_one_seed_has_effects_and_no_verdict():
    found = component_effects(
        Evidence(PERPLEXITY, ablation({"full": "ab", "without a": "b", "without b": "a"}, wavy, seeds=1))
    )
    assert found["verdict"].tolist() == ["one seed"] * 2
    assert found["effect"].notna().all()
    assert found[["low", "high", "p", "p_holm"]].isna().all().all()
