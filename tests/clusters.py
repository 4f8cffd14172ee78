"""A Ray cluster in this machine, for tests; and a study that it trains."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec

import psutil
import pytest
from program import journals, start, wait_until

from ablate.track.claims import holder, read_trial

# Every cell learns something else; `hold`, a file beside it, keeps one trial in its third epoch.
TASK = """
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import ablate


@dataclass
class Config:
    width: int = 4
    lr: float = 0.1


def held(config, run):
    hold = Path(__file__).with_name("hold")
    return hold.exists() and hold.read_text() == f"{config.width} {config.lr} {run.seed}"


@ablate.task(Config, metric=ablate.Metric("error"))
def train(config, run):
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(4, config.width), nn.Tanh(), nn.Linear(config.width, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
    run.keep(model=model, optimizer=optimizer)
    run.keep_best(model=model)
    for epoch in run.epochs(5):
        while epoch == 2 and held(config, run):
            time.sleep(0.05)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x) + 0.1 * torch.randn(64, 2), y)
        loss.backward()
        optimizer.step()
        run.log(train_error=loss.item(), valid_error=float((model(x).argmax(1) != y).float().mean()))
        (run.folder / "epochs.txt").write_text(str(epoch + 1))
    run.load_best()
    print("trained in", run.folder)
    wrong = (model(x).argmax(1) != y).float()
    return {"test_error": float(wrong.mean())}
"""
STUDY = ["task=task.py:train", "-m", "width=2,4,8", "lr=0.1,0.3", "seeds=2", "tracking=off", "reports=reports"]
HELD = "4 0.1 1"  # width, lr and seed of a trial that waits


def need_ray():
    """Skip where Ray is not installed, unless nothing may be skipped (ABLATE_TESTS_SKIP_NOTHING, as in .ci/run)."""
    if find_spec("ray") is None:
        reason = "Ray is not installed; pip install 'ablate-lm[ray]'"
        if os.environ.get("ABLATE_TESTS_SKIP_NOTHING"):
            pytest.fail(reason)
        pytest.skip(reason)


@contextmanager
def cluster():
    """A head without CPUs and two nodes of one CPU each, which are in this process' cluster object."""
    need_ray()
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"USAGE_STATS_ENABLED": "0", "worker_niceness": "0"}.items():
            patch.setenv(f"RAY_{name}", value)
        for name in ("time", "timeout"):
            patch.setenv(f"RAY_grpc_client_keepalive_{name}_ms", "5000")
        health = {"initial_delay_ms": 0, "period_ms": 1000, "timeout_ms": 2000, "failure_threshold": 3}
        made = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "_system_config": {f"health_check_{name}": value for name, value in health.items()},
            },
        )
        try:
            fill(made)
            yield made
        finally:
            made.shutdown()


@contextmanager
def cut_off_node(made):
    """One node in a network of its own, the only one that can train; gives what cuts its link."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network of its own needs root and iproute2")
    name, (outside, inside) = f"ablate{os.getpid()}", ("10.77.77.1", "10.77.77.2")
    link = f"abl{os.getpid()}"
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a network of its own is not allowed here: {error.stderr}")
    with ExitStack() as stack:
        stack.callback(_ip, "netns", "delete", name)
        _ip("link", "add", link, "type", "veth", "peer", "name", "inside", "netns", name)
        _ip("address", "add", f"{outside}/24", "dev", link)
        _ip("link", "set", link, "up")
        for arguments in (
            ("address", "add", f"{inside}/24", "dev", "inside"),
            ("link", "set", "lo", "up"),
            ("link", "set", "inside", "up"),
            ("route", "add", "default", "via", outside),
        ):
            _ip("-n", name, *arguments)
        for node in list(made.worker_nodes):
            made.remove_node(node, allow_graceful=False)
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={made.address}", "--num-cpus=1"]
        node = subprocess.Popen(
            ["ip", "netns", "exec", name, *ray, f"--node-ip-address={inside}", "--block"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(_end_tree, node)
        stack.callback(_ip, "link", "set", link, "up")
        wait_until(lambda: inside in _alive(made))
        yield lambda: _ip("link", "set", link, "down")


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _end_tree(process):
    for each in [*psutil.Process(process.pid).children(recursive=True), process]:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()


def _alive(made):
    """The addresses of nodes that are alive."""
    return [each["NodeManagerAddress"] for each in made.global_state.node_table() if each["Alive"]]


def fill(made):
    """Have two nodes that can train."""
    while len(made.worker_nodes) < 2:
        made.add_node(num_cpus=1)


def study_in(folder, hold=None):
    """A folder with the task's file; `hold`: width, lr and seed of the trial that waits."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.py").write_text(textwrap.dedent(TASK))
    if hold is not None:
        (folder / "hold").write_text(hold)
    return folder


def start_on(made, folder, *more):
    """The study as a process, trained by a cluster."""
    return start(["ablate", *STUDY, "engine=ray", f"engine.address={made.address}", *more], folder)


def held_trial(folder):
    """The folder of the trial that waits, once it does: with a state on disk from which it can go on."""
    found, asked = [], (folder / "hold").read_text()

    def waits():
        for trial, events in journals(folder).items():
            knobs = events[0].get("knobs", {})
            is_held = f"{knobs.get('width')} {knobs.get('lr')} {events[0].get('seed')}" == asked
            logs = [event for event in events if event["event"] == "log"]
            if is_held and len(logs) >= 2 and list(trial.glob("claim-*/state-*.pt")):
                found.append(trial)
        return bool(found)

    wait_until(waits)
    return found[0]


def process_of(trial):
    """The process that trains a trial on this machine."""
    return psutil.Process(int(holder(trial).process.split(":")[1]))


def trainer_of(trial):
    """The process that its journal says trains it."""
    began = [event for event in read_trial(trial) if event["event"] in ("started", "resumed")]
    return psutil.Process(int(began[-1]["process"].split(":")[1]))


def has_ended(process):
    """Whether a process has ended; nobody may have asked for its exit code."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def node_of(made, process):
    """The cluster's node that a process belongs to."""
    above = {each.pid for each in process.parents()}
    return next(
        node for node in made.worker_nodes if {each.process.pid for each in node.all_processes["raylet"]} & above
    )


def weights(folder):
    """Fingerprint → kind and digest of its best and last weights, as their names say."""
    return {
        trial.name: sorted(
            (name.partition("-")[0], name.rpartition("-")[2])
            for name in {path.name for path in trial.glob("claim-*/*.pt")}
        )
        for trial in folder.glob("runs/trials/*")
    }


def files(folder):
    """Fingerprint → the newest files of the function's own."""
    return {
        trial.name: {path.name: path.read_text() for path in max(trial.glob("claim-*/files")).glob("*")}
        for trial in folder.glob("runs/trials/*")
    }


def table(folder):
    """The results of a study, as its report has them, without what is of the clock."""
    (path,) = folder.glob("reports/*/results.csv")
    lines = [line.split(",") for line in path.read_text().splitlines()]
    timed = [number for number, name in enumerate(lines[0]) if "second" in name or "per_s" in name or "run" in name]
    return [[text for number, text in enumerate(line) if number not in timed] for line in lines]


def resumed_steps(trial):
    """The steps from which a trial went on."""
    return [event["step"] for event in read_trial(trial) if event["event"] == "resumed"]
