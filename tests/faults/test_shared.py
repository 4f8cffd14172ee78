"""Studies that run on one machine at a time: they divide its cores and its memory, and none changes another's bits."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import CPU, TINY, make_plan, study_of
from program import ROOT, inside, journals

from ablate.engines import share as share_module
from ablate.engines.cores import best_workers
from ablate.engines.share import Share
from ablate.study.packs import demand_of, make_packs
from ablate.track.folder import Folder

CORES = 4
QUIET = ["tracking=off", "report=false"]
GIB = 2**30

# A study of another user's, who lets nobody read what they write: it takes two cores, and keeps them until it dies.
_OF_ANOTHER_USER = """
import os, sys
from pathlib import Path
from ablate.engines import share
share.FOLDER = Path(sys.argv[1])
os.setuid(int(sys.argv[2]))
os.umask(0o077)
locks = [share._lock(core) for core in (0, 1)]
print(*(lock is not None and lock.is_locked for lock in locks), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _machine(tmp_path, monkeypatch):
    """A machine of four cores, and no studies of it but the test's."""
    monkeypatch.setattr(share_module, "FOLDER", tmp_path / "cores")
    monkeypatch.setattr(share_module, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(share_module, "free_memory", lambda: 100.0 * GIB)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(CORES)), raising=False)
    for module in ("cores", "share"):
        monkeypatch.setattr(f"ablate.engines.{module}.cores", lambda: CORES)


@contextmanager
def another_study(cores: int):
    """Cores that are held as by another process; a lock does not know who holds it."""
    with ExitStack() as stack:
        for core in range(cores):
            lock = share_module._lock(core)
            assert lock is not None
            stack.callback(lock.release)
        yield


def demand_and_launch(folder, *overrides):
    study = study_of(*TINY, "device=cpu", "threads=null", "workers=auto", *overrides)
    packs = make_packs(make_plan(study, Folder(folder)), study, CPU)
    return demand_of(packs, study), study.launch


def share_of(folder, *overrides):
    demand, launch = demand_and_launch(folder, *overrides)
    if isinstance(launch.workers, int):
        return Share(demand, launch.workers, launch.threads, is_asked=True)
    return Share(demand, best_workers(demand, launch.threads, CORES, 100.0 * GIB), launch.threads, is_asked=False)


def test_a_study_has_the_cores_that_others_leave_and_theirs_when_they_are_killed_whosever_they_are(
    tmp_path, monkeypatch
):
    user = 4711 if os.getuid() == 0 else os.getuid()
    with tempfile.TemporaryDirectory() as folder, share_of(tmp_path, "seeds=9") as share:
        Path(folder).chmod(0o755)  # pytest's own are closed to others
        monkeypatch.setattr(share_module, "FOLDER", Path(folder, "cores"))
        share.workers(1)  # the folder is made by the first who comes
        command = [sys.executable, "-c", _OF_ANOTHER_USER, str(share_module.FOLDER), str(user)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True) as process:
            assert process.stdout.readline().split() == ["False", "True"]
            assert share.workers(9) == CORES - 1
            process.kill()
        assert share.workers(9) == CORES


def test_a_study_on_a_machine_that_is_taken_trains_one_trial_at_a_time(tmp_path):
    with another_study(CORES), share_of(tmp_path, "seeds=9") as share:
        assert share.workers(9) == 1


def test_a_study_gives_back_cores_that_its_last_trials_do_not_need(tmp_path):
    with share_of(tmp_path / "a", "seeds=9") as first, share_of(tmp_path / "b", "seeds=9") as second:
        assert (first.workers(9), second.workers(9)) == (CORES, 1)
        assert (first.workers(1), second.workers(9)) == (1, CORES - 1)


def test_a_number_of_workers_is_obeyed_and_other_studies_see_it(tmp_path):
    with share_of(tmp_path / "a", "seeds=9", "workers=3") as asked, share_of(tmp_path / "b", "seeds=9") as other:
        assert (asked.workers(9), other.workers(9)) == (3, 1)
    with another_study(CORES), share_of(tmp_path, "seeds=9", "workers=3") as asked:
        assert asked.workers(9) == 3


def test_threads_count_as_cores(tmp_path):
    with share_of(tmp_path / "a", "seeds=9", "threads=2") as share, share_of(tmp_path / "b", "seeds=9") as other:
        assert (share.workers(1), other.workers(9)) == (1, CORES - 2)
        assert share.workers(9) == 1
        other.workers(1)
        assert share.workers(9) == 1
        other.workers(0)
        assert share.workers(9) == CORES // 2


def test_a_study_with_half_of_the_cores_counts_on_half_of_the_memory(tmp_path, monkeypatch):
    demand, launch = demand_and_launch(tmp_path, "seeds=9")
    memory = 3.1 * GIB  # for four workers with a process each, and no more
    monkeypatch.setattr(share_module, "free_memory", lambda: memory)
    most = best_workers(demand, launch.threads, CORES, memory)
    assert most == CORES
    with another_study(2), Share(demand, most, launch.threads, is_asked=False) as share:
        assert share.workers(9) == 2
    monkeypatch.setattr(share_module, "free_memory", lambda: memory / 2)
    with another_study(2), Share(demand, most, launch.threads, is_asked=False) as share:
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


def test_a_study_beside_another_that_has_all_cores_never_trains_two_trials_at_a_time(tmp_path):
    with another_study(CORES):
        code, _, err = inside("-m", *TINY, *QUIET, "seeds=3", "threads=null", "workers=auto", folder=tmp_path)
    assert (code, err) == (0, "")
    first, second, third = trained(tmp_path)
    assert first[1] <= second[0]
    assert second[1] <= third[0]


def test_a_trial_has_the_same_threads_and_bits_alone_on_a_busy_machine_and_among_others_on_an_idle_one(tmp_path):
    ended = []
    for seeds, busy in ((1, CORES), (3, 0)):
        folder = tmp_path / str(seeds)
        folder.mkdir()
        arguments = ["-m", *TINY, *QUIET, f"seeds={seeds}", "threads=null", "workers=auto"]
        with another_study(busy):
            assert inside(*arguments, folder=folder)[0] == 0
        (events,) = [each for each in journals(folder).values() if each[0]["seed"] == 0]
        assert events[0]["facts"]["threads"] == "1"
        values = {name: value for name, value in events[-1]["values"].items() if "seconds" not in name}
        ended.append(values)
    assert ended[0] == ended[1]
