"""Studies that run on one machine at a time: they divide its cores and its memory, and none changes another's bits."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import TINY, study_of
from program import ROOT, inside, journals

from ablate.study import share as share_module
from ablate.study.packs import make_packs
from ablate.study.plan import make_plan
from ablate.study.share import Share
from ablate.study.workers import best_workers
from ablate.track.journal import Folder

CORES = 4
QUIET = ["tracking=off", "report=false"]
GIB = 2**30

# Another study's process: it takes so many cores and keeps them until it dies.
_OTHER = """
import os, sys
from pathlib import Path
from ablate.study import share
share.FOLDER = Path(sys.argv[1])
os.umask(0o077)
locks = [share._lock(core) for core in range(int(sys.argv[2]))]
if len(sys.argv) > 3:
    os.setuid(int(sys.argv[3]))
    locks += [share._lock(core) for core in range(int(sys.argv[2]), 2 * int(sys.argv[2]))]
print(sum(lock is not None for lock in locks), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine of four cores, and no studies of it but the test's."""
    monkeypatch.setattr(share_module, "FOLDER", tmp_path / "cores")
    monkeypatch.setattr(share_module, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(share_module, "free_memory", lambda: 100.0 * GIB)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(CORES)), raising=False)
    for module in ("workers", "share"):
        monkeypatch.setattr(f"ablate.study.{module}.cores", lambda: CORES)
    return tmp_path / "cores"


@contextmanager
def another_study(folder: Path, cores: int, *user: str):
    """A process that holds cores; killed with kill -9 at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER, str(folder), str(cores), *user],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline().strip() == str(cores * (1 + len(user)))
        try:
            yield
        finally:
            process.kill()


def plan_of(folder, *overrides):
    study = study_of(*TINY, "device=cpu", "threads=null", "workers=auto", *overrides)
    packs = make_packs(make_plan(study, Folder(folder)), study)
    return packs, study


def share_of(folder, *overrides):
    packs, study = plan_of(folder, *overrides)
    asked = study.launch.workers
    return Share(packs, study, asked if isinstance(asked, int) else best_workers(packs, study, CORES, 100.0 * GIB))


def test_a_study_has_the_cores_that_others_leave_and_theirs_when_they_die(tmp_path, machine):
    with share_of(tmp_path, "seeds=9") as share:
        with another_study(machine, 3):
            assert share.workers(9) == 1
        assert share.workers(9) == CORES


def test_a_study_on_a_machine_that_is_taken_trains_one_trial_at_a_time(tmp_path, machine):
    with another_study(machine, CORES), share_of(tmp_path, "seeds=9") as share:
        assert share.workers(9) == 1


def test_a_study_gives_back_cores_that_its_last_trials_do_not_need(tmp_path):
    with share_of(tmp_path / "a", "seeds=9") as first, share_of(tmp_path / "b", "seeds=9") as second:
        assert (first.workers(9), second.workers(9)) == (CORES, 1)
        assert (first.workers(1), second.workers(9)) == (1, CORES - 1)


def test_a_number_of_workers_is_obeyed_and_other_studies_see_it(tmp_path, machine):
    with share_of(tmp_path / "a", "seeds=9", "workers=3") as asked, share_of(tmp_path / "b", "seeds=9") as other:
        assert (asked.workers(9), other.workers(9)) == (3, 1)
    with another_study(machine, CORES), share_of(tmp_path, "seeds=9", "workers=3") as asked:
        assert asked.workers(9) == 3


def test_threads_count_as_cores(tmp_path, machine):
    with share_of(tmp_path, "seeds=9", "threads=2") as share:
        assert share.workers(9) == 2
        with another_study(machine, 0), share_of(tmp_path / "b", "seeds=9") as other:
            assert other.workers(9) == 1


def test_a_study_with_half_of_the_cores_counts_on_half_of_the_memory(tmp_path, machine, monkeypatch):
    packs, study = plan_of(tmp_path, "seeds=9")
    memory = 3.1 * GIB  # for four workers with a process each, and no more
    monkeypatch.setattr(share_module, "free_memory", lambda: memory)
    most = best_workers(packs, study, CORES, memory)
    assert most == CORES
    with another_study(machine, 2), Share(packs, study, most) as share:
        assert share.workers(9) == 2
    monkeypatch.setattr(share_module, "free_memory", lambda: memory / 2)
    with another_study(machine, 2), Share(packs, study, most) as share:
        assert share.workers(9) == 1


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can be another user")
def test_users_share_a_machine_too(tmp_path, machine):
    machine.mkdir()
    machine.chmod(0o777)
    for folder in [machine, *machine.parents][1:4]:
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    with another_study(machine, 2, "4711"), share_of(tmp_path, "seeds=9") as share:
        assert share.workers(9) == 1


def test_where_nothing_can_be_locked_a_study_has_all_cores(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(share_module, "FOLDER", tmp_path / "file")
    with share_of(tmp_path, "seeds=9") as share:
        assert share.workers(9) == CORES


def trained(folder):
    """From when to when each trial was trained, the first first."""
    times = [[event["time"] for event in events] for events in journals(folder).values()]
    return sorted((each[0], each[-1]) for each in times)


def test_a_study_beside_another_that_has_all_cores_never_trains_two_trials_at_a_time(tmp_path, machine):
    with another_study(machine, CORES):
        code, _, err = inside("-m", *TINY, *QUIET, "seeds=3", "threads=null", "workers=auto", folder=tmp_path)
    assert (code, err) == (0, "")
    first, second, third = trained(tmp_path)
    assert first[1] <= second[0]
    assert second[1] <= third[0]


def test_a_trial_has_the_same_threads_and_bits_alone_and_among_others_and_on_a_busy_machine(tmp_path, machine):
    for name, seeds, busy in (("alone", 1, 0), ("among", 3, 0), ("busy", 1, CORES)):
        (tmp_path / name).mkdir()
        with another_study(machine, busy):
            arguments = ["-m", *TINY, *QUIET, f"seeds={seeds}", "threads=null", "workers=auto"]
            assert inside(*arguments, folder=tmp_path / name)[0] == 0
    ended = []
    for name in ("alone", "among", "busy"):
        (events,) = [each for each in journals(tmp_path / name).values() if each[0]["seed"] == 0]
        ended.append((events[0]["facts"]["threads"], events[-1]["values"]))
    assert ended[0] == ended[1] == ended[2]
    assert ended[0][0] == "1"
