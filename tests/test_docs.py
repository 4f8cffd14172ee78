"""README and docs/: every link leads somewhere, every command is one that the program takes."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import runpy
import sys
from pathlib import Path

import matplotlib
import pytest
import torch
from conftest import TINY
from pages import LINKED, PAGES, Command, anchors, blocks, commands, files_of, links
from program import ROOT, inside

import ablate
from ablate.cli import main_of_task
from ablate.engines.local import LocalEngine
from ablate.functions.load import load_task
from ablate.study import run as study_run
from ablate.tasks.language_model import LANGUAGE_MODEL, estimate

COMMANDS = [command for page in PAGES for command in commands(page)]
# What several pages have, as it is or with plan=true, is tried once. check=true trains: that is tests/test_check.py.
TYPED = list({each.tried: each for each in COMMANDS if each.says is None and "check=true" not in each.text}.values())
REFUSED = [command for command in COMMANDS if command.says is not None]
PYTHON = ROOT / "docs/python.md"
SMALL = [*TINY, "windows=2", "valid_every=1", "tracking=off", "report=false"]


@pytest.fixture(autouse=True)
def _planned_in_a_blink(monkeypatch):
    """A plan measures for seconds how long a trial takes; none of these looks at that."""
    monkeypatch.setattr(estimate, "estimate", lambda packs: None)
    monkeypatch.setattr(study_run, "make_engine", LocalEngine)  # also where a command names a cluster
    monkeypatch.setattr(sys, "path", [*sys.path])  # loading a file changes it, and the number of threads
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def _id(command):
    return f"{command.page.stem}: {command.text}"


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.stem)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page):
    lost = [link for link in links(page) if not _leads_somewhere(page, link)]
    assert not lost


def _leads_somewhere(page, link):
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


def test_a_link_to_what_is_not_there_is_noticed():
    page = ROOT / "docs/index.md"
    assert not _leads_somewhere(page, "nowhere.md")
    assert not _leads_somewhere(page, "designs.md#nowhere")
    assert not _leads_somewhere(page, "#nowhere")


def test_every_page_is_reached_from_the_index_and_has_a_place_in_the_site():
    index, site = ROOT / "docs/index.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {page.name for page in PAGES if page.parent == index.parent} - {index.name}
    assert pages <= set(links(index))
    assert pages <= set(re.findall(r"[\w-]+\.md", site))


def test_the_pages_have_commands_and_messages():
    assert len(TYPED) > 50
    assert len(REFUSED) > 10


@pytest.mark.parametrize("command", TYPED, ids=_id)
def test_every_command_is_one_that_the_program_takes(command, tmp_path, monkeypatch):
    if "data=ptb" in command.text or "press_wolf" in command.text:
        _need_ptb()
    _lay_out(command, tmp_path)
    code, out, err = _tried(command, tmp_path, monkeypatch)
    assert (code, err) == (0, ""), out


@pytest.mark.parametrize("command", REFUSED, ids=_id)
def test_every_message_is_the_one_that_the_command_gives(command, recorded, monkeypatch):
    code, out, err = _tried(command, recorded, monkeypatch, really=True)
    assert code in (1, 2), out
    assert tuple(err.splitlines()) == command.says


def test_the_python_page_runs_on_a_study_as_it_stands(recorded, monkeypatch, capsys):
    monkeypatch.chdir(recorded)
    matplotlib.use("agg")
    run = ablate.run  # what is recorded there was trained small
    monkeypatch.setattr(ablate, "run", lambda *asked: run(*asked, *SMALL))
    names = {}
    shown = {*files_of(PYTHON).values()}
    for block in blocks(PYTHON, "python"):
        if block not in shown:
            exec(compile(block, str(PYTHON), "exec"), names)
    assert "depth=1" in capsys.readouterr().out
    assert (recorded / "curves.png").is_file()


@pytest.mark.parametrize("study", sorted(path.stem for path in (LANGUAGE_MODEL.presets / "study").glob("*.yaml")))
def test_every_study_that_is_shipped_is_explained(study):
    assert f"| `{study}` |" in (ROOT / "docs/designs.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder in which the grid of README's first command was trained, small."""
    folder = tmp_path_factory.mktemp("recorded")
    code, out, err = inside("-m", "depth=1,2", "tie=true,false", "seeds=2", *SMALL, folder=folder)
    assert (code, err) == (0, ""), out
    return folder


def _need_ptb():
    if "ABLATE_DATA_DIR" not in os.environ:
        pytest.skip("needs PTB: set ABLATE_DATA_DIR to a folder with ptb/")


def _lay_out(command: Command, folder: Path) -> None:
    """The files that a page shows, and the texts and scripts that its commands name."""
    for name, content in files_of(command.page).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    for name in re.findall(r"data\.(?:path|valid|test)=(\S+)", command.text):
        (folder / name).write_text("the quick brown fox jumps over the lazy dog .\n" * 3000, encoding="utf-8")


def _tried(command: Command, folder: Path, monkeypatch, really=False):
    """Exit code, output and errors of a command. A study is planned; of other programs the arguments are read,
    `really`: all is done."""
    for name, value in command.environment.items():
        monkeypatch.setenv(name, value)
    _, *words = command.arguments
    if words[0].startswith("deploy/"):
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", _parsed_alone(argparse.ArgumentParser.parse_args))
        return inside(*words[1:], folder=folder, main=lambda: runpy.run_path(str(ROOT / words[0]), run_name="__main__"))
    if words[0] != "-m":
        return _planned_script(words[0], words[1:], folder)
    module, arguments = words[1], words[2:]
    if module == "ablate":
        return inside(*arguments, *_instead_of_training(arguments), folder=folder)
    if not really:
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", _parsed_alone(argparse.ArgumentParser.parse_args))
    return inside(*arguments, folder=folder, main=_program(module).main)


def _planned_script(name, arguments, folder):
    if name.startswith("examples/"):
        pytest.importorskip("sklearn", reason="the examples need scikit-learn: pip install scikit-learn")
    task = load_task(str((folder if (folder / name).is_file() else ROOT) / name))
    return inside(*arguments, *_instead_of_training(arguments), folder=folder, main=lambda: main_of_task(task))


def _instead_of_training(arguments):
    says_more = {"--help", "--cfg", "plan=true"} & {*arguments}
    return [] if says_more else ["plan=true"]


def _program(module):
    found = importlib.util.find_spec(module)
    is_package = found is not None and found.submodule_search_locations is not None
    return importlib.import_module(f"{module}.__main__" if is_package else module)


def _parsed_alone(parse_args):
    """Reads the arguments as the program does, and ends where it would begin."""

    def parse(self, *arguments):
        parse_args(self, *arguments)
        sys.exit(0)

    return parse
