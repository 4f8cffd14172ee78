"""What every node is asked before anything trains: whether it is like this machine, and what it settles.

What runs on a node is asked in a process of its own, for it imports torch and looks at GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ablate.code import ABLATE, by_name, differing, digests, package_files
from ablate.engines.engine import Machine
from ablate.engines.ray.node import folder_there, missing, start_server
from ablate.engines.server import CONTEXT, end_with_parent
from ablate.knobs import KnobError, plain, read
from ablate.names import some

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Question:
    """What a node is asked for.

    Attributes:
        folder, environment: as `Place` has them.
        device: as `device=` says it; gpus: of a pack.
        task: what `load_task` finds it by.
        code: name → SHA-256 of ablate's own modules.
        seen: a file in the runs folder, and what is in it; None: the node need not see it.
    """

    folder: str
    environment: Mapping[str, str]
    device: str
    gpus: float
    task: str
    code: Mapping[str, str]
    seen: tuple[str, str] | None


@dataclass(frozen=True)
class Asked:
    """A configuration that a node settles.

    Attributes:
        values: of the configuration.
        code: which of `Settling.sources` it should have there.
        data: digest that its data should have; None: it cannot be used here, which the plan says.
    """

    values: Mapping[str, Any]
    code: int
    data: str | None


@dataclass(frozen=True)
class Settling:
    """Configurations that a node settles, and the code that they should have there."""

    asked: Sequence[Asked]
    sources: Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Settled:
    """What a node makes of a configuration: its values, or why it cannot have it."""

    values: Mapping[str, Any] = field(default_factory=dict)
    problems: Sequence[str] = ()


def versions_asker() -> Callable[[], Mapping[str, str]]:
    """A function that crosses by value: it runs where ablate is missing, or another one."""

    def versions() -> Mapping[str, str]:
        from importlib.metadata import PackageNotFoundError, version
        from platform import python_version

        found = {"Python": python_version()}
        for name in ("ray", "torch", "ablate-lm"):
            try:
                found[name] = version(name).partition("+")[0]  # for CUDA or without: the same torch
            except PackageNotFoundError:
                found[name] = ""
        return found

    return versions


def ablate_code() -> dict[str, str]:
    """Name → SHA-256 of ablate's own modules."""
    return digests(by_name({*package_files(ABLATE)}, ABLATE))


def ask_machine(question: Question) -> tuple[Machine, list[str]]:
    """A task of Ray's: what trains there, and why it cannot."""
    return in_child(question, _machine)


def ask_settled(question: Question, settling: Settling) -> list[Settled]:
    """A task of Ray's: what the node settles."""
    return in_child(question, _settled, settling)


def in_child(question: Question, ask: Callable[..., Answer], *more: Any) -> Answer:
    """What a function returns in a process of its own, as a worker's is."""
    start_server()
    with ProcessPoolExecutor(1, CONTEXT, end_with_parent) as pool:
        return pool.submit(_ask, question, missing(question.environment), ask, *more).result()


def _ask(question: Question, environment: Mapping[str, str], ask: Callable[..., Answer], *more: Any) -> Answer:
    os.environ.update(environment)
    if question.gpus and not os.environ.get("CUDA_VISIBLE_DEVICES", "-"):
        del os.environ["CUDA_VISIBLE_DEVICES"]  # Ray hides GPUs from a task that takes none
    if (folder := folder_there(question.folder)) is not None:
        os.chdir(folder)
    return ask(question, *more)


def _machine(question: Question) -> tuple[Machine, list[str]]:
    from ablate.engines.probe import this_machine

    problems = []
    if changed := differing(ablate_code(), question.code):
        problems.append(f"ablate has other code there ({some(changed, 3)}); install the same on all nodes")
    if question.seen is not None and not _sees(*question.seen):
        problems.append(
            f"runs={Path(question.seen[0]).parent}: it does not see this folder; name one that all nodes share, or add "
            "engine.shared=false"
        )
    try:
        machine = this_machine(question.device)
    except KnobError as error:
        return Machine("cpu"), [*problems, *error.problems]
    if question.gpus and machine.device != "cuda":
        problems.append("Ray has a GPU there, and torch sees none; use device=cpu")
    return machine, problems


def _sees(path: str, text: str) -> bool:
    try:
        return Path(path).read_text(encoding="utf-8") == text
    except OSError:
        return False


def _settled(question: Question, settling: Settling) -> list[Settled]:
    from ablate.engines.probe import settled
    from ablate.find_task import load_task

    try:
        task = load_task(question.task)
        configs = [read(task.Config, each.values) for each in settling.asked]
    except KnobError as error:
        return [Settled(problems=error.problems)] * len(settling.asked)
    found = settled(task, configs, question.device)
    return [
        Settled(problems=config.problems)
        if isinstance(config, KnobError)
        else Settled(plain(config), _differences(task, config, each, settling))
        for config, each in zip(found, settling.asked, strict=True)
    ]


def _differences(task: Any, config: Any, asked: Asked, settling: Settling) -> list[str]:
    """What of a configuration's code and data is other than on the study's machine."""
    problems = []
    if changed := differing(settling.sources[asked.code], task.sources(config)):
        problems.append(f"{task.name}: its code differs there ({some(changed, 3)}); have the same on all nodes")
    if asked.data is not None:
        try:
            facts = task.describe(config)
        except KnobError as error:
            return [*problems, *error.problems]
        if facts.digest != asked.data:
            problems.append(f"data={facts.data}: other data than here ({facts.digest[:12]}, here {asked.data[:12]})")
    return problems
