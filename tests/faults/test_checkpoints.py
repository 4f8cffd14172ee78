"""A checkpoint is believed only when it is whole, and this trial's own."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import TINY, make_plan, study_of, train_in_process
from program import ROOT, claim_folder

from ablate.engines import worker
from ablate.track.claims import read_trial
from ablate.track.folder import Folder
from ablate.track.journal import last_attempt, status
from ablate.train import Checkpoints
from ablate.train.checkpoint import Damaged

OVERRIDES = [*TINY, "model=better_lstm", "hidden=16", "windows=80", "valid_every=20"]

# Trains the trial in the folder given, and dies at the n-th write of a state, half of it written.
DIES = """
import os, signal, sys, torch
sys.path.insert(0, sys.argv[1])
from test_checkpoints import planned_in, train_in_process
save, states = torch.save, []
def dies(payload, file):
    if "optimizer" in payload:
        states.append(1)
    if len(states) == int(sys.argv[3]):
        file.write(b"half of it"), file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    save(payload, file)
torch.save = dies
train_in_process([planned_in(sys.argv[2])])
"""


def planned_in(folder):
    (planned,) = make_plan(study_of(*OVERRIDES), Folder(folder))
    return planned


def train_and_die(folder, at_state):
    here = os.path.dirname(__file__)
    done = subprocess.run(
        [sys.executable, "-c", DIES, here, str(folder), str(at_state)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def attempt(planned):
    return last_attempt(read_trial(planned.folder))


def measured(planned):
    """The trial's curve and result, without what a clock decides."""
    clock = ("time", "seconds", "train_seconds", "tokens_per_s")
    events = [{**e.pop("values"), **e} for e in attempt(planned) if e["event"] in ("log", "finished")]
    return [{k: v for k, v in event.items() if k not in clock} for event in events]


def weights(planned):
    return sorted(path.name for path in planned.folder.rglob("*.pt"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    planned = planned_in(tmp_path_factory.mktemp("undisturbed"))
    assert train_in_process([planned]) == [worker.TRAINED]
    assert status(attempt(planned)) == "FINISHED"
    return planned


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A runs folder whose trial died with the states of windows 20 and 40 on disk, while it wrote that of 60."""
    folder = tmp_path_factory.mktemp("killed")
    train_and_die(folder, 3)
    return folder


@pytest.fixture
def trial(killed, tmp_path):
    """The killed trial, in a copy of its own."""
    shutil.copytree(killed, tmp_path / "runs")
    return planned_in(tmp_path / "runs")


def states(planned):
    return sorted(planned.folder.rglob("state-*.pt"))


def goes_on_from(planned, window, undisturbed):
    assert train_in_process([planned]) == [worker.TRAINED]
    (resumed,) = [e for e in attempt(planned) if e["event"] == "resumed"]
    assert resumed["step"] == window
    assert measured(planned) == measured(undisturbed)
    assert weights(planned) == weights(undisturbed)
    return resumed["refused"]


def test_kill_9_during_the_write_of_a_checkpoint_leaves_the_ones_before_and_its_rest_is_swept(trial, undisturbed):
    assert [int(p.name.split("-")[1]) for p in states(trial)] == [20, 40]
    assert len(list(trial.folder.rglob("*.tmp*"))) == 1
    assert goes_on_from(trial, 40, undisturbed) == []
    assert list(trial.folder.rglob("*.tmp*")) == []


def test_kill_9_during_the_first_checkpoint_starts_anew_in_the_same_attempt(tmp_path, undisturbed):
    train_and_die(tmp_path, 1)
    assert goes_on_from(planned_in(tmp_path), 0, undisturbed) == []


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: path.write_bytes(b""),
        flip_a_byte,
        lambda path: path.unlink(),
    ],
    ids=["truncated", "empty", "one byte flipped", "lost"],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(damage, trial, undisturbed):
    damage(states(trial)[-1])
    refused = goes_on_from(trial, 20, undisturbed)
    assert all("SHA-256" in reason for reason in refused)


def test_with_every_checkpoint_damaged_the_trial_starts_anew(trial, undisturbed):
    for path in states(trial):
        flip_a_byte(path)
    assert len(goes_on_from(trial, 0, undisturbed)) == 2
    assert "checkpoint not used: state-" in (trial.folder / "trial.log").read_text()


def test_lost_best_weights_make_their_state_unusable(trial, undisturbed):
    for path in trial.folder.rglob("best-*40-*.pt"):
        path.unlink()
    (refused,) = goes_on_from(trial, 20, undisturbed)
    assert "the best weights, of window 40, are missing" in refused


def put_state(planned, window, data):
    path = claim_folder(planned.folder) / f"state-{window:010d}-{hashlib.sha256(data).hexdigest()}.pt"
    path.write_bytes(data)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrap", [pickle.dumps, None], ids=["bare pickle", "inside a torch file"])
def test_a_pickle_bomb_with_a_right_digest_is_refused_and_does_not_go_off(wrap, trial, undisturbed, tmp_path):
    bomb = Bomb(tmp_path / "went off")
    if wrap is None:
        torch.save({"model": bomb}, tmp_path / "x")
        data = (tmp_path / "x").read_bytes()
    else:
        data = wrap(bomb)
    put_state(trial, 60, data)
    (refused,) = goes_on_from(trial, 40, undisturbed)
    assert "Error" in refused
    assert not (tmp_path / "went off").exists()


def test_a_state_of_another_configuration_is_refused(trial, undisturbed):
    state, _ = Checkpoints(claim_folder(trial.folder), trial.fingerprint).newest(10**9)
    torch.save(state | {"fingerprint": "another"}, trial.folder / "x")
    put_state(trial, 60, (trial.folder / "x").read_bytes())
    (refused,) = goes_on_from(trial, 40, undisturbed)
    assert "it belongs to another configuration" in refused


def test_a_state_that_is_ahead_of_its_journal_is_refused(trial):
    checkpoints = Checkpoints(claim_folder(trial.folder), trial.fingerprint)
    state, refused = checkpoints.newest(10**9)
    assert (state["window"], refused) == (40, [])
    state, refused = checkpoints.newest(state["journal_bytes"] - 1)
    assert state["window"] == 20
    assert "it is ahead of the journal" in refused[0]


def test_what_was_saved_later_than_training_goes_on_from_is_dropped_and_nothing_else(tmp_path):
    kept = Checkpoints(tmp_path, "f")
    for window in (1, 2):
        kept.save_best(window, {"x": window})
        kept.save(window, {"journal_bytes": 0, "best_window": window})
    kept.save_last(1, {})
    (tmp_path / "state-mine.pt").touch()
    kept.drop_after(1)
    assert sorted(path.name[:16] for path in tmp_path.iterdir()) == [
        "best-0000000001-", "state-0000000001", "state-mine.pt",
    ]  # fmt: skip


def test_what_holds_no_state_is_refused(trial):
    torch.save([1, 2], trial.folder / "x")
    put_state(trial, 70, (trial.folder / "x").read_bytes())
    state, (refused,) = Checkpoints(claim_folder(trial.folder), trial.fingerprint).newest(10**9)
    assert state["window"] == 40
    assert "it holds no state" in refused
    with pytest.raises(Damaged, match="training has not come to its end"):
        Checkpoints(claim_folder(trial.folder), trial.fingerprint).last()


def test_a_text_that_changes_under_a_running_study_fails_the_trial_and_says_so(tmp_path):
    planned = planned_in(tmp_path)
    planned = replace(planned, facts=replace(planned.facts, digest="0" * 64))
    train_in_process([planned])
    events = attempt(planned)
    assert status(events) == "FAILED"
    assert "has changed since the study was planned" in events[-1]["reason"]
    assert json.dumps(events)
