"""engine=ray, on a real cluster of this machine: what a study comes to there, whatever happens to its nodes."""

from __future__ import annotations

import pytest
from clusters import (
    STUDY,
    cluster,
    fill,
    held_trial,
    node_of,
    process_of,
    resumed_steps,
    start_on,
    study_in,
    table,
    weights,
)
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
    folder = study_in(tmp_path / "there", hold=True)
    process = start_on(ray_cluster, folder)
    trial = held_trial(folder)
    worker = process_of(trial)
    ray_cluster.remove_node(node_of(ray_cluster, worker), allow_graceful=False)
    wait_until(lambda: not worker.is_running())
    (folder / "hold").unlink()
    out, _ = ends_as_here(process, folder, here)
    assert resumed_steps(trial)[0] > 0
    assert "is gone; goes on elsewhere" in out
