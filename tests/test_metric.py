"""A metric: its scores, and what the report says of one that is not perplexity."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import PERPLEXITY, results, trials

from ablate.analyze import guards
from ablate.metric import Metric, check_metrics
from ablate.report import told, write_report
from ablate.report.guards import guards_told

ERROR = Metric("error", unit="%")
ACCURACY = Metric("accuracy", better="higher", unit="%")
SPEED = Metric("speed", better="higher", scale="log")
DIGITS = {
    "name": "digits", "program": "python digits.py", "step": "epoch", "unit": "examples", "budget": ["epochs"],
    "presets": {}, "follows": {}, "idle": [], "decides": [], "kinds": [],
}  # fmt: skip
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


def test_metrics_are_recorded_under_names_of_their_own():
    assert [metric.recorded for metric in METRICS] == ["nll", "error", "accuracy", "speed"]
    check_metrics(METRICS)
    with pytest.raises(ValueError, match="metrics perplexity and nll: both use the name 'nll'"):
        check_metrics([PERPLEXITY, Metric("nll")])
    with pytest.raises(ValueError, match="metric step: the name 'step' is taken"):
        check_metrics([Metric("step")])
    with pytest.raises(ValueError, match="at least one"):
        check_metrics([])


@pytest.mark.parametrize(
    ("metric", "effect", "change", "size", "direction"),
    [
        (PERPLEXITY, -0.1, "−9.5 %", "9.5 %", "lower"),
        (ERROR, -0.5, "−0.50 points", "0.50 points", "lower"),
        (ACCURACY, -0.5, "+0.50 points", "0.50 points", "higher"),
        (Metric("loss"), 0.25, "+0.2500", "0.2500", "higher"),
        (Metric("delay", unit="ms"), 0.25, "+0.25 ms", "0.25 ms", "higher"),
        (SPEED, -0.1, "+10.5 %", "10.5 %", "higher"),
        (Metric("mse"), 2.5e-6, "+0.00000250", "0.00000250", "higher"),
        (Metric("mse"), -1e-17, "+0.0000", "0.0000", "lower"),
        (PERPLEXITY, -1e-17, "+0.0 %", "0.0 %", "lower"),
    ],
    ids=str,
)
def test_an_effect_is_told_in_the_metrics_own_terms(metric, effect, change, size, direction):
    assert told.change(metric, effect) == change
    assert told.size(metric, effect) == size
    assert told.direction(metric, effect) == direction


def of_accuracy(cells, others=(), seen=True):
    """A study of a metric that is better where it is higher: cell → accuracy by seed; `others`: metrics beside it."""
    study = results(trials({cell: [value / 100 for value in values] for cell, values in cells.items()}))
    table, points = study.trials, study.curves.drop(columns=["nll", "perplexity"])
    table = table.drop(columns=["knob.train_tokens", "knob.data.name", "detail.vocabulary"]).assign(
        **{"knob.width": 0.5}
    )
    recorded = table["test_nll"].to_numpy(float)
    if PERPLEXITY not in others:
        table = table.drop(columns=[c for c in table if c.endswith(("_nll", "_perplexity"))])
    for which in ("best_valid", "valid", "test"):
        table[f"{which}_accuracy"] = 100 * recorded
        if ERROR in others:
            table[f"{which}_error"] = 100 - 100 * recorded
    table[["first_accuracy", "chance_accuracy", "floor_accuracy"]] = np.nan
    points = points.assign(accuracy=50 + points["step"] / 10)
    if not seen:
        table, points = table.assign(seen=pd.array([None] * len(table), "Int64")), points.assign(seen=pd.NA)
    return replace(study, metrics=[ACCURACY, *others], task=DIGITS, trials=table, curves=points)


@pytest.mark.figures("comparison", "curves")
def test_a_report_of_accuracy_says_higher_and_points_and_names_the_highest_cell(tmp_path):
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 1, 5)
    study = of_accuracy({"plain": 90 + shared, "wide": 92 + shared + rng.normal(0, 0.1, 5)})
    report = write_report(study, tmp_path)
    assert report.findings[-1].startswith("wide has the highest valid accuracy, and a test accuracy of 92.")
    assert " points above plain, the first row (95 % interval +1." in report.findings[-1]
    row = report.table.set_index("cell").loc["wide"]
    assert row["verdict"] == "better"
    assert row["difference to the first row"].startswith("+")
    low, high = row["difference to the first row"].split("[")[1].rstrip("]").split(", ")
    assert float(low.removesuffix(" points")) < float(high.removesuffix(" points"))
    page = report.page.read_text()
    assert "test accuracy, % (higher is better)" in page
    assert "Accuracy on " in page
    assert "higher is better" in page
    assert "examples seen" in page
    assert "trained on" in (report.folder / "curves.svg").read_text()
    assert not re.search("erplexity|token|window|corpus|nats", page)
    numbers = (report.folder / "comparison.csv").read_text().splitlines()
    change = float(numbers[2].split(",")[numbers[0].split(",").index("change")])
    assert change == pytest.approx(2, abs=0.2)


def test_metrics_beside_the_first_are_shown_with_their_spread_and_no_verdict(tmp_path):
    study = of_accuracy({"plain": [90, 91, 92], "wide": [92, 93.5, 94]}, others=[ERROR, PERPLEXITY])
    report = write_report(study, tmp_path)
    row = report.table.set_index("cell").loc["plain"]
    assert (row["test accuracy"], row["test error"]) == ("91.00 ± 1.00 %", "9.00 ± 1.00 %")
    assert row["test perplexity"] == "2.5 ± 0.0"
    assert [name for name in report.table if name.startswith("difference")] == ["difference to the first row"]
    numbers = pd.read_csv(report.folder / "comparison.csv").set_index("cell")
    assert numbers.loc["wide", "test_error_mean"] == pytest.approx(100 - (92 + 93.5 + 94) / 3)
    page, markdown = report.page.read_text(), (report.folder / "comparison.md").read_text()
    assert page.count("on test data; the mean over seeds ± their standard deviation; not compared") >= 2
    assert "Test error is not compared. Test perplexity is not compared." in markdown
    assert "error" not in " ".join(report.findings)


@pytest.mark.figures("curves", "cost")
def test_a_task_that_cannot_say_what_it_has_seen_has_tables_and_figures_without_it(tmp_path):
    report = write_report(of_accuracy({"plain": [90, 91, 92], "wide": [92, 93, 94]}, seen=False), tmp_path)
    assert not any("seen" in name for name in report.table)
    assert not any("trained on" in warning for warning in report.warnings)
    svg = (report.folder / "curves.svg").read_text()
    assert "epochs" in svg
    assert "examples" not in svg
    assert "time and by epochs" in report.page.read_text()


@pytest.mark.figures("cost")
def test_models_of_unknown_size_are_compared_by_time_alone(tmp_path):
    study = of_accuracy({"plain": [90, 91, 92], "wide": [92, 93, 94]})
    table = study.trials.assign(parameters=pd.array([None] * 6, "Int64"))
    report = write_report(replace(study, trials=table), tmp_path)
    assert "parameters" not in report.table
    assert "trained parameters" not in (report.folder / "cost.svg").read_text()
    assert "By time, as measured" in report.page.read_text()


def by_epochs(effects, seen):
    """Trials of `augment` at budgets of so many epochs; `effects`: epochs → points of accuracy it adds."""
    cells = {f"augment={on} epochs={n}": [80 + on * effect, 81.1 + on * effect, 82 + on * effect * 1.1]
             for n, effect in effects.items() for on in (0, 1)}  # fmt: skip
    study = of_accuracy(cells, seen=seen)
    levels = study.trials["cell"].str.extract(r"augment=(?P<augment>\d) epochs=(?P<epochs>\d+)")
    table = study.trials.drop(columns="factor.tie").assign(
        **{"factor.augment": levels["augment"], "factor.epochs": levels["epochs"]}
    )
    table["knob.epochs"] = levels["epochs"].astype(int)
    if seen:
        table["seen"] = (1000 * levels["epochs"].astype(int)).astype("Int64")
    return replace(study, trials=table)


@pytest.mark.figures("budget")
@pytest.mark.parametrize(("seen", "where"), [(True, "4,500 examples of training"), (False, "epochs=4.5")])
def test_a_change_of_sign_stands_at_what_was_seen_or_else_at_the_budgets_own_level(seen, where, tmp_path):
    report = write_report(by_epochs({2: -2.0, 10: 2.0}, seen), tmp_path)
    assert "hurts at epochs=2 (−2.07 points" in report.findings[0]
    assert "and helps at epochs=10 (+2.07 points" in report.findings[0]
    assert f"its mean effect changes sign near {where}" in report.findings[0]
    assert "changes sign near" in (report.folder / "budget.svg").read_text()


def guards_of(table, points=None):
    study = of_accuracy({"a": [90, 91, 92], "b": [92, 93, 94]})
    points = study.curves.iloc[:0] if points is None else points
    return guards_told(ACCURACY, DIGITS, guards(ACCURACY, DIGITS, table, points), table)


def test_guards_of_a_linear_metric_speak_of_shares_of_its_value_in_its_own_words():
    study = of_accuracy({"a": [90, 91, 92], "b": [92, 93, 94]})
    table = study.trials.assign(steps=40, best_step=40)
    flat = study.curves.assign(accuracy=90.0)
    assert guards_of(table, flat) == []
    rising = flat.assign(accuracy=np.where(flat["step"] == 20, 85.0, 90.0))
    (said,) = guards_of(table, rising)
    assert said.startswith(
        "Not converged: a (+5.00 points), b (+5.00 points). These rows had their highest valid accuracy"
    )
    assert said.endswith("over the last half of their epochs: the table ranks what was learnt within this budget.")
    (said,) = guards_of(table.assign(best_step=20), flat.assign(accuracy=np.where(flat["step"] == 20, 90.0, 30.0)))
    assert said.startswith(
        "The train accuracy became much worse for a while in a (by 60.00 points), b (by 60.00 points)"
    )
    first = np.where(table["cell"] == "a", 12.0, 10.0)
    (said,) = guards_of(table.assign(first_accuracy=first), flat)
    assert "the accuracy of the first epoch is worse in b (by 2.00 points) than in the row that starts best" in said
