"""All nodes that could train are asked, and what they answer is held against this machine and each other."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ablate.code import code_digest
from ablate.engines.engine import Machine
from ablate.engines.ray.cluster import Cluster, Node
from ablate.engines.ray.node import Place
from ablate.engines.ray.paths import as_typed, portable
from ablate.engines.ray.probe import (
    Asked,
    Question,
    Settled,
    Settling,
    ablate_code,
    ask_machine,
    ask_settled,
    versions_asker,
)  # fmt: skip
from ablate.knobs import KnobError, flat, read
from ablate.launch import Launch
from ablate.names import some
from ablate.protocol import Task

_ANSWER_SECONDS = 180.0  # a node that is busy imports torch for half a minute
_MOST_TOLD = 3  # nodes of which a problem that they share is told


class Survey:
    """Asks nodes.

    Args:
        gpus: of a pack.
        nodes: those that could train.
    """

    def __init__(
        self, cluster: Cluster, launch: Launch, task: Task, place: Place, gpus: float, nodes: Sequence[Node]
    ) -> None:
        self._cluster = cluster
        self._launch = launch
        self._task = task
        self._place = place
        self._gpus = gpus
        self._nodes = nodes

    def machine(self) -> Machine:
        """What trains there. Raises KnobError where a node cannot train, or another than the others."""
        self._check_versions()
        with self._seen() as seen:
            answers = self._ask(ask_machine, self._question(seen))
        _refuse({name: problems for name, (_, problems) in answers.items()})
        machines = {name: machine for name, (machine, _) in answers.items()}
        (first, one), *others = machines.items()
        for name, other in others:
            if other.device != one.device:
                raise KnobError(
                    f"device={self._launch.device}: {one.device} on node {first}, {other.device} on node {name}; "
                    "use device=cpu, or engine.gpus=1 for nodes with a GPU alone"
                )
        return Machine(one.device, min(each.gpu_bytes for each in machines.values()) * min(1.0, self._gpus or 1.0))

    def settle(self, configs: Sequence[Any]) -> list[Any]:
        """Each configuration as all nodes settle it, or the KnobError that refuses it."""
        answers = self._ask(ask_settled, self._question(None), self._settling(configs))
        return [
            self._agreed(config, {name: settled[number] for name, settled in answers.items()})
            for number, config in enumerate(configs)
        ]

    def _settling(self, configs: Sequence[Any]) -> Settling:
        sources: dict[str, Mapping[str, str]] = {}
        asked = []
        for config in configs:
            own = self._task.sources(config)
            code = code_digest(own)
            sources.setdefault(code, own)
            asked.append(Asked(portable(config), list(sources).index(code), self._data_digest(config)))
        return Settling(asked, list(sources.values()))

    def _data_digest(self, config: Any) -> str | None:
        try:
            return self._task.describe(config).digest
        except KnobError:
            return None

    def _agreed(self, config: Any, settled: Mapping[str, Settled]) -> Any:
        try:
            _refuse({name: each.problems for name, each in settled.items()})
            found = {name: read(self._task.Config, as_typed(each.values, config)) for name, each in settled.items()}
            (first, one), *others = found.items()
            for name, other in others:
                _refuse_others(first, flat(one), name, flat(other))
        except KnobError as error:
            return error
        return one

    def _question(self, seen: tuple[str, str] | None) -> Question:
        return Question(
            folder=self._place.folder,
            environment=self._place.environment,
            device="cpu" if not self._gpus else self._launch.device,
            gpus=self._gpus,
            task=self._task.reference,
            code=ablate_code(),
            seen=seen,
        )

    @contextmanager
    def _seen(self) -> Iterator[tuple[str, str] | None]:
        """A file that nodes see where they see the runs folder; of a plan, which writes nothing, there is none."""
        if self._place.keeper is not None or self._launch.plan:
            yield None
            return
        runs, text = Path(self._launch.runs).absolute(), uuid.uuid4().hex
        runs.mkdir(parents=True, exist_ok=True)
        file = runs / f".seen-{text}"
        file.write_text(text, encoding="utf-8")
        try:
            yield str(file), text
        finally:
            with suppress(OSError):
                file.unlink()

    def _check_versions(self) -> None:
        versions = versions_asker()
        here = versions()
        problems = {}
        for name, there in self._ask(versions).items():
            other = [(what, here[what], there[what]) for what in here if here[what] != there[what]]
            problems[name] = [
                f"{what} {its or 'is missing'} there, {own} here; install the same on all nodes"
                for what, own, its in other
            ]
        _refuse(problems)

    def _ask(self, function: Any, *arguments: Any) -> dict[str, Any]:
        """Node → what it answers; a node that is lost meanwhile is left out."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remote = ray.remote(num_cpus=0, max_retries=0)(function)
        asked = {
            node.name if _is_unique(node, self._nodes) else f"{node.name} ({node.id[:6]})": remote.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
            ).remote(*arguments)
            for node in self._nodes
        }
        answers = {}
        for name, reference in asked.items():
            try:
                answers[name] = ray.get(reference, timeout=_ANSWER_SECONDS)
            except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
                continue
            except ray.exceptions.GetTimeoutError as error:
                raise KnobError(
                    f"node {name}: has given no answer for {_ANSWER_SECONDS:g} s; ray status shows it"
                ) from error
            except Exception as error:
                reason = " ".join(str(getattr(error, "cause", None) or error).split())
                raise KnobError(f"node {name}: cannot be asked ({reason[:300]})") from error
        if not answers:
            raise KnobError("engine=ray: all nodes were lost while they were asked; ray status shows them")
        return answers


def _is_unique(node: Node, nodes: Sequence[Node]) -> bool:
    return sum(each.name == node.name for each in nodes) == 1


def _refuse(problems: Mapping[str, Sequence[str]]) -> None:
    """Raise KnobError where a node has problems; what several have is told once."""
    nodes_of: dict[str, list[str]] = {}
    for node, of_node in problems.items():
        for problem in of_node:
            nodes_of.setdefault(problem, []).append(node)
    if nodes_of:
        raise KnobError(*(f"node {some(nodes, _MOST_TOLD)}: {problem}" for problem, nodes in nodes_of.items()))


def _refuse_others(first: str, one: Mapping[str, object], name: str, other: Mapping[str, object]) -> None:
    for knob, value in one.items():
        if other[knob] != value:
            raise KnobError(f"{knob}: {value} on node {first}, {other[knob]} on node {name}; say which, {knob}={value}")
