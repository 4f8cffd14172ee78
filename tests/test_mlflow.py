"""What MLflow holds of a study: by its metrics, whichever they are, and once, whatever call fails."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter

import pytest
from mlflow import MlflowClient
from recorded import DATA, PRINT, Trial, finished_study, launch

from ablate.knobs import KnobError
from ablate.metric import Metric
from ablate.report import told
from ablate.tasks.language_model import METRICS
from ablate.track.folder import Folder
from ablate.track.journal import now
from ablate.track.mlflow import client as client_module
from ablate.track.mlflow import mirror as mirror_module
from ablate.track.mlflow.client import LAUNCH, LAUNCHED
from ablate.track.mlflow.mirror import Mirror
from ablate.track.mlflow.store import Store

(PERPLEXITY,) = METRICS
ACCURACY = Metric("accuracy", better="higher", unit="%")
SPEED = Metric("speed", better="higher", scale="log")


@pytest.fixture
def folder(tmp_path, empty_store):
    """A runs folder with a store that holds nothing yet."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return Folder(tmp_path)


def address(folder):
    return f"sqlite:///{folder.database()}"


def synced(folder, launched):
    """Client, parents and children after the launch was copied."""
    Mirror(folder, None, launched, print).sync()
    client = MlflowClient(address(folder))
    runs = client.search_runs([client.get_experiment_by_name("ablate").experiment_id])
    of_kind = {kind: [run for run in runs if run.data.tags["ablate.kind"] == kind] for kind in ("study", "trial")}
    return client, of_kind["study"], of_kind["trial"]


def two_cells(folder, metrics, values, seeds=1, **more):
    """A launch of two finished cells; `values`: cell → the values of all metrics, as they are recorded."""
    cells = []
    for label, by_name in values.items():
        trials = [{"seed": seed, "fingerprint": f"{label}{seed}".ljust(64, "0")} for seed in range(seeds)]
        cells.append({"label": label, "levels": {"width": label}, "trials": trials})
        for trial in trials:
            journal = Trial(folder, trial["fingerprint"], metrics)
            journal.start(trial["seed"], knobs={"width": label})
            for step in (1, 2):
                journal.log(step, 50.0, train_nll=2.0, epoch=1)
            journal.log(2, 60.0, "valid", valid_nll=3.0)
            journal.finish(steps=2, **by_name)
    return launch(metrics=metrics, cells=()) | {"cells": cells} | more


def of(first, second):
    """Recorded results of accuracy and of perplexity."""
    return {f"{split}_accuracy": first for split in ("best_valid", "valid", "test")} | {
        f"{split}_nll": second for split in ("best_valid", "valid", "test")
    }


def test_a_study_of_two_metrics_is_told_by_both_and_ranked_by_the_first_which_may_be_better_where_it_is_higher(folder):
    launched = two_cells(folder, (ACCURACY, PERPLEXITY), {"narrow": of(80.0, 1.0), "wide": of(90.0, 2.0)})
    client, (parent,), children = synced(folder, launched)
    names = sorted(run.info.run_name for run in children)
    assert names == ["narrow · seed 0 · test 80.00 %", "wide · seed 0 · test 90.00 %"]
    wide = next(run for run in children if run.info.run_name.startswith("wide"))
    assert wide.data.metrics == pytest.approx(
        {
            "train_accuracy": 50.0, "train_nll": 2.0, "train_perplexity": math.exp(2), "epoch": 1.0, "lr": 0.1,
            "valid_accuracy": 60.0, "valid_nll": 3.0, "valid_perplexity": math.exp(3),
            **{f"{at}_accuracy": 90.0 for at in ("final_valid", "best_valid", "test")},
            **{f"{at}_perplexity": math.exp(2) for at in ("final_valid", "best_valid", "test")},
            "train_seconds": 1.5,
        }
    )  # fmt: skip
    assert parent.data.tags["ablate.best_cell"] == "wide", "of the higher accuracy, though its perplexity is worse"
    assert parent.data.metrics == pytest.approx(
        {"best_valid_accuracy": 90.0, "test_accuracy": 90.0}
        | {"best_valid_perplexity": math.exp(2), "test_perplexity": math.exp(2)}
    )
    experiment = client.get_experiment_by_name("ablate")
    view = json.loads(experiment.tags["mlflow.sharedViewState.ablate"])
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`test_accuracy`", False)
    open_sections = [section["name"] for section in view["compareRunSections"] if section["display"]]
    assert open_sections == ["Learning curves"]
    assert [(card["type"], card["metricKey"], card["metricSectionId"]) for card in view["compareRunCharts"]] == [
        ("LINE", f"{split}_accuracy", "Learning curves") for split in ("valid", "train")
    ]
    assert view["selectedColumns"] == [
        "metrics.`test_accuracy`", "metrics.`best_valid_accuracy`", "params.`width`", "params.`seed`",
        "tags.`ablate.cell`", "tags.`ablate.status`",
    ]  # fmt: skip
    shown = client.search_runs(
        [experiment.experiment_id], view["searchFilter"], order_by=[f"{view['orderByKey']} DESC"]
    )
    assert [run.data.tags["ablate.cell"] for run in shown] == ["wide", "narrow"]


def test_a_studys_run_begins_no_later_than_its_trials_and_ends_no_earlier(folder):
    launched = finished_study(folder, 1.0, 2.0)
    _, (parent,), children = synced(folder, launched | {"time": now()})
    assert parent.info.start_time <= min(child.info.start_time for child in children)
    assert parent.info.end_time >= max(child.info.end_time for child in children)


def test_a_metric_that_is_better_where_it_is_lower_is_sorted_upwards_and_a_study_without_factors_shows_none(folder):
    Trial(folder).start()
    client, _, _ = synced(folder, launch())
    view = json.loads(client.get_experiment_by_name("ablate").tags["mlflow.sharedViewState.ablate"])
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`test_perplexity`", True)
    assert [column for column in view["selectedColumns"] if column.startswith("params.")] == ["params.`seed`"]


def test_a_metric_that_a_task_does_not_return_is_not_in_mlflow_and_changes_nothing_else(folder):
    trial = Trial(folder, metrics=(ACCURACY, SPEED))
    trial.start()
    trial.finish(90.0, best_valid_accuracy=None, valid_speed=None, best_valid_speed=None, clipped=0.5)
    _, (parent,), (child,) = synced(folder, launch(metrics=(ACCURACY, SPEED)))
    assert set(child.data.metrics) == {"final_valid_accuracy", "test_accuracy", "test_speed", "train_seconds"}
    assert set(parent.data.metrics) == {"best_valid_accuracy", "test_accuracy", "test_speed"}


def test_the_best_cell_is_that_of_the_best_mean_over_its_seeds(folder):
    values = {"a": of(80.0, 1.0), "b": of(70.0, 1.0)}
    launched = two_cells(folder, (ACCURACY, PERPLEXITY), values, seeds=2)
    for seed, accuracy in enumerate((100.0, 70.0)):
        trial = Trial(folder, f"b{seed}".ljust(64, "0"), (ACCURACY, PERPLEXITY))
        trial.start(seed)
        trial.finish(accuracy, test_nll=float(seed))
    _, (parent,), _ = synced(folder, launched)
    assert parent.data.tags["ablate.best_cell"] == "b"
    assert parent.data.metrics["test_accuracy"] == 85.0
    assert parent.data.metrics["test_perplexity"] == pytest.approx(math.exp(0.5))


def test_results_beyond_a_float_are_there_once(folder):
    trial = Trial(folder)
    trial.start()
    trial.finish(800.0)
    for _ in range(2):
        client, (parent,), (child,) = synced(folder, launch())
    for run in (parent, child):
        assert len(client.get_metric_history(run.info.run_id, "test_perplexity")) == 1
        assert run.data.metrics["test_perplexity"] > 1e308
    assert child.info.run_name == "a · seed 0 · test over 1,000,000"


@pytest.mark.parametrize("metric", [PERPLEXITY, ACCURACY, SPEED, Metric("loss")], ids=lambda metric: metric.name)
@pytest.mark.parametrize("value", [0.0, -1.5, 1.25, 1234.5, 12345.6, 2e6, math.inf, math.nan])
def test_a_value_reads_in_mlflow_as_in_the_report(metric, value):
    assert metric.text(value) == told.value(metric, value)


def test_the_data_of_a_trial_are_its_dataset_unless_nobody_checked_them(folder):
    fingerprints = [letter * 64 for letter in "ab"]
    for fingerprint, digest in zip(fingerprints, ("d" * 64, ""), strict=True):
        Trial(folder, fingerprint).start(data={"name": "cifar", "digest": digest, "sizes": {"train": 50}})
    trials = [{"seed": seed, "fingerprint": fingerprint} for seed, fingerprint in enumerate(fingerprints)]
    _, _, children = synced(folder, launch() | {"cells": [{"label": "a", "levels": {}, "trials": trials}]})
    checked, unchecked = sorted(children, key=lambda run: run.data.tags["ablate.seed"])
    (found,) = checked.inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("cifar", "d" * 12)
    expected = {"sizes": {"train": 50}, "digest": "d" * 64, **DATA["details"]}
    assert json.loads(found.dataset.profile) == expected
    assert unchecked.inputs.dataset_inputs == []


def test_a_task_may_have_more_knobs_than_mlflow_takes_at_once_and_no_count_of_parameters(folder):
    trial = Trial(folder)
    trial.start(knobs={f"knob{i}": i for i in range(230)}, parameters=None)
    trial.finish()
    _, _, (child,) = synced(folder, launch())
    assert child.data.params == {"seed": "0"} | {f"knob{i}": str(i) for i in range(230)}


def test_of_a_step_measured_again_after_a_resume_the_first_stays_wherever_the_mirror_was(folder):
    trial = Trial(folder)
    trial.start()
    trial.log(20, 2.0)
    trial.log(40, 1.9)
    Mirror(folder, None, launch(), print).sync()
    trial.resume(step=20)
    trial.log(40, 1.8)
    trial.log(60, 1.7)
    trial.finish(steps=60)
    client, _, (child,) = synced(folder, launch())
    points = client.get_metric_history(child.info.run_id, "train_nll")
    assert [(point.step, point.value) for point in points] == [(20, 2.0), (40, 1.9), (60, 1.7)]


def test_a_study_whose_launch_was_not_copied_is_not_in_the_store_until_it_is(folder):
    Trial(folder).start()
    client, (parent,), _ = synced(folder, launch())
    client.delete_tag(parent.info.run_id, LAUNCHED)
    (folder.artifacts() / parent.info.run_id / "artifacts" / LAUNCH).unlink()
    assert Store(address(folder)).studies() == []
    assert Store(address(folder)).newest_study() is None
    synced(folder, launch())
    assert Store(address(folder)).studies() == ["s"]
    assert Store(address(folder)).launch("s")["cells"] == launch()["cells"]


def test_a_store_whose_files_are_missing_says_so(folder):
    Trial(folder).start()
    synced(folder, launch())
    shutil.rmtree(folder.artifacts())
    with pytest.raises(KnobError, match=rf"has no launch\.json: .* python -m ablate\.report s --runs {folder.root}$"):
        Store(address(folder)).launch("s")


class Failing:
    """A client whose `fails`-th call raises, without or after having done what was asked."""

    def __init__(self, client, fails, done):
        self.client, self.fails, self.done = client, fails, done

    def __getattr__(self, name):
        def call(*arguments, **named):
            self.fails -= 1
            if self.fails == 0 and not self.done:
                raise ConnectionError(name)
            answer = getattr(self.client, name)(*arguments, **named)
            if self.fails == 0:
                raise ConnectionError(name)
            return answer

        return call


@pytest.mark.slow
@pytest.mark.parametrize("done", [False, True], ids=["not done", "done"])
def test_whatever_call_fails_the_next_start_completes_the_study_and_nothing_is_there_twice(
    done, tmp_path, empty_store, monkeypatch
):
    monkeypatch.setattr(client_module, "_PAGE", 1)
    for fails in range(1, 100):
        folder = Folder(tmp_path / str(fails))
        folder.root.mkdir()
        shutil.copy(empty_store, folder.database())
        trial = Trial(folder)
        trial.start()
        trial.log(20)
        trial.log(40, split="valid")
        trial.finish()
        failing = None

        def connect(*arguments, fails=fails):
            nonlocal failing
            failing = Failing(client_module.connect(*arguments), fails, done)
            return failing

        with monkeypatch.context() as patched:
            patched.setattr(mirror_module, "connect", connect)
            complete = Mirror(folder, None, launch(), lambda _: None).follow(lambda _: True)
        assert_whole(*synced(folder, launch()))
        if failing.fails > 0:  # more than there are calls
            assert complete
            break
    assert fails > 15


def assert_whole(client, parents, children):
    (parent,), (child,) = parents, children
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert parent.data.tags["ablate.trials"] == "1 of 1 finished"
    assert child.info.run_name == "a · seed 0 · test 2.7"
    assert child.data.tags["ablate.fingerprint"] == PRINT
    assert child.data.params == {"depth": "2", "tie": "true", "seed": "0", "parameters": "10"}
    assert len(child.inputs.dataset_inputs) == 1
    files = {file.path for file in client.list_artifacts(child.info.run_id)}
    assert files == {"config.yaml", "journal.jsonl", "sample.txt"}
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {LAUNCH}
    for run, size in ((parent, 2), (child, 9)):
        points = Counter((name, point.step) for name in run.data.metrics for point in history(client, run, name))
        assert len(run.data.metrics) == size
        assert set(points.values()) == {1}


def history(client, run, name):
    return client.get_metric_history(run.info.run_id, name)
