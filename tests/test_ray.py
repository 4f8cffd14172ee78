"""engine=ray, on a real cluster of this machine: what a study comes to there, whatever happens to its nodes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from clusters import (
    HELD,
    STUDY,
    cluster,
    cut_off_node,
    files,
    fill,
    has_ended,
    held_trial,
    node_of,
    process_of,
    resumed_steps,
    start_on,
    study_in,
    table,
    trainer_of,
    weights,
)  # fmt: skip
from program import journals, kill_tree, start, wait_until

from ablate.track.claims import read_trial

ALONE = ["ablate", "task=task.py:train", "tracking=off", "report=false", "engine=ray"]

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def ray_cluster():
    with cluster() as made:
        yield made


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The study as this machine trains it."""
    folder = study_in(tmp_path_factory.mktemp("here"))
    process = start(["ablate", *STUDY, "engine=local", "workers=2"], folder)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return folder


def ends_as_here(process, folder, here):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, (out, err)
    assert table(folder) == table(here)
    assert weights(folder) == weights(here)
    return out, err


def held_study(made, place, *more):
    """A study on both nodes of a cluster, one of whose trials waits in its middle: process, folder, that trial."""
    fill(made)
    folder = study_in(place / "there", hold=HELD)
    process = start_on(made, folder, *more)
    return process, folder, held_trial(folder)


def test_a_node_that_dies_costs_nothing_but_time(ray_cluster, here, tmp_path):
    process, folder, trial = held_study(ray_cluster, tmp_path)
    worker = process_of(trial)
    ray_cluster.remove_node(node_of(ray_cluster, worker), allow_graceful=False)
    wait_until(lambda: has_ended(worker))
    (folder / "hold").unlink()
    out, _ = ends_as_here(process, folder, here)
    assert resumed_steps(trial)[0] > 0
    assert "is gone; goes on elsewhere" in out


def test_nodes_without_the_runs_folder_train_through_its_keeper(ray_cluster, here, tmp_path):
    process, folder, trial = held_study(ray_cluster, tmp_path, "engine.shared=false")
    keeper, worker = process_of(trial), trainer_of(trial)
    assert keeper.pid != worker.pid, "the claim is the keeper's, which lives on the study's machine"
    opened = [Path(each.path) for each in worker.open_files()]
    assert any(path.name == "trial.log" for path in opened)
    assert not [path for path in opened if folder in path.parents]
    ray_cluster.remove_node(node_of(ray_cluster, worker), allow_graceful=False)
    wait_until(lambda: has_ended(worker))
    (folder / "hold").unlink()
    ends_as_here(process, folder, here)
    assert resumed_steps(trial)[0] > 0
    printed = (trial / "trial.log").read_text()
    assert "trained in" in printed
    assert str(folder) not in printed
    assert files(folder) == files(here)


def test_what_a_node_writes_that_was_cut_off_counts_for_nothing(ray_cluster, here, tmp_path):
    folder = study_in(tmp_path / "there", hold="2 0.1 0")
    with cut_off_node(ray_cluster) as cut:
        process = start_on(ray_cluster, folder)
        trial = held_trial(folder)
        zombie = trainer_of(trial)
        fill(ray_cluster)
        cut()
        wait_until(lambda: resumed_steps(trial))
        assert not has_ended(zombie), "it outlives the death of its node"
        (folder / "hold").unlink()
        ends_as_here(process, folder, here)
        wait_until(lambda: has_ended(zombie))
    assert resumed_steps(trial)[0] > 0


def test_a_study_that_is_stopped_or_killed_goes_on_when_it_is_typed_again(ray_cluster, here, tmp_path):
    process, folder, trial = held_study(ray_cluster, tmp_path)
    worker = trainer_of(trial)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert has_ended(worker), "it ended before the study did"
    process = start_on(ray_cluster, folder)
    wait_until(lambda: resumed_steps(trial))
    worker = trainer_of(trial)
    kill_tree(process)
    wait_until(lambda: has_ended(worker))
    (folder / "hold").unlink()
    finished = {trial: events for trial, events in journals(folder).items() if ends(events) == 1}
    ends_as_here(start_on(ray_cluster, folder), folder, here)
    after = journals(folder)
    assert all(after[trial] == events for trial, events in finished.items()), "nothing is trained twice"
    assert {ends(events) for events in after.values()} == {1}


def ends(events):
    return [event["event"] for event in events].count("finished")


def test_a_worker_ends_with_the_process_of_ray_that_supervises_it(ray_cluster, tmp_path):
    fill(ray_cluster)
    folder = study_in(tmp_path, hold="4 0.1 0")
    process = start([*ALONE, f"engine.address={ray_cluster.address}"], folder)
    worker = trainer_of(held_trial(folder))
    supervisor = next(each for each in worker.parents() if each.name().startswith("ray::"))
    supervisor.kill()
    wait_until(lambda: has_ended(worker))
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "which supervised it, was killed" in out


def test_a_cluster_that_goes_away_is_told_in_a_line(ray_cluster, tmp_path):
    """The last test of this file: it has no cluster after it."""
    fill(ray_cluster)
    folder, address = study_in(tmp_path, hold="4 0.1 0"), ray_cluster.address
    process = start([*ALONE, f"engine.address={address}"], folder)
    trial = held_trial(folder)
    ray_cluster.shutdown()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, out
    assert err.startswith(f"ablate: engine.address={address}: the Ray cluster is gone")
    assert len(err.splitlines()) == 1
    assert not [event for event in read_trial(trial) if event["event"] == "failed"]
