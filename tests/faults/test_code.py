"""A result never stands under the fingerprint of other code than made it, whenever that code was edited."""

from __future__ import annotations

import importlib
import os
import py_compile
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import EntryPoint, distribution

import pytest
from own_task import SCRIPT, write
from program import inside, journals

from ablate import find_task as tasks
from ablate.code import digests, part_files
from ablate.functions.sources import closure
from ablate.functions.sources import files as files_of
from ablate.imported import refuse_other_code
from ablate.knobs import KnobError
from ablate.protocol import Trial
from ablate.tasks.language_model.config import RECURRENT_LAYERS

VALUES = """
    import ablate
    from dataclasses import dataclass
    from helper import ERROR

    @dataclass
    class Config:
        double: bool = False

    @ablate.task(Config, metric=ablate.Metric("error"))
    def train(config, run):
        return {"test_error": ERROR}
"""


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    """What a test imports from its own folder is forgotten."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - before:
        if "/pytest-" in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


class Worker:
    """What a worker does with a script: plan as it lies there, load, and be asked whether it has the planned code."""

    def __init__(self, script):
        self.script = script
        self.sources = digests(files_of(script))

    def load(self):
        self.task = tasks.load_task(f"{self.script}:train")

    def refuse(self):
        refuse_other_code(self.task, Trial(self.task.Config(), 0), self.sources)

    def refused(self):
        with pytest.raises(KnobError) as caught:
            self.refuse()
        (problem,) = caught.value.problems
        return problem


def test_code_that_was_imported_while_it_was_another_is_refused_though_the_file_is_as_planned_again(tmp_path):
    helper = write(tmp_path / "helper.py", "ERROR = 1.0")
    worker = Worker(write(tmp_path / "script.py", VALUES))
    helper.write_text("ERROR = 2.0")
    worker.load()
    helper.write_text("ERROR = 1.0")
    assert worker.refused() == ("script: its code has changed since the study was planned (helper.py); start it again")


def test_code_that_is_imported_late_is_refused_when_it_was_edited_meanwhile(tmp_path):
    late = write(tmp_path / "late.py", "RATE = 1.0")
    worker = Worker(write(tmp_path / "script.py", SCRIPT + "\n    def unused():\n        import late\n"))
    worker.load()
    worker.refuse()
    late.write_text("RATE = 2.0")
    worker.refuse()
    importlib.import_module("late")
    assert "(late.py); start it again" in worker.refused()


def test_an_edit_after_the_import_does_not_spoil_a_result(tmp_path):
    helper = write(tmp_path / "helper.py", "ERROR = 1.0")
    worker = Worker(write(tmp_path / "script.py", VALUES))
    worker.load()
    worker.refuse()
    for path in (helper, worker.script):
        path.write_text("an edit that is not even finished(")
    worker.refuse()


def test_a_module_that_no_import_statement_leads_to_is_refused_with_what_to_write(tmp_path):
    write(tmp_path / "plugin_b.py", "")
    worker = Worker(write(tmp_path / "script.py", SCRIPT))
    worker.load()
    worker.refuse()
    importlib.import_module("".join(["plugin_", "b"]))
    assert f"{tmp_path / 'plugin_b.py'} was imported" in worker.refused()
    assert "write import plugin_b into the file that needs it" in worker.refused()


def test_a_module_that_was_found_elsewhere_than_beside_the_script_is_refused(tmp_path):
    write(tmp_path / "a/helper.py", "ERROR = 1.0")
    elsewhere = write(tmp_path / "b/helper.py", "ERROR = 2.0")
    script = write(
        tmp_path / "a/script.py", f"    import sys\n    sys.path.insert(0, {str(tmp_path / 'b')!r})\n{VALUES}"
    )
    worker = Worker(script)
    worker.load()
    assert f"{elsewhere} was imported" in worker.refused()
    assert "where another file has that name, rename it" in worker.refused()


def test_an_edit_of_the_same_size_in_the_same_second_is_what_trains(tmp_path):
    write(tmp_path / "script.py", VALUES)
    helper = write(tmp_path / "helper.py", "ERROR = 1.0")
    py_compile.compile(str(helper))
    time = helper.stat().st_mtime_ns
    helper.write_text("ERROR = 2.0")
    os.utime(helper, ns=(time, time))
    quiet = ["report=false", "tracking=off", "workers=1", "seeds=1"]
    code, _, err = inside("-m", "task=script.py:train", *quiet, folder=tmp_path)
    assert (code, err) == (0, "")
    (events,) = journals(tmp_path).values()
    assert events[-1]["values"]["test_error"] == 2.0


def test_a_script_in_a_package_is_its_whole_package_with_what_is_compiled_there(tmp_path):
    script = write(tmp_path / "mine/train/script.py", SCRIPT)
    names = ["__init__.py", "train/__init__.py", "train/other.py", f"fast{EXTENSION_SUFFIXES[0]}", "deep/net.abi3.so"]
    for name in names:
        write(tmp_path / "mine" / name, "")
    for name in ("table.csv", ".venv/lib/tool.py", "__pycache__/net.pyc"):
        write(tmp_path / "mine" / name, "")
    assert closure(script) == {script, *(tmp_path / "mine" / name for name in names)}


def test_a_compiled_module_beside_a_script_is_among_its_sources(tmp_path):
    compiled = write(tmp_path / f"fast{EXTENSION_SUFFIXES[0]}", "")
    assert closure(write(tmp_path / "script.py", "import fast")) == {tmp_path / "script.py", compiled}


def registered(folder, value, top):
    """A distribution in a folder, with a recurrent layer as its entry point."""
    lines = {"METADATA": "Name: mine\nVersion: 1\n", "entry_points.txt": f"[ablate.rnn]\nmine_too = {value}\n"}
    for name, text in {**lines, "RECORD": f"{top},,\n"}.items():
        write(folder / "mine-1.dist-info" / name, text)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


@pytest.mark.parametrize("place", ["src", "site-packages"])
def test_a_layer_from_a_users_package_is_that_whole_package_wherever_it_is_installed(tmp_path, place):
    folder = tmp_path / place
    for name in ("layers/gated.py", "layers/__init__.py", "__init__.py", "maths.py", f"fast{EXTENSION_SUFFIXES[0]}"):
        write(folder / "package_of_mine" / name, "class Gated: pass")
    write(folder / "package_of_mine/words.txt", "")
    registered(folder, "package_of_mine.layers.gated:Gated", "package_of_mine/__init__.py")
    assert set(RECURRENT_LAYERS.files("mine_too")) == {
        f"package_of_mine/{name}"
        for name in ("layers/gated.py", "layers/__init__.py", "__init__.py", "maths.py", f"fast{EXTENSION_SUFFIXES[0]}")
    }


def test_a_layer_from_a_module_is_that_module_and_what_it_imports_from_beside_it(tmp_path):
    write(tmp_path / "layers_of_mine.py", "import maths_of_mine\nclass Gated: pass")
    write(tmp_path / "maths_of_mine.py", "")
    write(tmp_path / "unused.py", "")
    registered(tmp_path, "layers_of_mine:Gated", "layers_of_mine.py")
    assert set(RECURRENT_LAYERS.files("mine_too")) == {"layers_of_mine.py", "maths_of_mine.py"}
    assert RECURRENT_LAYERS.files("lstm") == {}


def test_a_part_of_another_distributions_counts_by_its_name_and_version():
    point = EntryPoint("adamw", "torch.optim:AdamW", "ablate.optimizer")
    vars(point).update(dist=distribution("numpy"))
    assert {name.partition("/")[2] for name in part_files(point)} == {"METADATA"}
    assert next(iter(part_files(point))).startswith("torch-")
