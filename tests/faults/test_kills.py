"""Whatever kills a study, the same command goes on, and ends with the results of one that was never disturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import TINY
from program import inside, journals, kill_tree, start, wait_until

import ablate as package
from ablate.track.claims import holder
from ablate.track.journal import last_attempt

# Long enough to be killed in the middle: a second or two of training, four validations, dropout and Adam's state.
WINDOWS, VALID_EVERY, KILLED_AT = 600, 150, 180
KILLED = [*TINY, "model=better_lstm", "hidden=16", f"windows={WINDOWS}", f"valid_every={VALID_EVERY}", "name=study",
          "tracking=off", "report=false"]  # fmt: skip
CLOCK = ["seconds", "train_seconds"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The results of the one-cell study that the tests below kill."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, _, err = inside(*KILLED, folder=folder)
    assert (code, err) == (0, "")
    return folder


def results(folder, study="study"):
    """What was recorded of a study, without what a clock decides."""
    tables = [read(study, runs=folder / "runs") for read in (package.results, package.curves)]
    return [t.drop(columns=[c for c in (*CLOCK, "log") if c in t]).to_csv() for t in tables]


def weights(folder):
    """Trial → names of its weights, which hold the SHA-256 of their bytes."""
    return {path.name: sorted(p.name for p in path.rglob("*.pt")) for path in folder.glob("runs/trials/*")}


def windows_trained(folder):
    """Windows that were trained, those trained twice counted twice."""
    total = 0
    for events in journals(folder).values():
        at = 0
        for event in events:
            if event["event"] in ("started", "resumed"):
                at = event.get("step", 0)
            elif event["event"] == "log" and "train_nll" in event["values"]:
                total, at = total + event["step"] - at, event["step"]
    return total


def reached(folder, step=KILLED_AT):
    return lambda: any(e.get("step", 0) >= step for events in journals(folder).values() for e in events)


def group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def ends_as_if_undisturbed(folder, undisturbed):
    code, out, err = inside(*KILLED, folder=folder)
    assert (code, err) == (0, "")
    assert results(folder) == results(undisturbed)
    assert weights(folder).items() >= weights(undisturbed).items()
    return out


def test_kill_9_of_the_parent_takes_its_workers_along_and_an_immediate_restart_goes_on_to_the_same_bits(
    tmp_path, undisturbed
):
    process = start(["ablate", *KILLED], tmp_path)
    wait_until(reached(tmp_path))
    os.kill(process.pid, signal.SIGKILL)
    out = ends_as_if_undisturbed(tmp_path, undisturbed)  # at once: the worker may live for an instant
    (window,) = (e["step"] for events in journals(tmp_path).values() for e in events if e["event"] == "resumed")
    assert window >= VALID_EVERY
    assert f"goes on at window {window} of {WINDOWS}" in out
    assert windows_trained(tmp_path) < WINDOWS + 2 * VALID_EVERY
    process.communicate(timeout=30)  # returns when no process of the killed study holds its output any more


def test_a_worker_killed_as_by_the_oom_killer_fails_its_trial_and_no_other(tmp_path, undisturbed):
    def kill_the_worker(_):
        wait_until(reached(tmp_path))
        (worker,) = {e["process"].split(":")[1] for of in journals(tmp_path).values() for e in of if "process" in e}
        os.kill(int(worker), signal.SIGKILL)

    arguments = ["-m", *KILLED, "seed=0,1", "report=true"]
    code, out, err = inside(*arguments, folder=tmp_path, meanwhile=kill_the_worker)
    assert (code, err) == (1, "")
    assert "seed 0: failed, the worker process was killed (SIGKILL); the system may have run out of memory" in out
    assert "better_lstm seed 0: FAILED the worker process was killed" in out
    assert "seed 1: valid" in out
    ends_as_if_undisturbed(tmp_path, undisturbed)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_sigterm_and_ctrl_c_end_in_a_line_and_leave_no_process(tmp_path, undisturbed, number, code):
    process = start(["ablate", *KILLED], tmp_path)
    wait_until(reached(tmp_path))
    # A terminal sends Ctrl-C to the whole group; a scheduler sends SIGTERM to the parent alone.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert "\nnote: python -m ablate.report study shows what is finished so far\n" in out
    assert (process.returncode, err) == (code, "ablate: stopped; the same command goes on with what is not finished\n")
    assert [events[-1]["event"] for events in journals(tmp_path).values()] == ["interrupted"]
    wait_until(lambda: not group_lives(process.pid), seconds=20)
    ends_as_if_undisturbed(tmp_path, undisturbed)


def test_ctrl_c_while_the_server_of_the_workers_imports_torch_ends_it_without_a_traceback():
    done = subprocess.run(
        [sys.executable, "-c", WARMED], capture_output=True, text=True, start_new_session=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


WARMED = """
import os, signal, time
from ablate.engines.server import warm_up
signal.signal(signal.SIGINT, lambda *_: None)
warm_up()
time.sleep(0.5)
for _ in range(40):
    os.killpg(0, signal.SIGINT)
    time.sleep(0.05)
"""


@pytest.mark.parametrize("task", ["language model", "function"])
def test_a_worker_whose_machine_is_wanted_back_saves_at_once_and_its_trial_goes_on_to_the_same_bits(
    task, tmp_path, undisturbed
):
    if task == "function":
        (tmp_path / "slow.py").write_text(SLOW)
        asked, at = ["task=slow.py:train", "tracking=off", "report=false"], 3
    else:
        asked, at = KILLED, KILLED_AT

    def wanted_back(printed):
        wait_until(reached(tmp_path, at))
        (trial,) = journals(tmp_path)
        os.kill(int(holder(trial).process.split(":")[1]), signal.SIGUSR1)

    code, _, err = inside(*asked, folder=tmp_path, meanwhile=wanted_back)
    assert (code, err) == (0, "")
    ((_, events),) = journals(tmp_path).items()
    kinds = [e["event"] for e in events if e["event"] != "log"]
    assert kinds == ["started", "interrupted", "resumed", "finished"]
    (resumed,) = (e for e in events if e["event"] == "resumed")
    last = max(e["step"] for e in events[: events.index(resumed)] if e["event"] == "log")
    assert resumed["step"] == last >= at, "nothing is trained twice"
    if task == "language model":
        assert results(tmp_path) == results(undisturbed)
        assert weights(tmp_path) == weights(undisturbed)


SLOW = """
import time
from dataclasses import dataclass

import ablate


@dataclass
class Config:
    rate: float = 0.1


@ablate.task(Config, metric=ablate.Metric("error", better="lower", scale="linear"))
def train(config, run):
    state = {"error": 1.0}
    run.keep(state=state)
    for step in run.steps(30):
        time.sleep(0.1)
        state["error"] -= 0.01
        run.log(valid_error=state["error"])
    return {"test_error": state["error"]}
"""


def test_a_finished_trial_is_not_trained_twice_by_two_studies_at_once(tmp_path):
    arguments = ["-m", *TINY, "depth=1,2", "tie=true,false", "windows=200", "tracking=off", "report=false"]
    one = start(["ablate", *arguments, "name=one"], tmp_path)
    wait_until(lambda: journals(tmp_path))
    code, out, err = inside(*arguments, "name=two", folder=tmp_path)
    assert (code, err) == (0, "")
    assert "another study is training it" in out
    _, err = one.communicate(timeout=240)
    assert (one.returncode, err) == (0, "")
    trials = journals(tmp_path)
    assert len(trials) == 4
    for events in trials.values():
        assert [e["event"] for e in events if e["event"] != "log"] == ["started", "finished"]
    assert results(tmp_path, "one") == results(tmp_path, "two")


def test_killed_at_random_again_and_again_a_study_ends_with_the_same_table(tmp_path):
    """The short form of benchmarks/kill_and_resume.py."""
    grid = ["-m", *TINY, "depth=1,2", "tie=true,false", "dropout=0.3", "windows=300", "valid_every=100",
            "name=study", "tracking=off"]  # fmt: skip
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    assert inside(*grid, "report=false", folder=undisturbed)[0] == 0
    rng = random.Random(0)
    for _ in range(2):
        before = journals(killed)
        process = start(["ablate", *grid, "report=false"], killed)
        wait_until(lambda before=before: journals(killed) != before)
        time.sleep(rng.uniform(0, 1.5))
        kill_tree(process)
    assert inside(*grid, folder=killed)[0] == 0
    assert results(killed) == results(undisturbed)
    assert weights(killed) == weights(undisturbed)
    for events in journals(killed).values():
        assert [e["event"] for e in events].count("finished") == 1
        assert len(last_attempt(events)) >= 20
    table = (killed / "reports" / "study" / "comparison.md").read_text()
    assert json.dumps(table).count("depth=") == 4
