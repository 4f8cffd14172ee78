"""What nothing needs is named with its size and the reason, and deleted only when that is asked for."""

from __future__ import annotations

import re

import pytest
from conftest import TINY, killed_in_the_middle, make_plan, study_of
from program import inside, journals

from ablate.track.__main__ import main
from ablate.track.claims import claimed
from ablate.track.folder import Folder
from ablate.track.prune import unneeded

QUIET = [*TINY, "tracking=off", "report=false"]


def prune(folder, *arguments):
    _, out, err = inside(folder=folder, main=lambda: main(["prune", *arguments]))
    assert err == ""
    return out


def files(folder):
    return {path.relative_to(folder) for path in folder.glob("runs/trials/**/*")}


@pytest.fixture
def runs(tmp_path):
    """A study that was launched with another learning rate before, of one trial each."""
    for lr in ("0.01", "0.02"):
        assert inside(*QUIET, f"lr={lr}", "name=study", folder=tmp_path)[0] == 0
    return tmp_path


def test_a_trial_that_no_newest_launch_asks_for_is_named_and_deleted_on_request_alone(runs):
    old, new = sorted(journals(runs), key=lambda trial: journals(runs)[trial][0]["knobs"]["lr"])
    before = files(runs)
    out = prune(runs)
    assert re.search(rf"trials/{old.name}: all of it, \d[\d.]* kB: the newest launch of no study asks for it", out)
    assert new.name not in out
    assert out.endswith("could be deleted: python -m ablate.track prune --runs runs --delete\n")
    assert files(runs) == before
    assert "deleted" in prune(runs, "--delete")
    assert not old.exists()
    assert prune(runs) == "runs: nothing that is not needed\n"
    code, out, _ = inside(*QUIET, "lr=0.02", "name=study", folder=runs)
    assert (code, "finished before" in out) == (0, True)


def test_a_folder_with_a_space_is_quoted_and_one_that_is_not_there_is_refused(runs):
    (runs / "runs").rename(runs / "my runs")
    assert prune(runs, "--runs", "my runs").endswith("python -m ablate.track prune --runs 'my runs' --delete\n")
    code, out, err = inside(folder=runs, main=lambda: main(["prune", "--runs", "rusn"]))
    assert (code, out) == (2, "")
    assert err == "ablate.track: rusn: there is no such folder; name the folder of the journals, --runs runs\n"


def test_what_served_to_go_on_is_deleted_of_a_finished_trial_and_its_weights_stay(runs):
    trial = max(journals(runs), key=lambda trial: journals(runs)[trial][0]["knobs"]["lr"])
    claim = trial / "claim-0001"
    kept = files(runs)
    for name in ("state-0000000020-" + "0" * 64 + ".pt", "best.tmp123"):
        (claim / name).write_bytes(b"x" * 5000)
    out = prune(runs, "--delete")
    assert f"trials/{trial.name}: 2 files, " in out
    assert {path for path in files(runs) if trial.name in str(path) and "claim-0002" not in str(path)} == {
        path for path in kept if trial.name in str(path)
    }


def test_a_trial_that_is_not_finished_and_one_that_a_process_has_keep_everything(runs):
    folder = Folder(runs / "runs")
    (planned,) = make_plan(study_of(*TINY, "windows=80", "lr=0.01"), folder)
    killed_in_the_middle(planned)
    assert [each.trial for each in unneeded(folder)].count(planned.folder) == 1, "no launch asks for it"
    with claimed(planned.folder, "a launch"):
        assert planned.folder not in [each.trial for each in unneeded(folder)]
        prune(runs, "--delete")
    assert list(planned.folder.rglob("state-*.pt"))
