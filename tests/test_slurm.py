"""Studies on a SLURM of one node, for real: submitted, left, found again, preempted, and trained once."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
from conftest import TINY, program_or_skip
from own_task import write
from program import ROOT, inside, journals, kill_tree, start, wait_until
from slurm_cluster import SlurmCluster

import ablate as package
from ablate.track.__main__ import main as track

pytestmark = pytest.mark.services

TINY = [knob for knob in TINY if knob != "workers=1"]
STUDY = [*TINY, "model=better_lstm", "hidden=16", "windows=1500", "valid_every=250", "name=study", "tracking=off",
         "report=false"]  # fmt: skip
ON_SLURM = ["engine=slurm"]
CLOCK = ["seconds", "train_seconds", "log"]


@pytest.fixture(scope="module")
def cluster():
    for name in ("slurmctld", "slurmd", "munged"):
        program_or_skip(name, package="slurm-wlm munge")
    with SlurmCluster() as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in {**cluster.environment, "PYTHONPATH": str(ROOT)}.items():
            patch.setenv(name, value)
        yield cluster


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """What the engine of this machine makes of STUDY."""
    folder = tmp_path_factory.mktemp("local")
    code, _, err = inside(*STUDY, folder=folder)
    assert (code, err) == (0, "")
    return folder


@pytest.fixture(scope="module")
def answers(cluster, tmp_path_factory):
    """What a node has answered about STUDY: a folder that others copy, for a probe takes seconds."""
    folder = tmp_path_factory.mktemp("answers")
    code, out, err = inside(*STUDY, *ON_SLURM, "plan=true", folder=folder)
    assert (code, err) == (0, "")
    assert "a node" in out
    return folder / "runs" / "slurm" / "nodes"


@pytest.fixture
def folder(tmp_path, answers):
    """Where STUDY has been asked about already."""
    shutil.copytree(answers, tmp_path / "runs" / "slurm" / "nodes")
    return tmp_path


def results(folder):
    """What was recorded of the study, without what a clock decides."""
    tables = [read("study", runs=folder / "runs") for read in (package.results, package.curves)]
    return [table.drop(columns=[c for c in CLOCK if c in table]).to_csv() for table in tables]


def best(folder):
    """Trial → name of its best weights, which holds the SHA-256 of their bytes."""
    return {path.name: [each.name for each in path.rglob("best-*.pt")] for path in folder.glob("runs/trials/*")}


def events_of(folder, *names):
    return [event for events in journals(folder).values() for event in events if event["event"] in names]


def reached(folder, step):
    return lambda: any(event.get("step", 0) >= step for event in events_of(folder, "log"))


def ids_in(cluster):
    return {job.partition("_")[0] for job in cluster.jobs()}


def kept(folder):
    """Trial → the job that has it."""
    return {path.stem: json.loads(path.read_text())["job"] for path in folder.glob("runs/slurm/trials/*.json")}


def ends_like_local(folder, local, out):
    assert "study study: 1 done" in out
    assert results(folder) == results(local)
    assert best(folder) == best(local)
    assert len(events_of(folder, "started")) == 1, "trained once"


def test_a_study_is_submitted_left_and_found_again_and_ends_as_on_this_machine(cluster, folder, local):
    before = ids_in(cluster)
    code, out, err = inside(*STUDY, *ON_SLURM, "engine.leave=true", folder=folder)
    assert (code, err) == (0, "")
    (job,) = ids_in(cluster) - before
    assert (
        f"note: 1 job is with SLURM; scancel {job} ends it; the same command attaches; python -m ablate.track watch"
        in out
    )
    assert (folder / "runs" / "slurm").stat().st_mode & 0o777 == 0o700, "what is pickled there is executed"
    code, out, err = inside(*STUDY, *ON_SLURM, folder=folder)
    assert (code, err) == (0, "")
    assert f"job {job} of an earlier launch has it" in out
    assert "seed 0: started" in out
    ends_like_local(folder, local, out)
    assert ids_in(cluster) - before == {job}, "submitted once"
    code, out, _ = inside("watch", "study", folder=folder, main=track)
    assert (code, out.splitlines()[-2]) == (0, "study study: 1 finished")


def test_a_job_that_slurm_wants_the_node_of_is_queued_again_and_goes_on_to_the_same_bits(cluster, folder, local):
    def preempt(_):
        wait_until(reached(folder, 260))
        (job,) = kept(folder).values()
        cluster.run("scancel", "--signal=USR2", job)
        wait_until(lambda: cluster.jobs()[job] != "RUNNING")

    before = ids_in(cluster)
    code, out, err = inside(*STUDY, *ON_SLURM, folder=folder, meanwhile=preempt)
    assert (code, err) == (0, "")
    (resumed,) = events_of(folder, "resumed")
    assert 250 <= resumed["step"] < 1500
    assert len(events_of(folder, "interrupted")) == 1, "it was saved at its next step"
    assert f"goes on at window {resumed['step']} of 1500" in out
    ends_like_local(folder, local, out)
    assert len(ids_in(cluster) - before) == 1


def test_a_job_of_a_node_that_died_is_queued_again_by_slurm_and_not_submitted_twice(cluster, folder, local):
    def switch_off_and_on(_):
        wait_until(reached(folder, 260))
        cluster.kill_node()
        cluster.set_node("DOWN")  # SLURM would find out by itself, after SlurmdTimeout
        (job,) = kept(folder).values()
        wait_until(lambda: cluster.jobs()[job] != "RUNNING")
        cluster.start_node()
        cluster.set_node("RESUME")

    before = ids_in(cluster)
    code, out, err = inside(*STUDY, *ON_SLURM, folder=folder, meanwhile=switch_off_and_on)
    assert (code, err) == (0, "")
    assert [event["step"] >= 250 for event in events_of(folder, "resumed")] == [True]
    ends_like_local(folder, local, out)
    assert len(ids_in(cluster) - before) == 1


def test_ctrl_c_and_a_kill_leave_the_job_alone_and_the_command_typed_again_finds_it(cluster, folder, local):
    before = ids_in(cluster)
    cluster.set_node("DRAIN")
    try:
        stopped = start(["ablate", *STUDY, *ON_SLURM], folder)
        wait_until(lambda: kept(folder))
        (job,) = kept(folder).values()
        os.killpg(stopped.pid, signal.SIGINT)
        out, err = stopped.communicate(timeout=60)
        assert (stopped.returncode, err.startswith("ablate: stopped; the same command goes on")) == (130, True)
        assert f"note: 1 job is with SLURM; scancel {job} ends it\n" in out
        assert cluster.jobs()[job] == "PENDING"
    finally:
        cluster.set_node("RESUME")
    killed = start(["ablate", *STUDY, *ON_SLURM], folder)
    wait_until(lambda: events_of(folder, "started"))
    kill_tree(killed)
    code, out, err = inside(*STUDY, *ON_SLURM, folder=folder)
    assert (code, err) == (0, "")
    assert results(folder) == results(local)
    assert [event["event"] for event in events_of(folder, "started", "resumed")] == ["started"]
    assert ids_in(cluster) - before == {job}


EXITS = """
    import os
    import time
    from dataclasses import dataclass

    import ablate

    @dataclass
    class Config:
        width: int = 1

    @ablate.task(Config, metric=ablate.Metric("error"))
    def train(config, run):
        if config.width == 2:
            os._exit(0)
        while config.width == 3:
            time.sleep(0.1)
        return {"test_error": float(config.width)}
"""


def test_a_function_that_ends_its_process_and_a_job_that_is_cancelled_fail_with_a_reason_and_others_stand(
    cluster, tmp_path
):
    def cancel(_):
        wait_until(lambda: [e for e in events_of(tmp_path, "started") if e["knobs"]["width"] == 3])
        (fingerprint,) = [e["fingerprint"] for e in events_of(tmp_path, "started") if e["knobs"]["width"] == 3]
        cluster.run("scancel", kept(tmp_path)[fingerprint[:16]])

    file = write(tmp_path / "exits.py", EXITS)
    arguments = ["-m", f"task={file}", "width=1,2,3", "seeds=1", "tracking=off", "report=false", *ON_SLURM]
    code, out, err = inside(*arguments, folder=tmp_path, meanwhile=cancel)
    assert (code, err) == (1, "")
    assert "width=2 · seed 0: failed, the worker process ended by itself with code 0" in out
    assert "_2 was cancelled" in out.partition("width=3 · seed 0: failed, job ")[2]
    assert "study exits-width: 1 done, 2 failed" in out
    assert kept(tmp_path) == {}, "typed again, the command trains them again"


def test_what_a_login_node_and_a_node_can_tell_is_refused_in_one_line_before_anything_trains(
    cluster, tmp_path, monkeypatch
):
    def refusal(*arguments, meanwhile=None):
        code, _, err = inside(*TINY, "tracking=off", *ON_SLURM, *arguments, folder=tmp_path, meanwhile=meanwhile)
        assert code == 2
        return err

    unknown = refusal("engine.partition=mian")
    assert unknown == "ablate: engine.partition=mian: no such partition; did you mean 'main'?; there are main\n"
    assert refusal("engine.options={mem:3}") == "ablate: engine.options.mem: is set by engine.memory; use that\n"
    no_gpu = refusal("device=cuda", "precision=fp32")
    assert no_gpu.startswith("ablate: engine=slurm: SLURM refuses the job (sbatch: error: Invalid generic resource")
    assert refusal("device=cuda", "engine.gpus=0").startswith("ablate: device=cuda: torch sees no CUDA device")
    monkeypatch.setenv("PATH", "/nowhere")
    assert refusal().startswith("ablate: engine=slurm: there is no sbatch on this machine; use a login node")
    assert not journals(tmp_path)


def test_a_node_that_has_other_code_than_the_login_node_is_refused(cluster, tmp_path):
    file = write(tmp_path / "exits.py", EXITS)

    def edit(_):
        wait_until(lambda: "PENDING" in cluster.jobs().values())
        file.write_text(file.read_text().replace("0.1", "0.2"))
        cluster.set_node("RESUME")

    cluster.set_node("DRAIN")
    code, _, err = inside(f"task={file}", "tracking=off", *ON_SLURM, folder=tmp_path, meanwhile=edit)
    assert code == 2
    assert "has other code than this machine (exits.py); install it anew" in err


def test_a_runs_folder_and_data_that_the_node_does_not_see_are_refused(cluster, tmp_path):
    if not cluster.hides:
        pytest.skip("this machine lets nobody mount anything")
    runs, text = cluster.hidden / "runs", write(cluster.hidden / "text.txt", "the quick brown fox\n" * 3000)
    code, _, err = inside(*TINY, "tracking=off", f"runs={runs}", *ON_SLURM, folder=tmp_path)
    assert code == 2
    assert err.startswith(f"ablate: runs={runs}: the node that was to train does not see this folder")
    code, _, err = inside("data=text", f"data.path={text}", "tracking=off", *ON_SLURM, folder=tmp_path)
    assert code == 2
    assert err.startswith(f"ablate: data.path={text}: ")
    assert err.endswith(", a node of SLURM's)\n")
