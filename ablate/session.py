"""A study from its jobs, or from Python: what a command line and a notebook have in common."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode

from ablate.address import without_secrets
from ablate.compose import compose_jobs, of_every_job, of_hydra, primary
from ablate.engines.server import warm_up
from ablate.find_task import DEFAULT
from ablate.knobs import KnobError
from ablate.mistakes import ONE_STUDY, composing, refuse_mistakes
from ablate.protocol import Task
from ablate.study.cells import Job
from ablate.study.jobs import make_study

if TYPE_CHECKING:
    from ablate.study.run import Ended


def run_jobs(jobs: Sequence[Job], program: Callable[[Task], str], typed: Sequence[str]) -> Ended:
    """Run jobs as one study.

    Args:
        program: task → what a user types to start it; typed: the arguments; both for the record.

    Raises:
        KnobError: before anything is trained, with everything that is wrong.
    """
    study = make_study(jobs)
    _check_folder("runs", Path(study.launch.runs))
    if study.launch.report:
        _check_folder("reports", Path(study.launch.reports))
    if not study.launch.plan:
        warm_up()
    # Heavy (torch): imported once the knobs are right and something is really run.
    from ablate.study.run import run_study

    return run_study(study, program(study.task), without_addresses(typed))


def _check_folder(name: str, folder: Path) -> None:
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise KnobError(f"{name}={folder}: {place} is a file, not a folder; name another place")


def without_addresses(arguments: Sequence[str]) -> str:
    """Arguments as a shell reads them, without a tracking URI, which may hold a password."""
    return shlex.join(
        "tracking.uri=***" if re.match(r"\+*tracking\.uri=", argument) else without_secrets(argument)
        for argument in arguments
    )


def run(task: Task, arguments: Sequence[str], presets: Path | None = None) -> Ended:
    """Run the study that arguments ask for, as a command line has them, in this process.

    Args:
        presets: a folder of presets besides the task's, as `--config-dir` names one.

    Raises:
        KnobError: before anything is trained, with everything that is wrong.
    """
    if odd := [argument for argument in arguments if not isinstance(argument, str)]:
        raise KnobError(f"{odd[0]!r}: every argument is a text, as in ablate.run('depth=1,2', 'seeds=3')")
    overrides = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    for word in overrides:
        if word.startswith("-"):
            raise KnobError(f"{word}: a flag of the command line; ablate.run takes knobs and presets alone")
        if word in _ELSEWHERE or word.startswith("task="):
            raise KnobError(f"{word}: {_ELSEWHERE.get(word, 'name it as ablate.run(…, task=…)')}")
    refuse_mistakes(task, overrides)
    return run_overrides(task, overrides, presets, command_of, overrides)


def run_overrides(
    task: Task,
    overrides: Sequence[str],
    presets: Path | None,
    program: Callable[[Task], str],
    typed: Sequence[str],
) -> Ended:
    """Compose the jobs that overrides ask for, and run them as one study. As `run_jobs`, and `run` above."""
    with composing(task), _without_hydra():
        return run_jobs(_jobs(task, overrides, presets), program, typed)


def command_of(task: Task) -> str:
    """The command that trains a task, wherever it was started from."""
    words = ["python", "-m", "ablate", *([] if task.reference == DEFAULT else [f"task={task.reference}"])]
    return shlex.join(words)


_ELSEWHERE = {"check=true": "ablate.check(train) does that from Python"}


@contextmanager
def _without_hydra() -> Iterator[None]:
    """Without the Hydra of whoever calls: a notebook or a program that has initialized it for itself."""
    theirs, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = theirs  # another instance, once a block of Hydra's has ended


def _jobs(task: Task, overrides: Sequence[str], presets: Path | None) -> list[Job]:
    # What hydra.main does, without its logging, its working folder, and a composition of its own to learn its mode.
    folder, name = primary(task)
    search_path = create_config_search_path(folder)
    if presets is not None:
        if not presets.is_dir():
            raise KnobError(f"--config-dir {presets}: no such folder")
        search_path.prepend("command-line", f"file://{presets.resolve()}", SearchPathQuery(provider="schema"))
    version.setbase("1.3")
    hydra = Hydra.create_main_hydra2("ablate", search_path)
    loader = hydra.config_loader
    for_hydra, typed = of_hydra(overrides)
    files = of_every_job(typed, loader, name)
    config = hydra.compose_config(name, [*for_hydra, *files], run_mode=RunMode.MULTIRUN, from_shell=False)
    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    sweeper: Any = Plugins.instance().instantiate_sweeper(
        config=config, hydra_context=context, task_function=lambda _: None
    )
    if not hasattr(sweeper, "cells"):
        raise KnobError(f"hydra/sweeper: {ONE_STUDY}")
    return compose_jobs(loader, config, sweeper.cells(typed))
