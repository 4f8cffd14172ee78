"""Journals, their mirror, and the reader: what was recorded is what is read."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from made import PLAIN_LAUNCH
from mlflow import MlflowClient
from recorded import Trial, launch

from ablate.knobs import KnobError
from ablate.track.folder import Folder
from ablate.track.journal import JOURNAL, Journal, last_attempt, read_events, status
from ablate.track.mlflow.client import connect
from ablate.track.mlflow.database import create_database
from ablate.track.mlflow.mirror import Mirror
from ablate.track.read import read_study
from ablate.track.units import duration


@pytest.fixture(scope="module", autouse=True)
def _empty_store(empty_store):
    global EMPTY
    EMPTY = empty_store


def mirror(folder, study="s"):
    notes = []
    if not folder.database().exists():
        shutil.copy(EMPTY, folder.database())
    made = Mirror(folder, None, launch(study), notes.append)
    complete = made.follow(lambda _: True)
    client = MlflowClient(f"sqlite:///{folder.database()}")
    experiment = client.get_experiment_by_name("ablate")
    runs = client.search_runs([experiment.experiment_id])
    return complete, client, [r for r in runs if r.data.tags["ablate.kind"] == "trial"], notes


def test_studies_of_two_folders_in_one_process_are_each_in_the_store_of_their_own(tmp_path, monkeypatch):
    for name in ("first", "second"):
        root = tmp_path / name / "runs"
        root.mkdir(parents=True)
        monkeypatch.chdir(root.parent)
        folder = Folder(Path("runs"))
        trial = Trial(folder)
        trial.start()
        trial.finish()
        assert mirror(folder, name)[0]
    for name in ("first", "second"):
        client = MlflowClient(f"sqlite:///{tmp_path / name / 'runs' / 'mlflow.db'}")
        runs = client.search_runs([client.get_experiment_by_name("ablate").experiment_id])
        assert {run.data.tags.get("ablate.study", name) for run in runs} == {name}
        assert len(runs) == 2


def test_a_torn_last_line_is_passed_over_and_swallows_nothing(tmp_path):
    journal = Journal(tmp_path / JOURNAL)
    journal.append("log", step=1)
    with journal.path.open("ab") as file:
        file.write(b'{"event": "log", "st')
    events, offset = read_events(journal.path)
    assert [e["step"] for e in events] == [1]
    journal.append("log", step=2)
    assert [e["step"] for e in read_events(journal.path)[0]] == [1, 2]
    assert [e["step"] for e in read_events(journal.path, offset)[0]] == [2]


def test_lines_that_are_no_events_are_passed_over(tmp_path):
    (tmp_path / JOURNAL).write_bytes(b'\n[1]\nnull\n{"event": "log", "step": 3}\n\xff\n')
    assert [e["step"] for e in read_events(tmp_path / JOURNAL)[0]] == [3]


def test_status_is_that_of_the_last_attempt(tmp_path):
    trial = Trial(Folder(tmp_path))
    seen = []
    for step in (
        trial.start,
        lambda: trial.append("failed", reason="r"),
        trial.start,
        lambda: trial.append("interrupted"),
        trial.start,
        lambda: trial.finish(status="DIVERGED"),
    ):
        step()
        seen.append(status(last_attempt(read_events(trial.path)[0])))
    assert seen == ["UNFINISHED", "FAILED", "UNFINISHED", "INTERRUPTED", "UNFINISHED", "DIVERGED"]
    assert last_attempt([]) == []


def test_the_mirror_copies_every_point_once_and_again_adds_nothing(tmp_path):
    folder = Folder(tmp_path)
    trial = Trial(folder)
    trial.start()
    for step in range(1, 1301):
        trial.log(step, 1.0 + 1 / step)
    trial.log(1300, 800.0, "valid")
    trial.finish()
    for _ in range(2):
        complete, client, runs, notes = mirror(folder)
        assert (complete, notes, len(runs)) == (True, [], 1)
    history = client.get_metric_history(runs[0].info.run_id, "train_perplexity")
    assert [m.step for m in history] == list(range(1, 1301))
    assert history[0].value == pytest.approx(math.exp(2.0))
    assert runs[0].data.metrics["valid_perplexity"] > 1e308
    assert runs[0].data.params == {"depth": "2", "tie": "true", "seed": "0", "parameters": "10"}
    assert runs[0].info.status == "FINISHED"
    assert runs[0].data.tags["mlflow.source.git.commit"] == "abc"


def test_a_run_whose_attempt_was_cut_off_is_marked_killed_when_the_next_one_starts(tmp_path):
    folder = Folder(tmp_path)
    trial = Trial(folder)
    trial.start()
    trial.log(20)
    _, _, runs, _ = mirror(folder)
    assert [r.info.status for r in runs] == ["RUNNING"]
    trial.start()
    trial.finish()
    _, _, runs, _ = mirror(folder)
    assert sorted(r.info.status for r in runs) == ["FINISHED", "KILLED"]


@pytest.mark.parametrize(
    ("event", "values", "expected"),
    [("failed", {"reason": "RuntimeError: x"}, "FAILED"), ("interrupted", {"reason": "stopped"}, "KILLED")],
)
def test_a_trial_without_a_result_says_why_in_mlflow(tmp_path, event, values, expected):
    folder = Folder(tmp_path)
    trial = Trial(folder)
    trial.start()
    trial.append(event, **values)
    _, _, runs, _ = mirror(folder)
    assert runs[0].info.status == expected
    assert runs[0].data.tags["ablate.reason"] == values["reason"]


def test_a_trial_that_goes_on_is_open_in_mlflow_and_no_longer_says_why_it_was_stopped(tmp_path):
    folder = Folder(tmp_path)
    trial = Trial(folder)
    trial.start()
    trial.append("interrupted", reason="stopped")
    mirror(folder)
    trial.resume()
    _, _, (run,), _ = mirror(folder)
    assert run.info.status == "RUNNING"
    assert {"ablate.status", "ablate.reason"} & run.data.tags.keys() == set()
    trial.finish()
    _, _, (run,), _ = mirror(folder)
    assert (run.info.status, run.data.tags["ablate.status"]) == ("FINISHED", "FINISHED")
    assert "ablate.reason" not in run.data.tags


def test_a_trial_that_is_stopped_and_ends_between_two_looks_says_nothing_of_the_stop(tmp_path):
    folder = Folder(tmp_path)
    trial = Trial(folder)
    trial.start()
    trial.append("interrupted", reason="stopped")
    shutil.copy(EMPTY, folder.database())
    looks = []

    def goes_on_after_the_first_look(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            trial.resume()
            trial.finish()
        return len(looks) == 3

    assert Mirror(folder, None, launch(), print).follow(goes_on_after_the_first_look)
    client = MlflowClient(f"sqlite:///{folder.database()}")
    (run,) = [r for r in client.search_runs(["1"]) if "ablate.fingerprint" in r.data.tags]
    assert (run.info.status, run.data.tags["ablate.status"]) == ("FINISHED", "FINISHED")
    assert "ablate.reason" not in run.data.tags


def test_two_studies_may_share_a_trial_and_each_has_it(tmp_path):
    folder = Folder(tmp_path)
    trial = Trial(folder)
    trial.start()
    trial.finish()
    mirror(folder, study="one")
    _, _, runs, _ = mirror(folder, study="two")
    assert len({r.data.tags["mlflow.parentRunId"] for r in runs}) == len(runs) == 2


def test_a_store_that_breaks_is_told_once_and_the_mirror_says_it_is_behind(tmp_path):
    folder = Folder(tmp_path)
    trial = Trial(folder)
    trial.start()
    trial.finish()
    folder.database().write_bytes(b"this is no database" * 100)
    notes = []
    made = Mirror(folder, None, launch(), notes.append)
    assert made.follow(lambda _: True) is False
    assert len(notes) == 1
    assert "MLflow is not reachable, the journals go on" in notes[0]


def test_the_results_stand_at_the_last_window_once_however_late_the_end_is_read(tmp_path):
    folder = Folder(tmp_path)
    trial = Trial(folder)
    trial.start()
    trial.log(40, split="valid")
    shutil.copy(EMPTY, folder.database())
    made = Mirror(folder, None, launch("s"), print)

    def at_the_second_look(seconds, looks=[]):  # noqa: B006
        looks.append(seconds)
        if len(looks) == 2:
            trial.finish()
        return len(looks) == 2

    assert made.follow(at_the_second_look)
    client = MlflowClient(f"sqlite:///{folder.database()}")
    experiment = client.get_experiment_by_name("ablate").experiment_id
    (run,) = client.search_runs([experiment], "tags.`ablate.kind` = 'trial'")
    (study,) = client.search_runs([experiment], "tags.`ablate.kind` = 'study'")
    # As after a kill just before the run was ended.
    client.update_run(run.info.run_id, status="RUNNING")
    Mirror(folder, None, launch("s"), print).sync()
    for name in ("test_perplexity", "best_valid_perplexity", "final_valid_perplexity", "train_seconds"):
        assert [m.step for m in client.get_metric_history(run.info.run_id, name)] == [40], name
    for name in ("test_perplexity", "best_valid_perplexity"):
        assert len(client.get_metric_history(study.info.run_id, name)) == 1, name


def test_a_run_of_an_earlier_attempt_keeps_its_own_knobs_and_gets_no_sample_of_a_later_one(tmp_path):
    folder = Folder(tmp_path)
    trial = Trial(folder)
    trial.start()
    _, client, (first,), _ = mirror(folder)
    client.update_run(first.info.run_id, status="RUNNING")
    trial.start()
    trial.finish()
    _, client, runs, _ = mirror(folder)
    files = {run.info.run_id: {a.path for a in client.list_artifacts(run.info.run_id)} for run in runs}
    assert files.pop(first.info.run_id) == {"config.yaml", "journal.jsonl"}
    assert list(files.values()) == [{"config.yaml", "journal.jsonl", "sample.txt"}]


def test_the_database_is_made_whole_and_only_once(tmp_path):
    path = tmp_path / "mlflow.db"
    create_database(path)
    first = path.stat().st_ino
    create_database(path)
    assert path.stat().st_ino == first
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []
    assert connect(Folder(tmp_path), None).search_experiments()


def test_a_study_that_was_never_launched_is_refused(tmp_path):
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "empty.jsonl").write_text("")
    with pytest.raises(KnobError, match=r"the study 'empty' in .* was never launched"):
        read_study(Folder(tmp_path), "empty")


def test_a_trial_that_has_not_started_is_a_row_without_numbers(tmp_path):
    folder = Folder(tmp_path)
    Journal(folder.study("s")).append(
        "launched",
        command="c",
        cells=[{"label": "a", "levels": {}, "trials": [{"seed": 0, "fingerprint": "f"}]}],
        **PLAIN_LAUNCH,
    )
    results = read_study(folder, "s")
    assert results.trials.loc[0, "status"] == "UNFINISHED"
    assert pd.isna(results.trials.loc[0, "test_perplexity"])
    assert results.curves.empty


def test_the_study_launched_last_is_read_by_default_whatever_the_clock_says(tmp_path):
    folder = Folder(tmp_path)
    for i, name in enumerate(("old", "new")):
        Journal(folder.study(name)).append("launched", command=name, cells=[], **PLAIN_LAUNCH)
        folder.latest().write_text(name)
        os.utime(folder.study(name), (1000 - i, 1000 - i))
    assert read_study(folder).command == "new"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3599.6, "1 h 00 min"), (7620, "2 h 07 min"), (math.nan, "n/a")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
