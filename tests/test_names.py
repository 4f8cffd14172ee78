"""Names that anybody may have recorded: none leaves its folder, and none stops a report."""

from __future__ import annotations

import string
import xml.etree.ElementTree as ElementTree

import pytest
from conftest import TINY, values_of
from hypothesis import given
from hypothesis import strategies as st
from made import PLAIN_LAUNCH, results, trials
from recorded import PRINT, launch

from ablate.names import folder_name
from ablate.report import write_report
from ablate.study.cells import Job
from ablate.study.jobs import make_study
from ablate.track.folder import Folder
from ablate.track.read import read_studies, read_study

HOSTILE = [
    "",
    ".",
    "..",
    "/home/x",
    "../../etc",
    "mine/preset",
    "a\0b",
    "x" * 300,
    "日" * 100,
    "\udcff",
    "a\\b",
    "C:\\x",
]


class Foreign:
    """A store of somebody else's, with one study, of any name and labels."""

    def __init__(self, name, labels=("a",), events=()):
        self.launched = launch(name, labels, time="2020-01-01T00:00:00") | PLAIN_LAUNCH
        self.events = list(events)

    def studies(self):
        return [self.launched["study"]]

    def newest_study(self):
        return self.launched["study"]

    def launch(self, study):
        return self.launched

    def attempts(self, study, launched):
        return ([*self.events] for cell in launched["cells"] for _ in cell["trials"])


@given(st.text())
def test_a_folder_name_is_one_part_of_a_path_that_is_not_hidden_and_short_enough(name):
    made = folder_name(name)
    assert not {*made} & {*'/\\:*?"<>|\0', *string.whitespace}
    assert made.lstrip(".-") == made != ""
    assert len(made.encode()) <= 100
    assert folder_name(made) == made


def test_names_that_differ_have_folders_that_differ_and_a_typed_one_its_own():
    assert len({*map(folder_name, HOSTILE)}) == len(HOSTILE)
    for name in ("my-study", "leave_one_out+cumulative", "v1.2", "訓練-depth"):
        assert folder_name(name) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_store_calls_its_study_the_report_lies_in_the_folder_of_reports(name, tmp_path):
    reports = tmp_path / "here" / "reports"
    report = write_report(read_studies(Foreign(name), []), reports)
    assert report.folder.parent == reports
    assert report.page.is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert [path.name for path in reports.iterdir() if not path.name.startswith(".")] == [report.folder.name]


def test_a_study_is_called_after_its_factors_by_a_name_that_a_folder_can_have():
    jobs = [Job((f"+mine/kind={lr}",), values_of(*TINY, f"lr={lr}")) for lr in (0.1, 0.2)]
    name = make_study(jobs).name
    assert name == folder_name("mine/kind")
    assert "/" not in name


def test_a_fingerprint_of_somebody_elses_launch_is_no_way_out_of_the_runs_folder(tmp_path):
    folder = Folder(tmp_path)
    assert folder.trial("../../../../etc").parent == tmp_path / "trials"
    assert folder.trial(PRINT) == tmp_path / "trials" / PRINT[:16]


def test_labels_and_levels_name_no_file(tmp_path):
    plain, hostile = (
        write_report(results(trials({label: [4.0, 4.1], "b": [3.9, 4.0]}), name=name), tmp_path).folder
        for name, label in (("plain", "a"), ("hostile", "../../x/y"))
    )
    assert {path.name for path in plain.iterdir()} == {path.name for path in hostile.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} >= {"plain", "hostile"}
    assert all(path.name.lstrip(".").startswith(("plain", "hostile")) for path in tmp_path.iterdir())


@pytest.mark.figures
def test_characters_that_cannot_be_written_are_shown_as_their_codes(tmp_path):
    journal = [{"event": "started"}, {"event": "failed", "reason": "no 'caf\udce9\x1b[2J'\nhere", "log": "l"}]
    read = read_study(Foreign("s", ["a\x1b[31m", "b\0"], journal))
    assert list(read.trials["cell"]) == ["a\\x1b[31m", "b\\x00"]
    assert set(read.trials["reason"]) == {"no 'caf\\udce9\\x1b[2J'\nhere"}
    report = write_report(results(trials({label: [4.0, 4.1] for label in read.trials["cell"]})), tmp_path)
    for path in report.folder.glob("*.svg"):
        ElementTree.parse(path)
