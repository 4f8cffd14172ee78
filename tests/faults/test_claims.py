"""Who trains a trial, and whose lines count, when processes die, sleep, or are taken for dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread

import pytest
from conftest import TINY, killed_in_the_middle, make_plan, study_of, train_in_process
from program import ROOT, claim_folder, inside, journals, kill_tree, start, wait_until
from warm import Warm, script

from ablate.engines import worker
from ablate.knobs import KnobError
from ablate.track import claims
from ablate.track.alive import Silence
from ablate.track.claims import Taken, TrialTail, claimed, holder, read_trial
from ablate.track.folder import Folder
from ablate.track.journal import JOURNAL, Journal, last_attempt, status
from ablate.track.process import this_process

QUIET = ["tracking=off", "report=false"]
LONG = [*TINY, "model=better_lstm", "hidden=16", "windows=800", "valid_every=200", "lease=4", *QUIET]


def claimed_by(trial, process, events=()):
    """A claim that another process left: `process` as its claim names it."""
    with claimed(trial, "another launch") as claim:
        for event in events:
            claim.append(event)
    path = claim.folder / "claim.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "process": process}))
    (claim.folder / "over").unlink()
    return claim


def dead_process():
    child = subprocess.Popen([sys.executable, "-c", "print(1)"], stdout=subprocess.PIPE)
    child.communicate()
    host = this_process().split(":")[0]
    return f"{host}:{child.pid}:1@00000000"


def elsewhere():
    """A process of which nobody can say whether it lives."""
    return "another-machine:1:1@00000000"


def test_of_many_that_claim_a_trial_at_once_one_has_it(tmp_path):
    def claim(trial, barrier):
        barrier.wait()
        try:
            context = claimed(trial, "a launch")
            return context, context.__enter__()
        except Taken:
            return None

    with ThreadPoolExecutor(8) as pool:
        for round_ in range(50):
            barrier = Barrier(8)
            trial = tmp_path / str(round_)
            found = list(pool.map(claim, [trial] * 8, [barrier] * 8))
            assert sum(each is not None for each in found) == 1
            assert [path.name for path in trial.iterdir()] == ["claim-0001"], "nothing is left by those who came late"


def test_a_claim_is_free_once_it_is_given_up_or_its_process_is_dead_and_not_before(tmp_path):
    with claimed(tmp_path / "t", "one"), pytest.raises(Taken), claimed(tmp_path / "t", "two"):
        pass
    with claimed(tmp_path / "t", "two") as second:
        assert second.number == 2
    claimed_by(tmp_path / "d", dead_process())
    assert holder(tmp_path / "d").is_over
    claimed_by(tmp_path / "e", elsewhere())
    assert not holder(tmp_path / "e").is_over
    with pytest.raises(Taken), claimed(tmp_path / "e", "two"):
        pass
    with claimed(tmp_path / "e", "two", silent=1) as taker:
        assert taker.number == 2


def test_what_a_process_writes_after_it_was_taken_over_is_read_by_nobody(tmp_path):
    zombie = claimed_by(tmp_path, elsewhere(), ["started", "log"])
    tail = TrialTail(tmp_path)
    assert [e["event"] for e in tail.read()] == ["started", "log"]
    with claimed(tmp_path, "taker", silent=1) as taker:
        with pytest.raises(Taken):
            zombie.append("log")
        Journal(zombie.folder / JOURNAL).append("finished", status="FINISHED")  # it looked just before it was cut off
        taker.append("resumed", kept=1)
        length = taker.append("finished", status="DIVERGED")
    events = read_trial(tmp_path)
    assert [e["event"] for e in events] == ["started", "log", "resumed", "finished"]
    assert status(last_attempt(events)) == "DIVERGED"
    assert length == len(claims.read_bytes(tmp_path)), "offsets are those of the whole journal"
    assert [e["event"] for e in tail.read()] == ["resumed", "finished"]
    tail.rewind()
    assert tail.read() == events


def test_a_line_that_is_half_written_when_a_trial_is_taken_over_is_cut_off(tmp_path):
    zombie = claimed_by(tmp_path, elsewhere(), ["started"])
    with (zombie.folder / JOURNAL).open("ab") as file:
        file.write(b'{"event": "fini')
    with claimed(tmp_path, "taker", silent=1) as taker:
        with (zombie.folder / JOURNAL).open("ab") as file:
            file.write(b'shed", "status": "FINISHED"}\n')
        taker.append("resumed", kept=0)
    assert [e["event"] for e in read_trial(tmp_path)] == ["started", "resumed"]


def test_what_a_newer_version_wrote_is_refused_in_a_sentence_and_not_misread(tmp_path):
    with claimed(tmp_path / "t", "one") as claim:
        claim.append("started", schema=99)
    with pytest.raises(KnobError, match=r"a newer version of ablate has written here .*update ablate"):
        read_trial(tmp_path / "t")
    code, _, err = inside(*TINY, *QUIET, "name=s", folder=tmp_path)
    assert (code, err) == (0, "")
    study = tmp_path / "runs" / "studies" / "s.jsonl"
    study.write_text(study.read_text().replace('"schema": 1', '"schema": 2'))
    code, _, err = inside(*TINY, *QUIET, "name=s", folder=tmp_path)
    assert code == 2
    assert err.startswith("ablate: a newer version of ablate has written here")


def test_a_damaged_claim_is_one_line_that_says_what_to_do(tmp_path):
    assert inside(*TINY, *QUIET, folder=tmp_path)[0] == 0
    (trial,) = journals(tmp_path)
    (claim_folder(trial) / "claim.json").write_text('{"schema"')
    code, _, err = inside(*TINY, *QUIET, "force=true", folder=tmp_path)
    assert code != 0
    inner = f"runs/trials/{trial.name}"
    assert f"{inner}/claim-0001/claim.json: is damaged; delete {inner}, and its trial is trained again" in err


def test_silence_is_counted_while_one_looks_and_ends_with_a_sign_of_life(tmp_path, monkeypatch):
    clock = iter([0, 2, 4, 1000, 1002, 1004])  # between 4 and 1000 this process was stopped
    monkeypatch.setattr("ablate.track.alive.time.monotonic", lambda: float(next(clock)))
    with claimed(tmp_path, "one") as claim:
        silence = Silence(tmp_path)
        assert [silence.look(), silence.look(), silence.look()] == [2.0, 4.0, 9.0]
        claim.beat(1)
        assert [silence.look(), silence.look()] == [0.0, 2.0]


def test_a_journal_and_checkpoints_of_before_there_were_claims_are_gone_on_with(tmp_path):
    planned = {}
    for name in ("undisturbed", "before"):
        (planned[name],) = make_plan(study_of(*TINY, "windows=80"), Folder(tmp_path / name))
    assert train_in_process([planned["undisturbed"]]) == [worker.TRAINED]
    trial = planned["before"].folder
    killed_in_the_middle(planned["before"])
    for path in claim_folder(trial).iterdir():
        path.rename(trial / path.name)
    for path in trial.glob("claim*"):
        path.unlink() if path.is_file() else path.rmdir()
    assert train_in_process([planned["before"]]) == [worker.TRAINED]
    events = read_trial(trial)
    assert [e["event"] for e in events if e["event"] != "log"] == ["started", "resumed", "finished"]
    assert next(e["step"] for e in events if e["event"] == "resumed") == 40
    assert results_of(planned["before"]) == results_of(planned["undisturbed"])
    assert not list(trial.glob("state-*")), "what earlier processes saved is tidied away"


def results_of(planned):
    events = last_attempt(read_trial(planned.folder))
    weights = sorted(path.name for path in planned.folder.rglob("*.pt"))
    return (
        events[-1]["values"],
        [e["values"]["valid_nll"] for e in events if "valid_nll" in e.get("values", {})],
        weights,
    )


def test_a_trial_killed_again_before_it_has_saved_anything_goes_on_from_the_same_state(tmp_path):
    planned = {}
    for name in ("undisturbed", "killed"):
        (planned[name],) = make_plan(study_of(*TINY, "windows=80"), Folder(tmp_path / name))
    assert train_in_process([planned["undisturbed"]]) == [worker.TRAINED]
    for windows in (50, 5, 5):
        killed_in_the_middle(planned["killed"], windows)
    (state,) = planned["killed"].folder.rglob("state-*.pt")
    assert state.parent.name == "claim-0003", "being stopped again and again leaves no more on disk"
    assert train_in_process([planned["killed"]]) == [worker.TRAINED]
    events = read_trial(planned["killed"].folder)
    assert [e.get("step") for e in events if e["event"] in ("started", "resumed")] == [None, 40, 40, 40]
    assert results_of(planned["killed"]) == results_of(planned["undisturbed"])


def test_best_weights_that_are_the_last_too_are_on_disk_once(tmp_path):
    (planned,) = make_plan(study_of(*TINY), Folder(tmp_path))
    train_in_process([planned])
    best, last = (next(planned.folder.rglob(f"{kind}-*.pt")) for kind in ("best", "last"))
    assert best.stat().st_ino == last.stat().st_ino


@pytest.mark.parametrize("fact", ["torch", "device"])
def test_what_would_not_go_on_to_the_same_bits_starts_anew_and_says_why(fact, tmp_path):
    (planned,) = make_plan(study_of(*TINY, "windows=80"), Folder(tmp_path))
    killed_in_the_middle(planned)
    journal = claim_folder(planned.folder) / JOURNAL
    first, *rest = journal.read_text().splitlines(keepends=True)
    started = json.loads(first)
    here, started["facts"][fact] = started["facts"][fact], "another"
    journal.write_text(json.dumps(started) + "\n" + "".join(rest))
    assert train_in_process([planned]) == [worker.TRAINED]
    events = read_trial(planned.folder)
    assert [e["event"] for e in events if e["event"] != "log"] == ["started", "started", "finished"]
    assert last_attempt(events)[0]["anew"] == f"{fact} changed (another → {here})"


def test_a_worker_that_is_stopped_is_named_and_ended_and_the_study_goes_on(tmp_path):
    def stop_the_first(_):
        wait_until(lambda: worker_of(tmp_path) is not None)
        os.kill(worker_of(tmp_path), signal.SIGSTOP)

    code, out, err = inside("-m", *LONG, "seed=0,1", folder=tmp_path, meanwhile=stop_the_first)
    assert (code, err) == (1, "")
    assert "seed 0: failed, its process gave no sign of life for 4 s (lease=4) and was ended" in out
    assert "seed 1: valid" in out
    code, out, err = inside("-m", *LONG, "seed=0,1", folder=tmp_path)
    assert (code, err) == (0, "")
    assert "seed 0: goes on at window" in out


def worker_of(folder):
    """The pid of the process that trains, once a state is on disk; None before."""
    if not list(folder.glob("runs/trials/*/claim-*/state-*.pt")):
        return None
    newest = max(folder.glob("runs/trials/*/claim-*/claim.json"), key=lambda path: path.stat().st_mtime_ns)
    return int(json.loads(newest.read_text())["process"].split(":")[1])


def test_a_trial_that_was_paused_and_taken_over_has_the_results_of_the_taker_and_nothing_mixed(tmp_path):
    other = start(["ablate", *LONG, "lease=1e6", "name=other"], tmp_path)
    try:
        wait_until(lambda: worker_of(tmp_path) is not None)
        paused = worker_of(tmp_path)
        os.kill(paused, signal.SIGSTOP)
        code, out, err = inside(*LONG, "name=taker", folder=tmp_path)
        assert (code, err) == (0, "")
        assert "has given no sign of life for 4 s; its trial is taken over" in out
        (trial,) = journals(tmp_path)
        after = claims.read_bytes(trial), sorted(trial.rglob("*.pt"))
        os.kill(paused, signal.SIGCONT)
        out, err = other.communicate(timeout=120)
        assert (other.returncode, err) == (0, ""), "it finds the result of the other"
    finally:
        kill_tree(other)
    assert claims.read_bytes(trial) == after[0]
    assert [e["event"] for e in read_trial(trial) if e["event"] != "log"] == ["started", "resumed", "finished"]
    assert {*after[1]} <= {*trial.rglob("*.pt")}
    assert results_of_runs(tmp_path, "taker") == results_of_runs(tmp_path, "other")


def results_of_runs(folder, study):
    from ablate import results

    return results(study, runs=folder / "runs").drop(columns=["seconds", "train_seconds"]).to_csv()


HANGS = """
import ctypes, os, ablate
from dataclasses import dataclass

@dataclass
class Config:
    how: str = "well"

@ablate.task(Config, components={}, metric=ablate.Metric("error", unit="%"))
def train(config, run):
    for epoch in run.epochs(2):
        if config.how == "holds":
            ctypes.PyDLL(None).sleep(1000)  # with Python's lock in its hands
        if config.how == "exits":
            os._exit(0)
        run.log(valid_error=1.0)
    return {"test_error": 1.0}

if __name__ == "__main__":
    ablate.main(train)
"""


def test_a_worker_that_keeps_pythons_lock_or_leaves_without_a_word_fails_its_trial_alone(tmp_path):
    (tmp_path / "hangs.py").write_text(HANGS)
    asked = ["-m", "how=holds,exits,well", "lease=4", "workers=1", *QUIET]
    process = Warm(script, "hangs.py", *asked, folder=tmp_path, environment={})
    out, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (1, "")
    assert "how=holds · seed 0: failed, its process gave no sign of life for 4 s" in out
    assert "how=exits · seed 0: failed, the worker process ended by itself with code 0" in out
    assert "how=well · seed 0: valid" in out


def test_an_idle_worker_that_is_killed_does_not_end_the_study(tmp_path, monkeypatch):
    from ablate.engines.local import LocalEngine

    ended = LocalEngine._ended

    def kill_what_is_idle(engine, *arguments):
        ended(engine, *arguments)
        for idle in engine._idle:
            os.kill(idle._process.pid, signal.SIGKILL)
            Thread(target=idle._process.join).run()

    monkeypatch.setattr(LocalEngine, "_ended", kill_what_is_idle)
    code, out, err = inside("-m", *TINY, "seeds=3", *QUIET, folder=tmp_path)
    assert (code, err) == (0, "")
    assert out.count(": valid") == 3


def test_force_typed_again_after_a_kill_goes_on_and_after_an_end_trains_anew(tmp_path):
    grid = ["-m", *TINY, "depth=1,2", *QUIET, "name=s"]
    assert inside(*grid, folder=tmp_path)[0] == 0

    def starts():
        return sorted(sum(e["event"] == "started" for e in events) for events in journals(tmp_path).values())

    assert inside(*grid, "force=true", folder=tmp_path)[0] == 0
    assert starts() == [2, 2]
    study = tmp_path / "runs" / "studies" / "s.jsonl"
    *lines, ended = study.read_text().splitlines(keepends=True)
    assert '"ended"' in ended
    study.write_text("".join(lines))  # as a kill just before the end leaves it
    code, out, _ = inside(*grid, "force=true", folder=tmp_path)
    assert (code, out.count("finished before")) == (0, 2)
    assert starts() == [2, 2], "what the killed launch had trained is not trained once more"
    assert inside(*grid, "force=true", folder=tmp_path)[0] == 0
    assert starts() == [3, 3]


def test_output_to_a_closed_pipe_stops_no_study_and_what_is_finished_stands(tmp_path):
    command = [sys.executable, "-m", "ablate", "-m", *TINY, "depth=1,2", *QUIET]
    script = 'set -o pipefail; "$@" | head -n 1; echo "code ${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *command],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["study depth: 2 cells, 2 trials", "code 0"]
    assert done.stderr == ""
    for events in journals(tmp_path).values():
        assert [e["event"] for e in events if e["event"] != "log"] == ["started", "finished"]
