"""A metric: its scores, and what the report says of one that is not perplexity."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import PERPLEXITY, curves, results, trials

from ablate.metric import Metric
from ablate.report import told, write_report

ERROR = Metric("error", unit="%")
ACCURACY = Metric("accuracy", better="higher", unit="%")
SPEED = Metric("speed", better="higher", scale="log")
METRICS = (PERPLEXITY, ERROR, ACCURACY, SPEED)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
@given(one=st.floats(0.1, 600), other=st.floats(0.1, 600))
def test_the_lower_score_is_the_better_value_and_scores_lead_back_to_values(metric, one, other):
    better = one < other if metric.better == "lower" else one > other
    assert (metric.score_of(one) < metric.score_of(other)) == better or math.isclose(one, other)
    assert metric.of_score(metric.score_of(one)) == pytest.approx(one)
    assert metric.score(one) == pytest.approx(metric.score_of(metric.value(one)))


@pytest.mark.parametrize(
    ("metric", "change"), [(PERPLEXITY, 1.1 - 1), (ERROR, 2.0), (ACCURACY, 2.0), (SPEED, 1.1 - 1)], ids=str
)
def test_a_change_is_a_ratio_on_a_logarithmic_scale_and_a_difference_on_a_linear_one(metric, change):
    effect = metric.score_of(22.0) - metric.score_of(20.0)
    assert metric.change(effect) == pytest.approx(change)


def test_what_no_float_holds_is_infinite_and_what_has_no_logarithm_has_no_score():
    assert PERPLEXITY.value(1000) == PERPLEXITY.of_score(1000) == PERPLEXITY.change(1000) == math.inf
    assert math.isnan(SPEED.score(0))
    assert math.isnan(PERPLEXITY.value(math.nan))


@pytest.mark.parametrize("wrong", [{"better": "up"}, {"scale": "squared"}, {"logged": "nll"}])
def test_a_metric_that_cannot_be_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match="metric error: "):
        Metric("error", **wrong)


@pytest.mark.parametrize(
    ("metric", "effect", "change", "size", "direction"),
    [
        (PERPLEXITY, -0.1, "−9.5 %", "9.5 %", "lower"),
        (ERROR, -0.5, "−0.50 points", "0.50 points", "lower"),
        (ACCURACY, -0.5, "+0.50 points", "0.50 points", "higher"),
        (Metric("loss"), 0.25, "+0.25", "0.25", "higher"),
        (Metric("delay", unit="ms"), 0.25, "+0.25 ms", "0.25 ms", "higher"),
        (SPEED, -0.1, "+10.5 %", "10.5 %", "higher"),
    ],
    ids=str,
)
def test_an_effect_is_told_in_the_metrics_own_terms(metric, effect, change, size, direction):
    assert told.change(metric, effect) == change
    assert told.size(metric, effect) == size
    assert told.direction(metric, effect) == direction


def of_accuracy(cells):
    """A study of a metric that is better where it is higher: cell → accuracy by seed."""
    table = trials({cell: [-value for value in values] for cell, values in cells.items()})
    made = results(table, points=curves(table))
    renamed = {f"{split}_perplexity": f"{split}_accuracy" for split in ("valid", "test")}
    table = made.trials.rename(columns=renamed)
    for split in ("valid", "test"):
        table[f"{split}_accuracy"] = -table["test_nll"]
    points = made.curves.rename(columns={"perplexity": "accuracy"})
    return type(made)(made.name, made.command, made.launched, made.design, [ACCURACY], table, points, made.samples)


def test_a_report_of_accuracy_says_higher_and_points_and_names_the_highest_cell(tmp_path):
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 1, 5)
    study = of_accuracy({"plain": 90 + shared, "wide": 92 + shared + rng.normal(0, 0.1, 5)})
    report = write_report(study, tmp_path)
    assert report.findings[-1].startswith("wide has the highest test accuracy, 92.")
    assert " points above plain, the first row (95 % interval 1." in report.findings[-1]
    row = report.table.set_index("cell").loc["wide"]
    assert row["verdict"] == "better"
    assert row["difference to the first row"].startswith("+")
    low, high = row["difference to the first row"].split("[")[1].rstrip("]").split(", ")
    assert float(low.removesuffix(" points")) < float(high.removesuffix(" points"))
    page = report.page.read_text()
    assert "test accuracy, % (higher is better)" in page
    assert "Accuracy on " in page
    assert "higher is better" in page
    assert "erplexity" not in page.split("How intervals are made")[0]
    numbers = (report.folder / "comparison.csv").read_text().splitlines()
    change = float(numbers[2].split(",")[numbers[0].split(",").index("change")])
    assert change == pytest.approx(2, abs=0.2)
