"""How a task is found, what belongs to its sources, and the digests of its data."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from own_task import SCRIPT, Config, does, python, returns, write

import ablate
from ablate.code import closure
from ablate.functions import digests
from ablate.functions.load import load_task
from ablate.functions.sources import sources
from ablate.imported import note_imported
from ablate.knobs import KnobError


@pytest.fixture
def _clean(monkeypatch):
    """What a test imports from its own folder is forgotten."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith("/tmp"):
            del sys.modules[name]


@pytest.mark.usefixtures("_clean")
def test_a_task_is_loaded_by_file_and_name_and_pickles_as_its_reference(tmp_path):
    script = write(tmp_path / "one_task.py", SCRIPT + "\n    ARGV = sys.argv[:]\n")
    argv = list(sys.argv)
    task = load_task(f"{script}:train")
    assert task.reference == f"{script}:train"
    assert load_task(str(script)) is task
    assert pickle.loads(pickle.dumps(task)) is task
    assert pickle.loads(pickle.dumps(sys.modules["one_task"].Nested)) is sys.modules["one_task"].Nested
    assert [str(script)] == sys.modules["one_task"].ARGV
    assert sys.argv == argv


@pytest.mark.usefixtures("_clean")
def test_a_script_whose_name_is_taken_or_that_lies_in_a_package_is_loaded_too(tmp_path):
    taken = load_task(str(write(tmp_path / "json.py", SCRIPT)))
    assert taken.function.__module__.startswith("ablate_task_")
    write(tmp_path / "pack_of_mine/__init__.py", "")
    write(tmp_path / "pack_of_mine/sub/__init__.py", "")
    write(tmp_path / "pack_of_mine/other.py", "WIDTH = 3")
    script = write(tmp_path / "pack_of_mine/sub/train.py", "    from ..other import WIDTH\n" + SCRIPT)
    task = load_task(str(script))
    assert task.function.__module__ == "pack_of_mine.sub.train"
    assert {path.name for path in closure(script)} == {"train.py", "__init__.py", "other.py"}


@pytest.mark.parametrize(
    ("text", "reference", "message"),
    [
        (SCRIPT, "scirpt.py", "there is no file .*scirpt.py; did you mean 'script.py'"),
        (SCRIPT, "script.py:trian", "script.py has no trian; did you mean 'train'"),
        (SCRIPT + "\n    def other(): pass", "script.py:other", "other is a plain function; write @ablate.task"),
        ("x = 1", "script.py", "script.py has no task; write @ablate.task"),
        (SCRIPT + "\n    second = ablate.task(Config, metric=ablate.Metric('e'))(train.function)", "script.py",
         "has several tasks, train, second; for example script.py:train"),
        (SCRIPT + "\n    1 / 0", "script.py", "importing script.py failed in line [0-9]+: ZeroDivisionError"),
        (SCRIPT + "\n    sys.exit()", "script.py", "calls exit while it is imported; put what parses arguments"),
        (SCRIPT + "\n    ablate.main(train)", "script.py",
         r'a study is started \(ablate.main, .* while the file is imported.*below a guard, if __name__ == "__main__":'),
        (SCRIPT.replace("width: int = 1", "width: int"), "script.py", "Config.width: has no default"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("_clean")
def test_a_reference_that_names_no_task_says_why(tmp_path, text, reference, message):
    write(tmp_path / "script.py", text)
    with pytest.raises(KnobError, match=message) as caught:
        load_task(str(tmp_path / reference))
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith("task=")


def test_a_task_that_no_other_process_can_import_has_no_reference(tmp_path):
    with pytest.raises(KnobError, match="a task is at the top level of its file"):
        _ = returns({}).reference
    space: dict = {"Config": Config}
    cell = 'import ablate\n@ablate.task(Config, metric=ablate.Metric("e"))\ndef train(config, run): pass'
    exec(compile(cell, "<ipython-input-1>", "exec"), space)
    with pytest.raises(KnobError, match=r"in a notebook, write its cell with %%writefile train\.py"):
        _ = space["train"].reference


@pytest.mark.usefixtures("_clean")
def test_sources_are_the_script_and_what_of_the_users_own_it_imports(tmp_path):
    script = write(
        tmp_path / "exp/script.py",
        """
        import json, torch.nn as nn, beside_it
        from library_of_mine import net
        def late():
            from space_of_mine.inner import x
            import importlib
            importlib.import_module("by_name")
        """,
    )
    write(tmp_path / "exp/beside_it.py", "import second_hand")
    write(tmp_path / "exp/second_hand.py", "")
    write(tmp_path / "exp/by_name.py", "def broken(:")
    write(tmp_path / "exp/unused.py", "")
    write(tmp_path / "exp/space_of_mine/inner.py", "")
    write(tmp_path / "exp/space_of_mine/unused.py", "")
    write(tmp_path / "lib/library_of_mine/__init__.py", "")
    write(tmp_path / "lib/library_of_mine/deep/net.py", "from .. import other")
    sys.path.insert(0, str(tmp_path / "lib"))
    found = {name for name in sources(script) if not name.startswith("ablate/")}
    assert found == {
        "script.py", "beside_it.py", "second_hand.py", "by_name.py", "space_of_mine/inner.py",
        "../lib/library_of_mine/__init__.py", "../lib/library_of_mine/deep/net.py",
    }  # fmt: skip
    of_ablate = {name.split("/")[1] for name in sources(script) if name.startswith("ablate/")}
    assert of_ablate == {"functions", "train"}
    assert {"ablate/functions/run.py", "ablate/train/checkpoint.py"} <= sources(script).keys()
    assert "ablate/functions/check.py" not in sources(script)


def test_a_digest_is_of_bytes_wherever_they_lie_and_reads_a_file_again_when_it_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        write(tmp_path / folder / "x.csv", "1")
        write(tmp_path / folder / "sub/y.csv", "2")
    assert ablate.digest("a") == ablate.digest(tmp_path / "b")
    write(tmp_path / "b/sub/y.csv", "33")
    assert ablate.digest("a") != ablate.digest("b")
    os.rename("a/x.csv", "a/z.csv")
    assert ablate.digest("a/z.csv") == ablate.digest("b/x.csv")
    assert ablate.digest("a") != ablate.digest("b")
    array = np.arange(6)
    assert len({ablate.digest(each) for each in (array, array.reshape(2, 3), array.astype(float), b"1")}) == 4
    assert ablate.digest(array) == ablate.digest(torch.arange(6))
    with pytest.raises(KnobError, match="has no bytes of its own"):
        ablate.digest([object()])
    read = []
    monkeypatch.setattr(digests.hashlib, "file_digest", lambda *a: read.append(a))
    ablate.digest("b/x.csv")
    assert not read


def test_data_is_relative_to_the_script_from_any_folder(tmp_path, monkeypatch):
    task = does(lambda run: None, data="conftest.py")
    by_function = does(lambda run: None, data=lambda config: ablate.digest("conftest.py"))
    monkeypatch.chdir(tmp_path)
    facts = task.describe(task.Config())
    assert (
        facts.digest
        == by_function.describe(by_function.Config()).digest
        == ablate.digest(Path(__file__).with_name("conftest.py"))
    )
    assert facts.data == "conftest.py"
    nothing = returns({})
    assert nothing.describe(nothing.Config()).digest == ""


def test_importing_ablate_and_declaring_a_task_loads_nothing_heavy(tmp_path):
    write(tmp_path / "light.py", SCRIPT)
    code = """
        import sys, light
        print([name for name in ("torch", "pandas", "hydra", "mlflow", "scipy", "matplotlib") if name in sys.modules])
    """
    assert python(code, tmp_path).stdout.strip() == "[]"


def test_a_plain_call_needs_no_hydra_and_no_mlflow(tmp_path):
    script = write(tmp_path / "plain.py", SCRIPT)
    code = """
        import sys
        from plain import train
        assert "torch" not in sys.modules
        result = train.run(seed=2, width=3, **{"nested.rate": 0.5})
        assert result == {"test_error": 3, "seed": 2, "device": "cpu", "rate": 0.5}, result
        print([name for name in ("hydra", "mlflow", "pandas", "omegaconf") if name in sys.modules])
    """
    assert python(code, script.parent).stdout.strip() == "[]"


def test_a_module_of_the_users_that_has_taken_a_librarys_name_is_seen(tmp_path, monkeypatch):
    importlib.import_module("colorsys")
    note_imported()
    monkeypatch.delitem(sys.modules, "colorsys")
    monkeypatch.syspath_prepend(tmp_path)
    own = write(tmp_path / "colorsys.py", "")
    importlib.import_module("colorsys")
    assert note_imported()[own] == "colorsys"
