"""Studies on a SLURM of one node, for real: submitted, left, found again, preempted, and trained once."""

from __future__ import annotations

import os
import shutil
import signal
import sys

import pytest
from conftest import TINY, program_or_skip
from own_task import write
from program import ROOT, inside, journals, kill_tree, start, wait_until
from slurm_cluster import SlurmCluster

import ablate as package
from ablate.track.__main__ import main as track

pytestmark = pytest.mark.services

TINY = [knob for knob in TINY if knob != "workers=1"]
STUDY = [*TINY, "model=better_lstm", "hidden=16", "windows=600", "valid_every=150", "name=study", "tracking=off",
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
    assert f"note: 1 jobs are with SLURM and go on; scancel {job} ends them; the same command attaches" in out
    assert (folder / "runs" / "slurm").stat().st_mode & 0o777 == 0o700, "what is pickled there is executed"
    code, out, err = inside(*STUDY, *ON_SLURM, folder=folder)
    assert (code, err) == (0, "")
    assert f"job {job} of an earlier launch has it" in out
    assert "seed 0: started" in out
    ends_like_local(folder, local, out)
    assert ids_in(cluster) - before == {job}, "submitted once"
    code, out, _ = inside("watch", "study", folder=folder, main=track)
    assert (code, out.splitlines()[-2]) == (0, "study study: 1 finished")
