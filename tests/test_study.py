"""Jobs → cells → plan: what is one cell, what is trained, what stands already."""

from __future__ import annotations

import io
import re
import shutil
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from conftest import TINY, knobs_of, make_plan, study_of, study_of_jobs, train_in_process, values_of
from program import claim_folder
from rich.console import Console

import ablate
from ablate.code import code_digest
from ablate.knobs import KnobError, deciding, flat
from ablate.registry import Registry
from ablate.study.cells import Job
from ablate.study.jobs import make_study
from ablate.study.plan import fingerprint, what_changed
from ablate.study.progress import Progress
from ablate.study.view import View
from ablate.tasks.language_model import LANGUAGE_MODEL, METRICS, task, training
from ablate.tasks.language_model.config import RECURRENT_LAYERS
from ablate.track.claims import read_trial
from ablate.track.folder import Folder
from ablate.track.journal import JOURNAL, Journal


def jobs(**levels):
    """One job for every combination, as Hydra's sweeper makes them."""
    combinations = product(*([(name, value) for value in values] for name, values in levels.items()))
    typed = [tuple(f"{name}={value}" for name, value in c) for c in combinations]
    return [Job(overrides, values_of(*TINY, *overrides)) for overrides in typed]


def test_a_grid_gives_a_cell_for_every_combination_labelled_by_its_levels():
    cells = make_study(jobs(depth=[1, 2], tie=["true", "False"])).cells
    assert [c.label for c in cells] == [
        "depth=1 tie=true", "depth=1 tie=false", "depth=2 tie=true", "depth=2 tie=false",
    ]  # fmt: skip
    assert cells[1].levels == {"depth": "1", "tie": "false"}
    assert make_study(jobs(depth=[1, 2], tie=["true", "False"])).name == "depth-tie"


def test_seeds_and_a_sweep_over_seed_give_the_same_cells():
    by_count = make_study([Job(("depth=2", "seeds=3"), values_of(*TINY, "depth=2", "seeds=3"))])
    by_sweep = make_study(jobs(depth=[2], seed=[0, 1, 2]))
    assert (
        [(c.label, c.seeds) for c in by_count.cells]
        == [(c.label, c.seeds) for c in by_sweep.cells]
        == [("lstm depth=2", (0, 1, 2))]
    )


def test_a_preset_and_its_spelled_out_equal_are_one_cell_with_one_fingerprint():
    spelled = ("rnn=lstm", "depth=2", "dropout=0.5", "tie=true")
    a, b = knobs_of(*TINY, "model=better_lstm"), knobs_of(*TINY, "model=rnn", *spelled)
    assert fingerprint("lm", deciding(a), 0, "data", "code") == fingerprint("lm", deciding(b), 0, "data", "code")
    cells = make_study([Job(("model=better_lstm",), values_of(*TINY, "model=better_lstm")),
                        Job(spelled, values_of(*TINY, *spelled))])  # fmt: skip
    assert len(cells.cells) == 1


def test_a_value_given_twice_is_one_cell():
    assert len(make_study(jobs(depth=[1, 1, 1])).cells) == 1


@pytest.mark.parametrize("override", ["depth=3", "lr=0.5", "data.seed=1", "precision=fp32", "carry=false"])
def test_whatever_decides_a_result_changes_the_fingerprint(override, monkeypatch):
    monkeypatch.setattr(training, "has_bf16", lambda device: True)  # what `auto` then is, on any processor

    def prints(*overrides):
        return [p.fingerprint for p in make_plan(study_of(*TINY, *overrides), Folder("none"))]

    assert prints() != prints(override)


@pytest.mark.parametrize(
    "override", ["name=x", "device=cpu", "threads=2", "force=true", "runs=elsewhere", "sample_words=9"]
)
def test_what_decides_nothing_leaves_the_fingerprint(override):
    a, b = deciding(knobs_of(*TINY)), deciding(knobs_of(*TINY, override))
    assert fingerprint("lm", a, 0, "d", "c") == fingerprint("lm", b, 0, "d", "c")
    assert len({fingerprint("lm", a, s, d, c) for s in (0, 1) for d in "de" for c in "cd"}) == 8


def test_a_finished_trial_stands_unless_force_asks_for_it_again(tmp_path):
    study = study_of_jobs(jobs(depth=[1]))
    (planned,) = make_plan(study, Folder(tmp_path))
    assert (planned.status, planned.is_done) == ("UNFINISHED", False)
    journal = Journal(planned.folder / JOURNAL)
    journal.append("started")
    assert not make_plan(study, Folder(tmp_path))[0].is_done
    journal.append("finished", status="FINISHED")
    assert make_plan(study, Folder(tmp_path))[0].is_done
    again = make_plan(study_of(*TINY, "depth=1", "force=true"), Folder(tmp_path), results_of=["this launch"])[0]
    assert (again.fingerprint, again.is_done) == (planned.fingerprint, False)


def test_every_problem_of_every_cell_is_told_once_before_anything_is_trained():
    with pytest.raises(KnobError) as caught:
        make_study(jobs(depth=[1, 0], lr=["0.1", "nan"]))
    assert [p.split(":")[0] for p in caught.value.problems] == ["lr=nan", "depth=0"]
    with pytest.raises(KnobError) as caught:
        make_plan(study_of_jobs(jobs(batch=[4, 5000], depth=[1, 2])), Folder("none"))
    assert len(caught.value.problems) == 1
    assert "the largest batch that works is" in str(caught.value)


def test_a_study_has_one_runs_folder():
    with pytest.raises(KnobError, match="runs=a,b: a study has one runs"):
        make_study(jobs(runs=["a", "b"]))


def test_the_code_digest_follows_the_sources_that_decide_and_no_others(tmp_path, monkeypatch):
    knobs = knobs_of()
    copy = tmp_path / "ablate"
    shutil.copytree(Path(ablate.__file__).parent, copy)
    monkeypatch.setattr(task, "_ROOT", copy)
    monkeypatch.setattr(task, "_PACKAGE", copy / "tasks" / "language_model")

    def digest():
        task._sources.cache_clear()
        task._files.cache_clear()
        return code_digest(LANGUAGE_MODEL.sources(knobs))

    before = digest()
    (copy / "report" / "tables.py").write_text("# edited")
    assert digest() == before
    (copy / "train" / "machine.py").write_text("# edited")
    assert digest() != before
    task._sources.cache_clear()
    task._files.cache_clear()


def test_why_something_is_trained_again_is_told_and_what_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "has_bf16", lambda device: True)

    def planned(*overrides, study="s"):
        # Torch has an LSTM in bf16 only where the processor has bf16; it has the other layer everywhere.
        return make_plan(study_of(*TINY, "rnn=tanh", *overrides, name=study), Folder(tmp_path))[0]

    first = planned("windows=3")
    assert first.why == ""
    launched = [{"label": "lstm", "levels": {}, "trials": [{"seed": 0, "fingerprint": first.fingerprint}]}]
    Journal(Folder(tmp_path).study("s")).append("launched", cells=launched)
    assert planned("windows=3", "lr=0.5").why == "", "it had no result"
    train_in_process([first])
    assert planned("windows=3").why == "", "it stands"
    assert planned("windows=3", "lr=0.5", "tie=true").why == "tie changed (false → true); lr changed (0.003 → 0.5)"
    assert planned("windows=3", "precision=fp32").why == "precision changed (bf16 → fp32)"
    assert re.fullmatch(r"data changed \(\w{12} → \w{12}\)", planned("windows=3", "data.seed=5").why)
    assert planned("windows=3", "lr=0.5", study="another").why == ""
    journal = claim_folder(first.folder) / JOURNAL
    sha = LANGUAGE_MODEL.sources(first.trial.config)["tasks/language_model/optim.py"]
    journal.write_text(journal.read_text().replace(sha, "0" * 64))
    shutil.move(first.folder, first.folder.with_name("0123456789abcdef"))
    launched[0]["trials"][0]["fingerprint"] = "0123456789abcdef"
    Journal(Folder(tmp_path).study("s")).append("launched", cells=launched)
    assert planned("windows=3").why == "code changed (tasks/language_model/optim.py)"


def test_a_knob_that_is_new_or_gone_is_told_as_that():
    started = {
        "event": "started",
        "sources": {},
        "data": {"digest": "d"},
        "knobs": {"lr": 0.1, "clip": None, "path": "a"},
    }
    finished = {"event": "finished", "status": "FINISHED"}
    why = what_changed([started, finished], {"rate": 0.1, "clip": 2}, {}, "d", ["rate", "clip", "path"])
    assert why == "rate is new (0.1); clip changed (null → 2); lr is gone (0.1)"


def test_a_trial_stays_on_the_kind_of_device_that_it_was_planned_for(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "has_bf16", lambda device: True)

    def planned():
        return make_plan(study_of(*TINY, "rnn=tanh", "precision=fp32", "windows=3"), Folder(tmp_path))[0]

    on_cpu = planned()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 2**30))
    on_cuda = planned()
    assert (on_cpu.trial.device, on_cuda.trial.device) == ("cpu", "cuda")
    assert on_cpu.fingerprint != on_cuda.fingerprint
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # as a worker may find it
    train_in_process([on_cuda])
    (failed,) = read_trial(on_cuda.folder)
    assert failed["event"] == "failed"
    assert "device=cuda: torch sees no CUDA device on this machine" in failed["reason"]
    assert not list(on_cuda.folder.rglob("*.pt"))


def test_a_trial_that_begins_again_on_another_kind_of_device_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "has_bf16", lambda device: True)

    def planned(*overrides):
        study = study_of(*TINY, "rnn=tanh", "precision=fp32", "windows=3", *overrides)
        return make_plan(study, Folder(tmp_path))[0]

    first = planned()
    launched = [{"label": "lstm", "levels": {}, "trials": [{"seed": 0, "fingerprint": first.fingerprint}]}]
    Journal(Folder(tmp_path).study("s")).append("launched", cells=launched)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 2**30))
    assert planned().why == "", "nothing has begun"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    train_in_process([first])
    assert planned().why == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 2**30))
    assert planned().why == "kind of device changed (cpu → cuda)"
    assert planned("lr=0.5").why == "lr changed (0.003 → 0.5)"
    journal = claim_folder(first.folder) / JOURNAL
    journal.write_text(journal.read_text().splitlines(keepends=True)[0])  # it has only begun
    assert planned().why == "kind of device changed (cpu → cuda)"


def test_the_time_left_is_judged_by_the_work_not_by_the_number_of_trials():
    planned = make_plan(study_of_jobs(jobs(hidden=[4, 64])), Folder("none"))
    assert planned[1].facts.work > 10 * planned[0].facts.work
    progress = Progress(planned)
    assert progress.seconds_left(0.0) is None
    progress.starts(planned[0], 0, now=100.0)
    progress.measured(planned[0], planned[0].steps, "")
    progress.set(planned[0], "done")
    assert progress.seconds_left(110.0) == pytest.approx(10 * planned[1].facts.work / planned[0].facts.work)
    assert progress.counts() == "1 done, 1 waiting"


def test_the_time_left_is_that_of_all_trials_added_up_however_they_start_and_end():
    planned = make_plan(study_of_jobs(jobs(hidden=[4, 8, 16, 32])), Folder("none"))
    progress = Progress(planned)
    progress.starts(planned[0], 0, now=0.0)
    progress.measured(planned[0], 20, "")
    progress.starts(planned[1], 10, now=0.0)
    progress.measured(planned[1], 20, "")
    progress.starts(planned[1], 10, now=0.0)  # killed, and started again
    progress.measured(planned[1], 30, "")
    progress.set(planned[0], "failed")
    progress.measured(planned[2], 10, "")
    done = 0.5 * planned[0].facts.work + 0.5 * planned[1].facts.work
    left = 0.25 * planned[1].facts.work + 0.75 * planned[2].facts.work + planned[3].facts.work
    assert progress.seconds_left(10.0) == pytest.approx(10 * left / done)


def test_a_trial_whose_start_was_not_seen_is_shown_all_the_same():
    (planned,) = make_plan(study_of_jobs(jobs(hidden=[4])), Folder("none"))
    printed = io.StringIO()
    with View("s", [planned], METRICS[0], "window", Console(file=printed)) as view:
        # Another study began it just before this one looked, and goes on while this one tries to.
        view.event(planned, {"event": "log", "step": 10, "values": {"valid_nll": 1.0}})
        view.event(planned, {"event": "log", "step": 20, "values": {"valid_nll": 1.0}})
    assert "window 20, valid perplexity 2.7" in printed.getvalue()


def test_a_users_own_recurrent_layer_is_a_level_like_any_other(monkeypatch):
    class Point:
        name = "gru"

        @staticmethod
        def load():
            return "the layer"

    monkeypatch.setattr("ablate.registry.entry_points", lambda group: [Point] if group == "ablate.rnn" else [])
    assert RECURRENT_LAYERS.names() == ["gru", "lstm", "tanh"]
    assert RECURRENT_LAYERS.load("gru") == "the layer"
    assert knobs_of("rnn=gru").rnn == "gru"
    with pytest.raises(ValueError, match="rnn=lst: unknown; did you mean 'lstm'"):
        RECURRENT_LAYERS.load("lst")
    assert Registry("x", {"a": "math:pi"}).load("a") == pytest.approx(3.14159, rel=1e-5)


def test_a_part_of_the_package_is_found_without_reading_what_every_installed_package_declares(monkeypatch):
    # Which takes 50 ms, and a configuration is read for every cell, several times.
    monkeypatch.setattr("ablate.registry.entry_points", lambda group: pytest.fail(f"{group} is looked up"))
    assert knobs_of(*TINY, "rnn=tanh", "optimizer=adam").rnn == "tanh"


def test_a_password_in_a_tracking_uri_is_recorded_nowhere(monkeypatch):
    from ablate.session import command_of, without_addresses

    secret = "postgresql://me:hunter2@db/mlflow"
    monkeypatch.setattr("sys.argv", ["x", "depth=2", f"tracking.uri={secret}"])
    assert command_of(LANGUAGE_MODEL) == "python -m ablate"
    assert without_addresses(sys.argv[1:]) == "depth=2 'tracking.uri=***'"
    study = study_of(*TINY, f"tracking.uri='{secret}'")
    assert study.launch.tracking.uri == secret
    assert "hunter2" not in str(flat(study.cells[0].config))
    assert "hunter2" not in str(study.cells[0].record())
