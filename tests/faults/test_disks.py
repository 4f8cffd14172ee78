"""Disks that are full or read-only cost a trial or a study its life, and nothing that was measured."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest
from conftest import TINY, study_of, train_in_process
from program import ROOT, claim_folder, inside, journals, start

from ablate.study.plan import make_plan
from ablate.track.folder import Folder

STUDY = [*TINY, "windows=80", "tracking=off", "report=false"]
_PRIVATE_MOUNTS = ["unshare", "--user", "--map-root-user", "--mount"]
_CAN_MOUNT = subprocess.run([*_PRIVATE_MOUNTS, "true"], capture_output=True, check=False).returncode == 0
needs_mounts = pytest.mark.skipif(
    not _CAN_MOUNT,
    reason="this system lets a user mount nothing (unshare --user --mount); no expiry: it is the kernel's",
)


def in_mounts(script, folder):
    """Run a shell script that may mount file systems, which vanish with it; `ablate` in it is the program."""
    program = shlex.join([sys.executable, "-m", "ablate", *STUDY])
    done = subprocess.run(
        [*_PRIVATE_MOUNTS, "bash", "-c", f'ablate() {{ {program} "$@"; }}\n{script}'],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    return done.stdout, done.stderr


@needs_mounts
def test_a_full_disk_fails_the_trial_with_its_reason_and_once_there_is_room_it_goes_on(tmp_path):
    script = """
    mkdir runs && mount -t tmpfs -o size=2m tmpfs runs
    head -c 2010000 /dev/zero > runs/ballast
    ablate hidden=64; echo "code $?"
    rm runs/ballast
    ablate hidden=64; echo "code $?"
    cat runs/trials/*/*/journal.jsonl | grep -c started
    """
    out, err = in_mounts(script, tmp_path)
    assert err == ""
    assert "failed, OSError: [Errno 28] No space left on device" in out or "RuntimeError" in out
    assert out.index("code 1") < out.index("code 0")
    assert "lstm · seed 0: valid" in out
    assert out.endswith("\n1\n"), "it went on in the attempt that the full disk broke off"


@needs_mounts
@pytest.mark.parametrize(
    ("mount", "says"),
    [
        ("mount -t tmpfs -o size=4k tmpfs runs", "ablate: [Errno 28] No space left on device"),
        ("mount --bind runs runs && mount -o remount,ro,bind runs", "ablate: [Errno 30] Read-only file system: '"),
    ],
    ids=["full", "read-only"],
)
def test_a_disk_that_cannot_be_written_is_one_line_before_anything_trains(mount, says, tmp_path):
    out, err = in_mounts(f"mkdir runs && {mount}; ablate; echo code $?", tmp_path)
    assert out.endswith("code 2\n")
    assert err.startswith(says)
    assert len(err.splitlines()) == 1


def test_a_log_that_cannot_be_written_costs_the_log_alone(tmp_path):
    assert inside(*STUDY, folder=tmp_path)[0] == 0
    (trial,) = journals(tmp_path)
    log = trial / "trial.log"
    log.unlink()
    log.symlink_to("/dev/full")
    code, out, err = inside(*STUDY, "force=true", folder=tmp_path)
    assert (code, err) == (0, "")
    assert "lstm · seed 0: valid" in out


def test_output_that_cannot_be_written_is_one_line_and_no_trace(tmp_path):
    process = start(["ablate", *STUDY], tmp_path, prefix=["bash", "-c", 'exec "$@" > /dev/full', "bash"])
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.startswith("ablate: [Errno 28] No space left on device")
    assert len(err.splitlines()) == 1


@needs_mounts
def test_a_full_disk_of_the_mlflow_store_and_of_the_report_cost_these_alone_until_there_is_room(tmp_path, empty_store):
    script = f"""
    mkdir reports small && mount -t tmpfs -o size=64k tmpfs reports && mount -t tmpfs -o size=3m tmpfs small
    cp {empty_store} small/mlflow.db
    head -c 3000000 /dev/zero > small/ballast 2>/dev/null
    ablate report=true tracking.enabled=true tracking.uri=sqlite:///small/mlflow.db; echo "code $?"
    ls -A reports
    mount -o remount,size=64m reports
    rm small/ballast
    {shlex.quote(sys.executable)} -m ablate.track sync --uri sqlite:///small/mlflow.db
    {shlex.quote(sys.executable)} -m ablate.report --store sqlite:///small/mlflow.db | tail -n 1
    """
    out, err = in_mounts(script, tmp_path)
    assert "note: MLflow is not reachable" in out
    assert "lstm · seed 0: valid" in out
    assert "code 2\n.lstm.lock\n" in out, "nothing half is left"
    assert err.startswith("ablate: reports=reports: the report cannot be written ([Errno 28] ")
    assert "No space left on device" in err
    assert err.endswith("; all that was trained stands, and python -m ablate.report lstm writes it later\n")
    assert len(err.splitlines()) == 1
    assert "lstm: done" in out
    assert out.endswith("report: reports/lstm/index.html\n")


def test_what_a_crash_of_the_machine_must_not_lose_is_synced_with_its_name(tmp_path, monkeypatch):
    synced, real = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.add(os.readlink(f"/proc/self/fd/{file}")), real(file))[1])
    assert inside(*STUDY, folder=tmp_path)[0] == 0
    # The trial's own folder is its worker's, another process.
    studies = tmp_path / "runs" / "studies"
    assert {str(studies), str(studies / "lstm.jsonl")} <= synced
    assert any(name.startswith(str(studies / "latest.tmp")) for name in synced)
    (planned,) = make_plan(study_of(*TINY, "windows=3"), Folder(tmp_path / "other"))
    train_in_process([planned])
    claim = claim_folder(planned.folder)
    assert {str(planned.folder.parent), str(planned.folder), str(claim), str(claim / "journal.jsonl")} <= synced
