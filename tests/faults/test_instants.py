"""From the instant a trial is finished to the end of its study, nothing that happens costs its result.

The program runs in children of this process, with its worker in the same process, and at the n-th of its steps (a file
opened, renamed, linked, removed, a folder made, a line printed) something happens; n counts up until nothing is left.
"""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import shutil
import signal
import sys
from contextlib import redirect_stdout, suppress
from functools import partial
from itertools import count

import pytest
import torch._dynamo  # noqa: F401 (torch does it with the first optimizer: here once, and not in every child)
from conftest import TINY, values_of
from program import inside, journals

from ablate import cli, session
from ablate.engines import local
from ablate.engines.worker import train
from ablate.study import pool
from ablate.study.cells import Job
from ablate.track import claims
from ablate.track.journal import last_attempt, read_events

STUDY = [*TINY, "windows=4", "valid_every=4", "tracking=off", "report=false", "name=study"]
STEPS = ("open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir")


class Steps:
    """Counts the steps of this process once it is armed, and does something at the n-th."""

    def __init__(self, n, act):
        self.n, self.act, self.armed, self.done = n, act, False, 0
        sys.addaudithook(self.audit)

    def audit(self, event, arguments):
        if self.armed and event in STEPS and not str(arguments[0]).startswith(("/proc", "/dev", "/sys")):
            self.step()

    def step(self):
        if self.armed:
            self.done += 1
            if self.done == self.n:
                self.act()


def from_here(folder, disturb):
    """Run the study in a child up to where training starts, and from there once for every n, in a folder of its own.

    Args:
        disturb: called with n and what to call when the n-th step comes; makes it come.

    Returns:
        The folders of those that had an n-th step.
    """
    if (child := os.fork()) == 0:
        run = pool.Pool.run

        def run_for_every_n(study, packs):
            for n in count(1):
                place = folder / f"{n:03}"
                shutil.copytree("runs", place / "runs")
                read, write = os.pipe()
                if (grandchild := os.fork()) == 0:
                    os.chdir(place)
                    disturb(n, partial(os.write, write, b"x"))
                    run(study, packs)
                    return
                os.close(write)
                os.waitpid(grandchild, 0)
                with os.fdopen(read, "rb") as pipe:
                    if pipe.read() != b"x":
                        shutil.rmtree(place)
                        os._exit(0)

        pool.Pool.run = run_for_every_n
        base = folder / "base"
        base.mkdir()
        os.chdir(base)
        sys.argv = ["ablate", *STUDY]
        session.warm_up = lambda: None
        with suppress(BaseException):
            cli.main()
        os._exit(0)
    os.waitpid(child, 0)
    return sorted(path for path in folder.iterdir() if path.name != "base")


def disturb_by(kind):
    def disturb(n, seen):
        reader, out = os.pipe()
        act = {
            "SIGINT": lambda: os.kill(os.getpid(), signal.SIGINT),
            "EPIPE": lambda: os.close(reader),
        }[kind]
        steps = Steps(n, lambda: (seen(), act()))
        # A worker does not hear Ctrl-C: only what the study itself does may be disturbed by it.
        _in_one_process(steps, arms_in_worker=kind != "SIGINT")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdout = _Lines(os.fdopen(out, "w"), steps)

    return disturb


def fail_at(n, seen):
    """The n-th sync, rename or link fails: the disk is full, or broken."""
    number, done = errno.EIO if n % 2 else errno.ENOSPC, []

    def fails(real):
        def step(*arguments, **keywords):
            done.append(1)
            if len(done) == n:
                seen()
                raise OSError(number, os.strerror(number))
            return real(*arguments, **keywords)

        return step

    for name in ("fsync", "rename", "replace", "link"):
        setattr(os, name, fails(getattr(os, name)))
    _in_one_process(Steps(0, lambda: None), arms_in_worker=False)
    sys.stdout = sys.stderr = io.StringIO()


def snapshots(folder):
    """Copies of the folder of a study at every step; the process that was at work is dead."""
    run, copies = folder / "run", folder / "copies"
    run.mkdir()
    copies.mkdir()
    if (child := os.fork()) == 0:
        os.chdir(run)
        sys.argv = ["ablate", *STUDY]
        steps = Steps(None, lambda: None)

        def copy():
            if not steps.armed:
                return
            steps.armed = False  # its own steps are none
            shutil.copytree(run, copies / f"{len(os.listdir(copies)):03}")
            steps.armed = True

        steps.step = copy
        _in_one_process(steps, arms_in_worker=True)
        with redirect_stdout(_Lines(io.StringIO(), steps)), suppress(BaseException):
            cli.main()
        os._exit(0)
    os.waitpid(child, 0)
    return sorted(copies.iterdir())


def _in_one_process(steps, arms_in_worker):
    append = claims.Claim.append

    def arms(claim, event, **values):
        length = append(claim, event, **values)
        steps.armed = event == "finished" and arms_in_worker
        return length

    claims.Claim.append = arms
    session.warm_up = lambda: None
    local.WorkerProcess = lambda environment: _Worker(steps)


class _Worker:
    """A worker within the process of the study."""

    is_alive = True

    def __init__(self, steps):
        self.environment = {}
        self._steps = steps
        self.connection, self._write = multiprocessing.Pipe(duplex=False)

    def give(self, pack):
        self._result = train(pack)
        self._steps.armed = True
        self._write.send("x")

    def result(self):
        self.connection.recv()
        return self._result

    def end(self):
        pass

    start = leave = kill = end


class _Lines:
    """Output of which every line is a step."""

    def __init__(self, stream, steps):
        self._stream, self._steps = stream, steps

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        self._steps.step()
        return self._stream.write(text)


def again(folder):
    """The same command typed again, without Hydra's part of it."""
    jobs = [Job((), values_of(*STUDY))]
    return inside(folder=folder, main=lambda: sys.exit(session.run_jobs(jobs, cli.program, STUDY).code))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert inside(*STUDY, folder=folder)[0] == 0
    return outcome(folder)


def outcome(folder):
    """What the trial came to and the weights that it left, after the same command was typed again."""
    code, out, err = again(folder)
    assert (code, err) == (0, "")
    assert "finished before, not trained again" in out
    ((trial, events),) = journals(folder).items()
    assert [e["event"] for e in events if e["event"] != "log"] == ["started", "finished"]
    kept = {path.name for path in trial.rglob("*.pt") if not path.name.startswith("state-")}
    return events[-1]["values"], kept


def test_a_kill_at_any_instant_once_a_trial_is_finished_leaves_its_result(tmp_path, undisturbed):
    # What a kill leaves is what lies on the disk at that instant: one run, and a copy of the folder at every step.
    folders = snapshots(tmp_path)
    for folder in one_of_each(folders):
        assert outcome(folder) == undisturbed, folder.name
    assert len(folders) > 10, "the steps were seen"
    assert len(one_of_each(folders)) > 2, "and what they changed"


@pytest.mark.parametrize("kind", ["SIGINT", "EPIPE"])
def test_whatever_happens_once_a_trial_is_finished_its_result_stands(kind, tmp_path, undisturbed):
    folders = from_here(tmp_path, disturb_by(kind))
    for folder in one_of_each(folders):
        assert outcome(folder) == undisturbed, folder.name
    assert len(folders) > 3, "the steps were seen"


def test_a_disk_that_is_full_or_broken_at_any_instant_costs_no_result_that_was_written_down(tmp_path, undisturbed):
    folders = from_here(tmp_path, fail_at)
    for folder in one_of_each(folders):
        code, _, err = again(folder)
        assert (code, err) == (0, ""), f"{folder.name}: there is room again, and the same command goes on"
        ((trial, events),) = journals(folder).items()
        assert [e["event"] for e in last_attempt(events)].count("finished") == 1, folder.name
        assert last_attempt(events)[-1]["values"] == undisturbed[0], folder.name
        assert {p.name for p in trial.rglob("*.pt") if not p.name.startswith("state-")} == undisturbed[1], folder.name
    assert len(folders) > 20, "the writes were seen"


def one_of_each(folders):
    """Of folders in which the same was left, the first."""
    found = {}
    for folder in folders:
        found.setdefault(left(folder), folder)
    return list(found.values())


def left(folder):
    """What a study left on disk, but for times and processes: files, and the events of journals."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    kinds = [
        [event["event"] for event in read_events(path)[0]] if path.suffix == ".jsonl" else path.stat().st_size
        for path in files
        if path.suffix in (".jsonl", ".pt")
    ]
    return str([path.relative_to(folder) for path in files]), str(kinds)
