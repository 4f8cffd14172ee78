"""Disks that are full or read-only cost a trial or a study its life, and nothing that was measured."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, make_plan, study_of, train_in_process
from program import claim_folder, inside, journals, start_cold
from warm import Warm, alone

from ablate import cli
from ablate.report import __main__ as report_main
from ablate.track import __main__ as track_main
from ablate.track.folder import Folder

STUDY = [*TINY, "windows=80", "tracking=off", "report=false"]
_CAN_MOUNT = (
    subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "true"], capture_output=True).returncode == 0
)
needs_mounts = pytest.mark.skipif(
    not _CAN_MOUNT,
    reason="this system lets a user mount nothing (unshare --user --mount); no expiry: it is the kernel's",
)


def in_mounts(function, *arguments, folder):
    """Call a function in a process that may mount file systems, which vanish with it; what it printed, and errors."""
    process = Warm(alone, function.__module__, function.__name__, *arguments, folder=folder, environment={})
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out, err


def shell(command):
    subprocess.run(command, shell=True, check=True, executable="bash")


def ablate(*arguments, main=cli.main):
    code, out, err = inside(*(STUDY if main is cli.main else ()), *arguments, folder=Path.cwd(), main=main)
    print(out, f"code {code}", sep="")
    print(err, end="", file=sys.stderr)


def trains_on_a_full_disk():
    shell("mkdir runs && mount -t tmpfs -o size=2m tmpfs runs; head -c 2010000 /dev/zero > runs/ballast")
    ablate("hidden=64")
    os.remove("runs/ballast")
    ablate("hidden=64")


@needs_mounts
def test_a_full_disk_fails_the_trial_with_its_reason_and_once_there_is_room_it_goes_on(tmp_path):
    out, err = in_mounts(trains_on_a_full_disk, folder=tmp_path)
    assert err == ""
    assert "failed, OSError: [Errno 28] No space left on device" in out or "RuntimeError" in out
    assert out.index("code 1") < out.index("code 0")
    assert "lstm · seed 0: valid" in out
    assert "goes on at window" in out, "in the attempt that the full disk broke off"


def trains_on(mount):
    shell(f"mkdir runs && {mount}")
    ablate()


@needs_mounts
@pytest.mark.parametrize(
    ("mount", "says"),
    [
        ("mount -t tmpfs -o size=4k tmpfs runs", "ablate: [Errno 28] No space left on device"),
        ("mount --bind runs runs && mount -o remount,ro,bind runs", "ablate: runs=runs: cannot be written (Read-only"),
    ],
    ids=["full", "read-only"],
)
def test_a_disk_that_cannot_be_written_is_one_line_before_anything_trains(mount, says, tmp_path):
    out, err = in_mounts(trains_on, mount, folder=tmp_path)
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
    process = start_cold(["ablate", *STUDY], tmp_path, prefix=["bash", "-c", 'exec "$@" > /dev/full', "bash"])
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.startswith("ablate: [Errno 28] No space left on device")
    assert len(err.splitlines()) == 1


def reports_and_mirrors_on_full_disks(empty_store):
    shell("mkdir reports small && mount -t tmpfs -o size=64k tmpfs reports && mount -t tmpfs -o size=3m tmpfs small")
    shutil.copy(empty_store, "small/mlflow.db")
    shell("head -c 3000000 /dev/zero > small/ballast 2>/dev/null || true")
    ablate("report=true", "tracking.enabled=true", "tracking.uri=sqlite:///small/mlflow.db")
    print(*sorted(os.listdir("reports")))
    shell("mount -o remount,size=64m reports && rm small/ballast")
    ablate("sync", "--uri", "sqlite:///small/mlflow.db", main=track_main.main)
    ablate("--store", "sqlite:///small/mlflow.db", main=report_main.main)


@needs_mounts
def test_a_full_disk_of_the_mlflow_store_and_of_the_report_cost_these_alone_until_there_is_room(tmp_path, empty_store):
    out, err = in_mounts(reports_and_mirrors_on_full_disks, empty_store, folder=tmp_path)
    assert "note: MLflow is not reachable" in out
    assert "lstm · seed 0: valid" in out
    assert "code 2\n.lstm.lock\n" in out, "nothing half is left"
    assert err.startswith("ablate: reports=reports: the report cannot be written ([Errno 28] ")
    assert "No space left on device" in err
    assert err.endswith("; all that was trained stands, and python -m ablate.report lstm writes it later\n")
    assert len(err.splitlines()) == 1
    assert "lstm: done" in out
    assert out.endswith("report: reports/lstm/index.html\ncode 0\n")


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
