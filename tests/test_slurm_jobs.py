"""What becomes of a job, by its state and by what it left: without a SLURM."""

from __future__ import annotations

import os
import pickle
import signal

import pytest
from conftest import TINY, study_of

from ablate.engines.assignment import Assignment
from ablate.engines.engine import Died, Lost
from ablate.engines.slurm import node, queue
from ablate.engines.slurm.engine import SlurmEngine
from ablate.engines.slurm.kept import KeptJobs
from ablate.engines.slurm.node import TrainPack
from ablate.engines.slurm.queue import Queue, SentJob
from ablate.track.claims import claimed


def assignment(folder, launch="a launch", results_of=None):
    return Assignment(
        task="t", values={}, seed=0, device="cpu", threads=None, fingerprint="f" * 64, folder=folder, record={},
        sources={}, data={}, parameters=None, command="c", launch=launch, results_of=results_of, lease=60.0,
    )  # fmt: skip


@pytest.fixture
def at(monkeypatch):
    """Sets the clock of the queue, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(queue.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, 1000.0 + seconds)


def looked(tmp_path, monkeypatch, at, *states, job="7"):
    """A queue that found these states, one after the other, a minute apart; None: SLURM does not list the job."""
    jobs, sent = Queue(tmp_path), SentJob(job, tmp_path)
    for minute, state in enumerate(states):
        at(60.0 * minute)
        monkeypatch.setattr(queue, "_states", lambda state=state: {} if state is None else {job: state})
        jobs.look([sent])
    at(60.0 * len(states))
    return jobs, sent


@pytest.mark.parametrize(
    "state", ["PENDING", "RUNNING", "COMPLETING", "NODE_FAIL", "PREEMPTED", "REQUEUED", "SUSPENDED"]
)
def test_a_job_that_slurm_may_still_run_has_not_ended(tmp_path, monkeypatch, at, state):
    jobs, sent = looked(tmp_path, monkeypatch, at, "FAILED", state)
    assert not jobs.has_ended(sent)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("COMPLETED", "ended without a result"),
        ("OUT_OF_MEMORY", "raise engine.memory"),
        ("TIMEOUT", "raise engine.minutes"),
        ("CANCELLED", "was cancelled"),
    ],
)
def test_a_job_that_is_over_and_left_no_result_died_of_what_slurm_says(tmp_path, monkeypatch, at, state, reason):
    jobs, sent = looked(tmp_path, monkeypatch, at, "RUNNING", state)
    assert jobs.has_ended(sent)
    with pytest.raises(Died, match=reason):
        jobs.result(sent)


def test_a_job_that_slurm_lists_no_more_was_lost(tmp_path, monkeypatch, at):
    monkeypatch.setattr(queue, "_accounted", lambda job: "")
    jobs, sent = looked(tmp_path, monkeypatch, at, "NODE_FAIL", None)
    assert jobs.has_ended(sent)
    with pytest.raises(Lost, match="job 7 is gone"):
        jobs.result(sent)


def test_a_result_counts_whatever_slurm_says_and_is_there_once(tmp_path, monkeypatch, at):
    jobs, sent = looked(tmp_path, monkeypatch, at, "RUNNING")
    sent.result.write_bytes(pickle.dumps(("success", {"results": ["trained"]})))
    jobs.look([sent])
    assert jobs.has_ended(sent)
    assert jobs.result(sent) == {"results": ["trained"]}
    assert not sent.result.exists()


def test_while_slurm_does_not_answer_nothing_is_known_to_have_ended(tmp_path, monkeypatch, at):
    jobs, sent = looked(tmp_path, monkeypatch, at, "RUNNING")

    def fails():
        raise OSError("slurmctld is away")

    monkeypatch.setattr(queue, "_states", fails)
    at(600)
    jobs.look([sent])
    assert not jobs.has_ended(sent)


def test_a_job_is_found_again_by_exactly_its_trials_and_by_launches_whose_results_stand(tmp_path):
    kept = KeptJobs(tmp_path / "trials", tmp_path / "sent")
    pack = [assignment(tmp_path / "t")]
    kept.keep(pack, SentJob("7", tmp_path / "sent" / "x"))
    found = kept.find([assignment(tmp_path / "t", launch="the next")])
    assert (found.job, found.launch) == (SentJob("7", tmp_path / "sent" / "x"), "a launch")
    assert kept.find([assignment(tmp_path / "t", results_of=["another"])]) is None
    assert kept.find([*pack, *pack]) is None
    kept.forget(pack)
    assert kept.find(pack) is None


def test_a_job_whose_time_is_up_goes_on_only_where_something_was_saved(tmp_path, monkeypatch):
    pack = TrainPack([assignment(tmp_path / "t")], minutes=60)
    began = node.time.monotonic()
    monkeypatch.setattr(node.time, "monotonic", lambda: began + 59 * 60)
    with pytest.raises(Died, match=r"nothing could be saved in 59 minutes of training; raise engine\.minutes"):
        pack.checkpoint()
    with claimed(tmp_path / "t", "a launch") as claim:
        (claim.folder / "state-20-abc.pt").touch()
    assert isinstance(pack.checkpoint().function, TrainPack)


def test_a_job_that_is_started_again_takes_over_what_its_launch_had_claimed(tmp_path, monkeypatch):
    each = assignment(tmp_path / "t")
    with claimed(each.folder, "a launch") as claim:
        assert node._taking_over(each).silent is None, "it is its first start"
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        assert node._taking_over(each).silent == claim.number
        assert node._taking_over(assignment(tmp_path / "t", launch="another")).silent is None


def test_ctrl_c_while_jobs_are_submitted_is_heard_once_they_are_on_record(tmp_path, monkeypatch):
    each = assignment(tmp_path / "t")

    def submits(queue, functions, parameters):
        os.kill(os.getpid(), signal.SIGINT)
        return [SentJob("7", tmp_path / "runs" / "slurm" / "sent" / "x")]

    monkeypatch.setattr(Queue, "send", submits)
    study = study_of(*TINY, "engine=slurm", f"runs={tmp_path / 'runs'}")
    engine = SlurmEngine(study.launch, study.task)
    submitted = engine.submit([each])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.wait([submitted], 1.0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert engine.parting([submitted]) == "1 job is with SLURM; scancel 7 ends it"
    assert SlurmEngine(study.launch, study.task).submit([each]).where == "job 7", "the next launch finds it"
