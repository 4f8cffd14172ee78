"""engine=ray, on a real cluster of this machine: what a study comes to there, whatever happens to its nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from clusters import (
    HELD,
    STUDY,
    cluster,
    cut_off_node,
    files,
    fill,
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
from program import start, wait_until

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


def test_a_node_that_dies_costs_nothing_but_time(ray_cluster, here, tmp_path):
    fill(ray_cluster)
    folder = study_in(tmp_path / "there", hold=HELD)
    process = start_on(ray_cluster, folder)
    trial = held_trial(folder)
    worker = process_of(trial)
    ray_cluster.remove_node(node_of(ray_cluster, worker), allow_graceful=False)
    wait_until(lambda: not worker.is_running())
    (folder / "hold").unlink()
    out, _ = ends_as_here(process, folder, here)
    assert resumed_steps(trial)[0] > 0
    assert "is gone; goes on elsewhere" in out


def test_nodes_without_the_runs_folder_train_through_its_keeper(ray_cluster, here, tmp_path):
    fill(ray_cluster)
    folder = study_in(tmp_path / "there", hold=HELD)
    process = start_on(ray_cluster, folder, "engine.shared=false")
    trial = held_trial(folder)
    keeper, worker = process_of(trial), trainer_of(trial)
    assert keeper.pid != worker.pid, "the claim is the keeper's, which lives on the study's machine"
    opened = [Path(each.path) for each in worker.open_files()]
    assert any(path.name == "trial.log" for path in opened)
    assert not [path for path in opened if folder in path.parents]
    ray_cluster.remove_node(node_of(ray_cluster, worker), allow_graceful=False)
    wait_until(lambda: not worker.is_running())
    (folder / "hold").unlink()
    ends_as_here(process, folder, here)
    assert resumed_steps(trial)[0] > 0
    assert (trial / "trial.log").exists()
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
        assert zombie.is_running(), "it outlives the death of its node"
        (folder / "hold").unlink()
        ends_as_here(process, folder, here)
        wait_until(lambda: not zombie.is_running())
    assert resumed_steps(trial)[0] > 0
