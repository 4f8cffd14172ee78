"""Analysis and report: right numbers, honest words, inert names."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from made import PERPLEXITY, ladder, results, trials
from scipy import stats

from ablate.analyze import caveats, compare, confounds
from ablate.analyze.evidence import Evidence
from ablate.report import write_report
from ablate.report.escape import markdown
from ablate.report.tables import display
from ablate.report.told import missing
from ablate.report.warnings import caveats_told
from ablate.study.records import task_record
from ablate.tasks.language_model import LANGUAGE_MODEL

TASK = task_record(LANGUAGE_MODEL)


def warnings_for(table):
    return caveats_told(PERPLEXITY, TASK, caveats(PERPLEXITY, TASK, table))


def test_means_spreads_and_differences_are_those_of_the_textbook():
    a, b = [4.0, 4.1, 4.3], [3.9, 4.0, 4.15]
    table = compare(Evidence(PERPLEXITY, trials({"a": a, "b": b})))
    assert table["test_mean"].tolist() == pytest.approx([np.exp(a).mean(), np.exp(b).mean()])
    assert table["test_sd"].tolist() == pytest.approx([np.exp(a).std(ddof=1), np.exp(b).std(ddof=1)])
    interval = stats.ttest_rel(b, a).confidence_interval(0.95)
    row = table.iloc[1]
    assert row["effect"] == pytest.approx(np.mean(b) - np.mean(a))
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))


def test_seeds_are_paired_and_only_those_that_both_finished():
    table = compare(Evidence(PERPLEXITY, trials({"a": [4.0, 5.0, 6.0], "b": [3.9, None, 5.9]})))
    row = table.iloc[1]
    assert (row["n"], row["pairs"]) == (2, 2)
    assert row["effect"] == pytest.approx(-0.1)
    assert missing(row["missing"]) == "seed 1 failed (OSError: x)"


def test_one_seed_has_no_spread_and_no_interval():
    table = compare(Evidence(PERPLEXITY, trials({"a": [4.0], "b": [3.9]})))
    assert table[["test_sd", "low"]].isna().all().all()
    shown = display(PERPLEXITY, TASK, table)
    assert shown["difference to the first row"].tolist() == ["–", "−9.5 % (n = 1)"]
    assert shown["test perplexity"].tolist() == ["54.6", "49.4"]


def test_the_verdict_stands_beside_the_difference_where_a_narrow_screen_shows_it(tmp_path):
    report = write_report(results(ladder({"a": -0.3, "b": 0.1})), tmp_path)
    columns = list(report.table.columns)
    place = columns.index("difference to the first row")
    assert columns[place : place + 3] == ["difference to the first row", "verdict", "p"]
    factors = (report.folder / "factors.md").read_text().splitlines()[0]
    assert factors.startswith("| part | change of perplexity | 95 % interval | verdict | p (Holm) | n |")


@pytest.mark.parametrize(
    ("seeds", "said"),
    [(1, "Nothing is tested: that takes two seeds or more."), (3, "corrected (Holm) over the 3 comparisons that the")],
)
def test_a_table_of_effects_says_over_how_many_comparisons_it_is_corrected(seeds, said, tmp_path):
    report = write_report(results(ladder({"a": -0.3, "b": 0.1}, seeds=seeds)), tmp_path)
    assert said in (report.folder / "factors.md").read_text()
    assert "over the 0 comparisons" not in report.page.read_text()


def test_a_cell_without_a_result_is_not_a_number_and_says_why():
    shown = display(PERPLEXITY, TASK, compare(Evidence(PERPLEXITY, trials({"a": [None], "b": [3.9]}))))
    assert shown["test perplexity"].tolist() == ["n/a", "49.4"]
    assert shown["difference to the first row"].tolist() == ["–", "n/a"]
    assert shown["missing"].tolist() == ["seed 0 failed (OSError: x)", ""]


def test_what_else_differs_is_named_as_a_confound():
    table = trials({"a": [4.0, 4.1], "b": [3.9, 4.0]})
    table.loc[table["cell"] == "b", "knob.hidden"] = 650
    assert confounds(TASK, table).loc["hidden"].tolist() == [False, "10", "650"]
    (warning,) = warnings_for(table)
    assert "differ in more than the factors of the study: hidden" in warning
    assert warnings_for(trials({"a": [4.0, 4.1], "b": [3.9, 4.0]})) == []


def test_single_runs_unequal_runs_and_other_texts_are_warned_of():
    assert "single run (n = 1)" in warnings_for(trials({"a": [4.0], "b": [3.9]}))[0]
    assert "same number of finished runs" in warnings_for(trials({"a": [4.0, 4.1], "b": [3.9, None]}))[0]
    other = trials({"a": [4.0, 4.1], "b": [3.9, 4.0]})
    other.loc[other["cell"] == "b", ["data_digest", "evaluated", "knob.data.name"]] = ["e", "e", "ptb"]
    assert any("must not be compared" in w for w in warnings_for(other))
    smaller = trials({"a": [4.0, 4.1], "b": [3.9, 4.0]})
    smaller.loc[smaller["cell"] == "b", ["data_digest", "knob.train_tokens"]] = ["e", 1000]
    assert not any("must not be compared" in w for w in warnings_for(smaller))


def test_a_difference_to_a_reduced_vocabulary_is_no_comparison():
    table = trials({"a": [4.0, 4.1], "b": [3.9, 4.0]})
    table.loc[table["cell"] == "b", ["data_digest", "evaluated", "detail.vocabulary", "knob.train_tokens"]] = [
        "e",
        "e",
        "4",
        1000,
    ]
    assert any("must not be compared" in w for w in warnings_for(table))


@pytest.mark.figures
def test_the_page_stands_alone_and_says_what_it_found(tmp_path):
    report = write_report(results(trials({"a": [4.0, 4.1, 4.2], "b": [3.9, 4.0, 4.05]})), tmp_path)
    page = report.page.read_text()
    assert not re.findall(r"(?:src|href)=[\"']http|@import|url\(http", page)
    assert page.count("<svg") == 4
    assert re.search(
        r"b has the lowest valid perplexity, and a test perplexity of 53\.\d: 11\.\d % below a, the first row", page
    )
    assert "95 % interval" in page
    assert report.all_finished


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (trials({"a": [None]}), "No trial has finished yet."),
        (trials({"a": [4.0]}), "a reaches a test perplexity of 54.6 (n = 1)."),
        (trials({"a": [3.0], "b": [4.0]}), "a has the lowest valid perplexity, and a test perplexity of 20.1 (n = 1)."),
        (trials({"a": [4.0], "b": [3.0]}), "with one seed this may be chance"),
        (
            trials({"a": [None], "b": [3.0], "c": [3.5]}),
            "b has the lowest valid perplexity, and a test perplexity of 20.1 (n = 1).",
        ),
    ],
)
def test_the_headline_is_computed_from_the_table(table, sentence, tmp_path):
    assert sentence in write_report(results(table), tmp_path).page.read_text()


@pytest.mark.figures
def test_a_report_of_trials_that_never_started_is_a_page_without_numbers(tmp_path):
    table = trials({"a": [None]}).drop(columns=["detail.vocabulary", "factor.tie"])
    table = table[[column for column in table if not column.startswith("knob.")]]
    for column in ("data", "data_digest", "evaluated", "alike", "parameters", "steps", "seen", "best_step", "seconds"):
        table[column] = None
    empty = pd.DataFrame(columns=["cell", "seed", "split", "step", "seen", "seconds", "nll", "perplexity"])
    report = write_report(results(table, points=empty), tmp_path)
    assert "No trial has finished yet." in report.page.read_text()
    assert not report.all_finished


@pytest.mark.figures("comparison")
def test_twenty_cells_are_told_apart_and_none_is_cut(tmp_path):
    report = write_report(results(trials({f"depth={i}": [4.0 + i / 100] for i in range(20)})), tmp_path)
    svg = (report.folder / "comparison.svg").read_text()
    assert all(f"depth={i}  (n = 1)" in svg for i in range(20))


def test_what_has_learned_nothing_is_neither_the_lowest_nor_a_success(tmp_path):
    table = trials({"a": [14.0, 14.5], "b": [13.0, 12.0]}, chance_nll=4.0)
    report = write_report(results(table), tmp_path)
    assert report.findings == [
        "No cell has learned anything: every test perplexity is worse than that of a model that knows nothing."
    ]
    assert report.learned_nothing
    assert any(
        "Nothing was learned in a, b: the test perplexity is worse than the 54.6 of" in w for w in report.warnings
    )


def test_cells_that_have_hardly_learned_anything_are_named_before_they_are_called_equivalent(tmp_path):
    table = trials({"a": [3.95, 3.951], "b": [3.95, 3.95], "c": [3.0, 3.0]}, chance_nll=4.0)
    report = write_report(results(table), tmp_path)
    assert not report.learned_nothing
    told = "Hardly anything was learned in a, b: the test perplexity is within 10.5 % of the 54.6 of a model that knows"
    assert any(warning.startswith(told) for warning in report.warnings)


def test_a_cell_that_has_learned_nothing_is_named_beside_others_that_have(tmp_path):
    table = trials({"a": [14.0, 14.5], "b": [3.0, 3.2], "c": [4.05, 4.05]}, chance_nll=4.0)
    report = write_report(results(table), tmp_path)
    assert not report.learned_nothing
    assert any("Nothing was learned in a: " in warning for warning in report.warnings), "c is no worse than nothing"
    assert "b has the lowest" in report.findings[-1]


def test_markdown_is_a_table_a_renderer_can_read():
    text = markdown(pd.DataFrame({"cell": ["x|y"], "n": ["1"]}), words=["cell"])
    assert text == "| cell | n |\n| --- | ---: |\n| x\\|y | 1 |\n"
