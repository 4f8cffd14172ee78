"""Sentences are true to the table they are computed from, whatever the table holds."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from made import curves, ladder, one_out, results, trials

from ablate.report import write_report

EFFECTS = {"gating": -0.2, "dropout": 0.3, "tying": -0.05}
ONE_OUT = {"kind": "leave_one_out", "components": list(EFFECTS)}


def report_of(table, folder, design=None):
    """A report in which nothing warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return write_report(results(table, design=design), folder)


def failed(table, where):
    """The same trials, but these have no result."""
    outcome = ["seen", "train_seconds", "valid_nll", "test_nll", "valid_perplexity", "test_perplexity"]
    table = table.copy()
    table.loc[where, outcome] = np.nan
    return table.assign(status=np.where(where, "FAILED", table["status"]))


@pytest.mark.figures
@pytest.mark.parametrize("lost", ["full", "without dropout", "everything"])
def test_a_part_whose_cell_has_no_result_costs_that_part_alone(lost, tmp_path):
    table = one_out(EFFECTS)
    where = np.full(len(table), True) if lost == "everything" else (table["cell"] == lost).to_numpy()
    report = report_of(failed(table, where), tmp_path, ONE_OUT)
    assert len(report.failures) == where.sum()
    if lost == "without dropout":
        assert "Gating has the largest mean benefit" in report.findings[0]
        assert "dropout" not in report.findings[0].lower()
        assert (report.folder / "steps.svg").exists()
    if lost == "everything":
        assert report.findings == ["No trial has finished yet."]


def test_a_cell_whose_first_seed_never_started_is_shown_with_the_others(tmp_path):
    table = one_out(EFFECTS)
    first = ((table["cell"] == "without tying") & (table["seed"] == 0)).to_numpy()
    lost = failed(table, first)
    lost.loc[first, "parameters"] = np.nan
    lost.loc[first, ["data", "evaluated", "alike"]] = None
    report = report_of(lost, tmp_path, ONE_OUT)
    row = report.table.set_index("cell").loc["without tying"]
    assert (row["parameters"], row["n"]) == ("1,200", "4")


@pytest.mark.figures
@pytest.mark.parametrize("nll", [60.0, 710.0])
def test_an_absurd_loss_is_told_in_few_digits_and_hides_nothing_else(nll, tmp_path):
    report = report_of(trials({"a": [4.0, 4.1], "wild": [nll, nll + 1], "b": [3.9, 4.0]}), tmp_path)
    row = report.table.set_index("cell").loc["wild"]
    assert row["test perplexity"] == "over 1,000,000"
    assert all(len(value) < 60 for value in row)
    assert "b has the lowest valid perplexity" in report.findings[-1]


@pytest.mark.figures("effects", "stability", "steps")
def test_a_part_without_which_the_model_collapses_is_no_division_by_zero(tmp_path):
    report = report_of(one_out({"gating": -60.0, "dropout": 0.1}), tmp_path, {"components": ["gating", "dropout"]})
    assert "Gating earns its keep: without it test perplexity is over ×1,000,000 higher" in report.findings[0]


@pytest.mark.figures("effects", "stability", "steps")
def test_a_component_crossed_with_a_factor_is_named_with_its_level(tmp_path):
    some, more = (one_out({"dropout": x, "tying": -0.1}) for x in (-0.1, 0.2))
    parts = [
        part.assign(cell=f"hidden={h} " + part["cell"], **{"factor.hidden": h})
        for h, part in (("20", some), ("30", more))
    ]
    crossed = pd.concat(parts, ignore_index=True)
    report = report_of(crossed, tmp_path, {"components": ["dropout", "tying"]})
    assert "ropout at hidden=20" in report.findings[0]
    assert "Dropout at hidden=30 hurts here" in report.findings[0]
    names = list(pd.read_csv(report.folder / "components.csv")["name"])
    assert len(set(names)) == len(names) == 4
    for figure in ("effects", "steps"):
        svg = (report.folder / f"{figure}.svg").read_text()
        assert "at hidden=20" in svg
        assert "at hidden=30" in svg


def test_what_must_not_be_compared_is_compared_nowhere(tmp_path):
    table = trials({"small": [3.0, 3.1, 3.0], "big": [5.0, 5.1, 5.0], "bigger": [4.9, 5.0, 4.9]})
    small = table["cell"] == "small"
    table.loc[small, ["data_digest", "evaluated", "detail.vocabulary", "knob.train_tokens"]] = ["e", "e", "4", 1000]
    report = report_of(table, tmp_path)
    shown = report.table.set_index("cell")
    assert list(shown["verdict"]) == ["baseline", "not comparable", "not comparable"]
    assert list(shown["difference to the first row"][1:]) == ["n/a", "n/a"]
    assert report.findings == ["small reaches a test perplexity of 20.8 (n = 3)."]
    assert "must not be compared" in report.warnings[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = write_report(results(table, points=curves(table)), tmp_path, baseline="big")
    assert "bigger has the lowest valid perplexity" in other.findings[-1]
    assert set(pd.read_csv(other.folder / "factors.csv")["level"]) == {"bigger"}


def test_the_lowest_mean_over_other_seeds_is_not_called_better(tmp_path):
    report = report_of(trials({"a": [4.0, 4.4], "b": [4.05, 4.41, 3.2, 3.2]}), tmp_path)
    assert report.findings[-1].startswith("b has the lowest valid perplexity")
    assert "below" not in report.findings[-1]
    assert "2 seeds cannot tell from chance" in report.findings[-1]
    apart = trials({"a": [4.0, 4.1, 4.05], "b": [3.0, 3.1, 3.05]})
    apart.loc[apart["cell"] == "b", "seed"] += 10
    assert "no seed in common" in report_of(apart, tmp_path).findings[-1]


def test_differences_without_a_spread_are_not_called_one_seed(tmp_path):
    report = report_of(trials({"a": [4.0, 4.5, 5.0], "b": [4.0, 4.5, 5.0]}), tmp_path)
    assert report.table.iloc[1]["difference to the first row"] == "+0.0 % (no spread)"
    page = report.page.read_text()
    assert "(one seed)" not in page
    assert "with one seed" not in page
    assert "(n = 1)" not in page


def test_each_part_is_unsure_at_its_own_number_of_seeds(tmp_path):
    table = one_out({"gating": -0.3, "dropout": 0.0, "tying": 0.001}, noise=0.02)
    few = ((table["cell"] == "without dropout") & (table["seed"] > 1)).to_numpy()
    said = report_of(failed(table, few), tmp_path, ONE_OUT).findings[0]
    assert "Whether dropout" in said
    assert "2 seeds cannot tell" in said
    assert "Whether tying" in said
    assert "5 seeds cannot tell" in said


def test_an_average_says_over_how_many_settings(tmp_path):
    grid = ladder({"a": -0.3, "b": 0.1, "c": 0.0}, seeds=3)
    assert "on average over 4 settings of the rest" in report_of(grid, tmp_path).findings[0]
    alone = grid[grid["cell"].isin(["none", "a", "b", "c"])]
    assert "on average" not in report_of(alone, tmp_path).findings[0]


@pytest.mark.figures("interactions")
def test_lines_cross_only_where_the_data_do(tmp_path):
    """A purely additive grid with a cell missing: means over what is left would cross."""
    grid = ladder({"a": -0.3, "b": 0.1, "c": 0.5}, seeds=3, noise=1e-6)
    report_of(grid[grid["cell"] != "a c"], tmp_path)
    svg = (tmp_path / "study" / "interactions.svg").read_text()
    # Each pair is drawn from the one setting of the third factor that has all four cells, or not at all.
    assert svg.count("b=off") + svg.count("c=off") + svg.count("a=off") <= 3


def test_a_floor_is_told_only_where_all_rows_share_it(tmp_path):
    table = trials({"a": [4.0, 4.1], "b": [3.9, 4.0]})
    assert "no model can get below" in report_of(table.assign(floor_nll=2.0), tmp_path).page.read_text()
    table["floor_nll"] = [2.0, 2.0, np.nan, np.nan]
    assert "no model can get below" not in report_of(table, tmp_path).page.read_text()


@pytest.mark.figures
def test_a_name_of_three_hundred_letters_is_cut_in_figures_and_whole_in_the_table(tmp_path):
    name = "x" * 300
    report = report_of(trials({name: [4.0, 4.1], "b": [3.9, 4.0]}), tmp_path)
    assert name in report.page.read_text()
    drawn = {path.name: path.read_text() for path in report.folder.glob("*.svg")}
    assert {"comparison.svg", "cost.svg", "curves.svg"} <= drawn.keys()
    assert [file for file, svg in drawn.items() if name in svg] == []


def test_presets_that_differ_in_several_parts_are_warned_of(tmp_path):
    table = trials({"rnn": [4.0, 4.1], "better": [3.9, 4.0]}).drop(columns="factor.tie")
    better = table["cell"] == "better"
    table = table.assign(**{"factor.model": table["cell"], "knob.rnn": np.where(better, "lstm", "tanh"),
                            "knob.depth": np.where(better, 2, 1)})  # fmt: skip
    assert any("differ in several parts at once (rnn, depth)" in w for w in report_of(table, tmp_path).warnings)
