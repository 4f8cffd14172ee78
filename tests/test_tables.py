"""The tables of trials and curves: their columns and types, what is missing, and what cannot be right."""

from __future__ import annotations

import math
from dataclasses import asdict

import pandas as pd
import pytest
from made import PERPLEXITY
from written import record

from ablate.knobs import KnobError
from ablate.metric import Metric
from ablate.track.folder import Folder
from ablate.track.journal import JOURNAL, Journal
from ablate.track.read import read_study
from ablate.track.tables import curves_schema, trials_schema, trials_table, validated


@pytest.mark.parametrize("ends", [["finished"] * 3, ["new"] * 3, ["failed", "finished", "new"], ["diverged"] * 3])
def test_columns_have_the_same_types_and_order_whether_all_some_or_no_trials_have_finished(ends, tmp_path):
    complete, partial = Folder(tmp_path / "complete"), Folder(tmp_path / "partial")
    record(complete, "s", {"a": ["finished"] * 3})
    record(partial, "s", {"a": ends})
    whole, part = read_study(complete), read_study(partial)
    common = [name for name in whole.trials if name in part.trials]
    assert list(part.trials.columns) == common
    assert all(name.startswith(("knob.", "fact.", "detail.")) for name in whole.trials if name not in common)
    assert part.trials.dtypes.to_dict() == whole.trials[common].dtypes.to_dict()
    assert part.curves.dtypes.to_dict() == whole.curves.dtypes.to_dict()
    assert {str(whole.trials[name].dtype) for name in ("parameters", "steps", "seen", "best_step")} == {"Int64"}
    assert whole.trials["component.tying"].dtype == bool


def test_knobs_are_what_was_recorded_and_facts_and_missing_values_can_be_told(tmp_path):
    folder = Folder(tmp_path)
    record(folder, "s", {"a": ["finished", "new"]})
    trials = read_study(folder).trials
    knobs = trials.loc[0, ["knob.depth", "knob.tie", "knob.dropout", "knob.clip", "knob.rnn"]]
    assert list(knobs) == [2, True, 0.5, None, "a"]
    assert type(knobs["knob.depth"]) is int
    assert trials["parameters"].notna().tolist() == [True, False]
    assert list(trials["reason"]) == ["", ""]
    assert trials.loc[0, "fact.weather"] == "fair", "a fact that nobody declared"
    assert trials.loc[0, "test_perplexity"] == math.exp(1.6)


def test_a_factor_that_a_cell_does_not_name_has_the_level_it_resolved_to(tmp_path):
    folder = Folder(tmp_path)
    launch = record(folder, "s", {"a": ["finished"], "b": ["finished"], "c": ["new"]})
    launch["cells"][0]["levels"] = {"depth": "3"}
    Journal(folder.study("s")).append("launched", **launch)
    levels = read_study(folder).trials["factor.depth"]
    assert list(levels[:2]) == ["3", "2"]
    assert pd.isna(levels[2])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("test_perplexity", 5.0), ("status", "DONE"), ("test_nll", None), ("seed", 1), ("parameters", -1),
        ("component.tying", "yes"), ("cell", None),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_right_is_refused(column, value, tmp_path):
    folder = Folder(tmp_path)
    record(folder, "s", {"a": ["finished", "finished"]})
    trials = read_study(folder).trials
    values = [value, *trials[column][1:]]
    with pytest.raises(KnobError, match="the study 's': what is recorded cannot be right: "):
        validated(trials.assign(**{column: pd.Series(values, dtype=None if value else trials[column].dtype)}),
                  trials_schema([PERPLEXITY]), "the study 's'")  # fmt: skip


def test_a_perplexity_beyond_a_float_and_a_loss_that_is_none_pass_the_rules():
    table = pd.DataFrame({"cell": "a", "seed": 0, "split": "train", "step": [1, 2, 3], "seen": 1, "seconds": 0.1})
    table = table.assign(nll=[1.0, 800.0, math.nan], perplexity=[math.e, math.inf, math.nan])
    table = table.astype({"cell": "str", "split": "str", "seen": "Int64"})
    assert len(validated(table, curves_schema([PERPLEXITY]), "here")) == 3
    assert len(trials_table([], [PERPLEXITY])) == 0


def test_the_columns_are_those_of_the_metrics_in_the_order_that_is_promised(tmp_path):
    folder = Folder(tmp_path)
    record(folder, "s", {"a": ["finished"]})
    columns = list(read_study(folder).trials)
    assert columns[: columns.index("code")] == [
        "cell", "seed", "status", "reason", "log", "fingerprint", "parameters", "steps", "seen", "seconds",
        "train_seconds", "best_step", "clipped", "first_nll", "best_valid_nll", "valid_nll", "test_nll",
        "valid_perplexity", "test_perplexity", "chance_nll", "floor_nll", "data", "data_digest", "evaluated", "alike",
    ]  # fmt: skip
    curves = ["cell", "seed", "split", "step", "seen", "seconds", "nll", "perplexity"]
    assert list(read_study(folder).curves) == curves


def test_two_metrics_and_what_else_a_task_returned_are_read_and_what_was_not_measured_is_missing(tmp_path):
    folder = Folder(tmp_path)
    metrics = [Metric("accuracy", better="higher", unit="%"), PERPLEXITY]
    task = {"name": "digits", "step": "epoch", "unit": "", "budget": []}
    launch = record(folder, "s", {"a": ["new"]}, metrics=[asdict(metric) for metric in metrics], task=task)
    journal = Journal(folder.trial(launch["cells"][0]["trials"][0]["fingerprint"]) / JOURNAL)
    data = {"name": "digits", "digest": "", "sizes": {}, "evaluated": "", "alike": None, "chance": None, "floor": None}
    journal.append("started", knobs={"lr": 0.1}, seed=0, parameters=None, data={**data, "details": {}}, facts={})
    journal.append("log", step=1, seconds=0.5, values={"train_accuracy": 50, "valid_accuracy": 40, "valid_nll": 2.0})
    journal.append("log", step=2, seconds=1.0, values={"train_accuracy": 60, "lr": 0.1})
    journal.append("log", step=2, seconds=1.0, values={"lr": 0.1})
    values = {"valid_accuracy": 41, "test_accuracy": 42.5, "test_nll": 1.0, "margin": 3}
    outcome = {
        "status": "FINISHED",
        "steps": 2,
        "diverged_at": None,
        "seen": None,
        "seconds": 1.5,
        "train_seconds": 1.0,
    }
    journal.append("finished", **outcome, best_step=1, values=values, sample="")
    results = read_study(folder)
    assert (results.metrics, results.task) == (metrics, task)
    row = results.trials.iloc[0]
    assert (row["test_accuracy"], row["valid_accuracy"], row["test_nll"], row["value.margin"]) == (42.5, 41, 1.0, 3.0)
    assert row["test_perplexity"] == math.e
    missing = ["parameters", "seen", "first_accuracy", "valid_perplexity", "chance_accuracy", "alike"]
    assert row[missing].isna().all()
    assert row["knob.lr"] == 0.1
    curves = results.curves
    assert list(zip(curves["split"], curves["step"], strict=True)) == [("train", 1), ("valid", 1), ("train", 2)]
    assert curves["accuracy"].tolist() == [50, 40, 60]
    assert curves["perplexity"].isna().tolist() == [True, False, True]
    assert curves["seen"].isna().all()


@pytest.mark.parametrize("names", [("nll", "perplexity"), ("seen",), ("error", "error")])
def test_metrics_that_would_share_a_column_are_refused(names):
    metrics = [PERPLEXITY if name == "perplexity" else Metric(name) for name in names]
    for schema in (trials_schema, curves_schema):
        with pytest.raises(ValueError, match=r"the name '\w+'"):
            schema(metrics)
