"""Packs on a Ray cluster: what each asks of a node, how many there is room for, and what becomes of them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from ablate.engines.assignment import Assignment
from ablate.engines.engine import Demand, Machine
from ablate.engines.ray.cluster import Cluster, Node
from ablate.engines.ray.keeper import Keeper
from ablate.engines.ray.node import Place, supervise
from ablate.engines.ray.pack import RayPack
from ablate.engines.ray.paths import portable
from ablate.engines.ray.survey import Survey
from ablate.knobs import KnobError, read
from ablate.launch import Launch, OnRay
from ablate.protocol import Task

_NO_NODE_SECONDS = 600.0  # in which there is no node that could train
_CLOSE_SECONDS = 15.0  # that what was killed may take to end
_OF_STUDY = ("ABLATE_DATA_DIR", "ABLATE_CACHE_DIR")  # variables that nodes have too


class RayEngine:
    """Implements `ablate.engines.engine.Engine`."""

    outlives_launch = False
    """See `Engine`, as for all below."""

    def __init__(self, launch: Launch, task: Task) -> None:
        assert isinstance(launch.engine, OnRay), "the preset says so"
        self._launch = launch
        self._task = task
        self._settings = launch.engine
        self._packs: list[RayPack] = []
        self._had_room = time.monotonic()

    @cached_property
    def machine(self) -> Machine:
        return self._survey.machine()

    def settle(self, configs: Sequence[Any]) -> list[Any]:
        return self._survey.settle(configs)

    def most(self, demand: Demand) -> int:
        if isinstance(self._launch.workers, int):
            return self._launch.workers
        return max(1, min(demand.packs, self._slots()))

    def begin(self, demand: Demand) -> None:
        self._had_room = time.monotonic()

    def room(self, left: int) -> int:
        slots = self._slots()
        if slots:
            self._had_room = time.monotonic()
        elif time.monotonic() - self._had_room > _NO_NODE_SECONDS:
            raise self._no_node()
        return min(slots, self._launch.workers) if isinstance(self._launch.workers, int) else slots

    def submit(self, pack: Sequence[Assignment]) -> RayPack:
        stream = self._supervise.remote([self._portable(each) for each in pack], self._place)
        submitted = RayPack(pack[0].launch, stream, self._cluster)
        self._packs = [each for each in self._packs if not each.is_settled] + [submitted]
        return submitted

    def wait(self, submitted: Sequence[Any], seconds: float) -> None:
        import ray

        self._cluster.look()
        for pack in self._packs:
            pack.force()
        if any(each.has_ended for each in submitted):
            return
        if submitted:
            ray.wait([each.stream for each in submitted], timeout=seconds, fetch_local=False)
        else:
            time.sleep(seconds)

    def parting(self, submitted: Sequence[Any]) -> str:
        return ""  # nothing outlives a launch

    def advice(self, demand: Demand) -> str | None:
        return None

    def close(self) -> None:
        if "_cluster" not in vars(self):
            return
        deadline = time.monotonic() + _CLOSE_SECONDS
        while not self._cluster.is_gone and time.monotonic() < deadline and self._are_ending():
            time.sleep(0.05)
        self._cluster.close()

    def _are_ending(self) -> bool:
        for pack in self._packs:
            pack.force()
        return not all(pack.has_ended for pack in self._packs)

    @cached_property
    def _cluster(self) -> Cluster:
        return Cluster(self._settings.address)

    @cached_property
    def _gpus(self) -> float:
        """GPUs of a pack. Raises KnobError where `device` and `engine.gpus` are at odds, or no node has any."""
        asked, device = self._settings.gpus, self._launch.device
        if asked and device == "cpu":
            raise KnobError(f"engine.gpus={asked:g}: device=cpu uses none; use device=cuda, or engine.gpus=0")
        if asked == 0 and device == "cuda":
            raise KnobError("engine.gpus=0: device=cuda needs one; use engine.gpus=1, or device=cpu")
        has_any = any(node.resources.get("GPU", 0) for node in self._cluster.nodes())
        if device == "cuda" and not has_any:
            raise KnobError(
                f"device=cuda: no node of the Ray cluster at {self._cluster.address} has a GPU; use device=cpu, or "
                "device=auto"
            )
        if asked is not None:
            return asked
        return 1.0 if has_any and device != "cpu" else 0.0

    @cached_property
    def _asked(self) -> Mapping[str, float]:
        """What a pack asks of a node, by Ray's names."""
        return {
            "CPU": self._settings.cpus or self._launch.threads or 1,
            "GPU": self._gpus,
            "memory": (self._settings.memory or 0.0) * 1e9,
        }

    def _slots(self) -> int:
        return sum(node.slots(self._asked) for node in self._cluster.nodes())

    @cached_property
    def _survey(self) -> Survey:
        return Survey(self._cluster, self._launch, self._task, self._place, self._gpus, self._able())

    def _able(self) -> Sequence[Node]:
        """The nodes that could train. Raises KnobError where there is none: Ray would wait for one without a word."""
        able = [node for node in self._cluster.nodes() if node.slots(self._asked)]
        if not able:
            raise self._no_node()
        return able

    def _no_node(self) -> KnobError:
        asked = [f"engine.cpus={self._asked['CPU']:g}"]
        asked += [f"engine.gpus={self._asked['GPU']:g}"] if self._asked["GPU"] else []
        asked += [f"engine.memory={self._settings.memory:g}"] if self._settings.memory else []
        have = "; ".join(f"{node.name} has {_in_words(node)}" for node in self._cluster.nodes())
        return KnobError(
            f"{' '.join(asked)}: no node of the Ray cluster at {self._cluster.address} has as much ({have}); ask for "
            f"less, or add a node: ray start --address={self._cluster.address}"
        )

    @cached_property
    def _place(self) -> Place:
        environment = {name: os.path.abspath(os.environ[name]) for name in _OF_STUDY if os.environ.get(name)}
        return Place(os.getcwd(), environment, self._task.leaves_no_trace, self._keeper)

    @cached_property
    def _keeper(self) -> Any:
        """The actor that keeps the runs folder; it ends with this process. None: nodes see the folder."""
        if self._settings.shared:
            return None
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._cluster.here, soft=False)
        remote = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0, max_concurrency=8)(Keeper)
        return remote.options(scheduling_strategy=here).remote()

    @cached_property
    def _supervise(self) -> Any:
        import ray

        return ray.remote(
            num_cpus=self._asked["CPU"],
            num_gpus=self._asked["GPU"],
            **({"memory": int(self._asked["memory"])} if self._asked["memory"] else {}),
            max_retries=0,  # the study submits again, once it knows whose fault it was
            num_returns="streaming",
            scheduling_strategy="SPREAD",
            name="ablate",
        )(supervise)

    def _portable(self, each: Assignment) -> Assignment:
        values = portable(read(self._task.Config, each.values))
        return replace(each, values=values, folder=each.folder.absolute())


def _in_words(node: Node) -> str:
    """For example: 8 CPUs, 1 GPU, 32 GB."""
    cpus, gpus = node.resources.get("CPU", 0), node.resources.get("GPU", 0)
    of_memory = node.resources.get("memory", 0) / 1e9
    return f"{cpus:g} CPUs, " + (f"{gpus:g} GPUs, " if gpus else "") + f"{of_memory:.0f} GB"
