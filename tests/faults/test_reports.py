"""A report is replaced whole: whatever stops its writing, what lies there is the old one or the new one."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest
from made import one_out, results, trials

from ablate.report import write, write_report
from ablate.report.figures import FIGURES, draw_all
from ablate.report.replace import replaced

OURS = {"page", "figure", "table"}
OLD, NEW = {"page": "old", "figure": "old"}, {"page": "new", "table": "new"}
OWN = {"note.txt": "a user's", "own/data.csv": "a user's too"}


def held(folder):
    """Every file of a folder with its text; None where there is none."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files} if folder.exists() else None


def report_in(folder):
    """The files of a report alone."""
    files = held(folder)
    return None if files is None else {name: text for name, text in files.items() if name in OURS}


@pytest.fixture
def folder(tmp_path):
    return put_back(tmp_path / "reports" / "study")


def put_back(folder):
    """An old report, with a user's own files in it."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in (OLD | OWN).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def renew(folder):
    with replaced(folder, OURS) as scratch:
        for name, text in NEW.items():
            (scratch / name).write_text(text)


def disk_is_full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def on_call(number, act, patch):
    """Do something in place of the n-th call of all that changes a disk; returns how many calls there have been."""
    calls = []

    def counted(original):
        def call(*arguments, **named):
            calls.append(original)
            return act() if len(calls) == number else original(*arguments, **named)

        return call

    for module, name in ((os, "mkdir"), (os, "rename"), (os, "fsync"), (Path, "write_text"), (shutil, "rmtree")):
        patch.setattr(module, name, counted(getattr(module, name)))
    return calls


def test_a_folder_is_replaced_and_keeps_what_a_user_put_there(folder):
    renew(folder)
    assert held(folder) == NEW | OWN
    assert [path.name for path in folder.parent.iterdir()] == ["study"]


def test_a_disk_that_is_full_at_any_moment_leaves_the_old_folder_or_the_new_one(folder, monkeypatch):
    number, failed = 1, True
    while failed:
        failed = False
        with monkeypatch.context() as patch:
            on_call(number, disk_is_full, patch)
            try:
                renew(folder)
            except OSError:
                failed = True
        assert report_in(folder) in (OLD, NEW), number
        renew(folder)
        assert held(folder) == NEW | OWN
        assert [path.name for path in folder.parent.iterdir()] == ["study"], number
        put_back(folder)
        number += 1
    assert number > 8


def test_a_kill_at_any_moment_costs_no_report_and_the_next_writing_tidies_up(folder):
    number, killed = 1, True
    while killed:
        child = os.fork()
        if child == 0:
            with pytest.MonkeyPatch.context() as patch:
                on_call(number, lambda: os.kill(os.getpid(), signal.SIGKILL), patch)
                renew(folder)
            os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        # Between two renames there is no folder; whoever writes next finds the old one, also where that fails.
        assert report_in(folder) in (OLD, NEW, None), number
        with pytest.raises(OSError, match="No space"), replaced(folder, OURS):
            disk_is_full()
        assert held(folder) in (OLD | OWN, NEW | OWN), number
        assert [path.name for path in folder.parent.iterdir()] == ["study"], number
        put_back(folder)
        number += 1
    assert number > 8


def test_a_link_to_a_folder_stays_one_and_a_file_is_not_replaced(folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder)
    renew(link)
    assert link.is_symlink()
    assert held(folder) == NEW | OWN
    (tmp_path / "file").write_text("a user's")
    with pytest.raises(FileExistsError):
        renew(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "a user's"


def test_a_report_that_cannot_be_written_to_its_end_leaves_the_earlier_one_as_it_was(tmp_path, monkeypatch):
    first = write_report(results(trials({"a": [4.0, 4.1]})), tmp_path)
    (first.folder / "notes.md").write_text("a user's")
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    monkeypatch.setattr(write, "_page", disk_is_full)  # the last file
    with pytest.raises(OSError, match="No space"):
        write_report(results(trials({"a": [5.0, 5.1], "b": [4.0, 4.1]})), tmp_path)
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} <= {"study", ".study.lock"}


def test_what_a_report_may_have_is_all_that_it_writes(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(write, "draw_all", lambda *given: drawn.update(draw_all(*given)) or drawn)
    design = {"kind": "leave_one_out", "components": ["a", "b"]}
    report = write_report(results(one_out({"a": -0.2, "b": 0.1}), design=design), tmp_path)
    assert {*drawn} == {*FIGURES}
    assert {path.name for path in report.folder.iterdir()} <= write._FILES
