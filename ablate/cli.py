"""The command line: compose, check, run. One road for `python -m ablate` and for a file of one's own."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from ablate.compose import presets_of_every_launch, primary, values_to_show
from ablate.find_task import DEFAULT, load_task
from ablate.knobs import KnobError
from ablate.mistakes import ONE_CELL, TRAINS_NOTHING, composing, is_override, refuse_mistakes
from ablate.programs import as_program
from ablate.protocol import Task
from ablate.session import command_of, run_overrides
from ablate.study.records import describe_knobs


class Stopped(KeyboardInterrupt):
    """A signal asked the study to stop: Ctrl-C, a terminal that was closed, a machine that shuts down."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def main() -> None:
    """`python -m ablate [task=TASK] …`."""
    _guarded(_run_named)


def main_of_task(task: Task) -> None:
    """`python my_file.py …`: the command line of a task of one's own, as `ablate.main(train)` calls it."""
    _guarded(lambda: _run(_checked(task), sys.argv[1:]))


def _checked(task: Task) -> Task:
    if isinstance(getattr(task, "Config", None), type):
        return task
    name = getattr(task, "__name__", "train")
    raise KnobError(
        f"ablate.main({name if callable(task) else repr(task)}): is no task; write @ablate.task(Config, metric=…) "
        f"above def {name}(config, run), and ablate.main({name})"
    )


def _run_named() -> None:
    arguments = sys.argv[1:]
    named = [argument.partition("=")[2] for argument in arguments if argument.startswith("task=")]
    if len({*named}) > 1 or any("," in name for name in named):
        raise KnobError(f"task={','.join(named)}: a study has one task; start one study for each")
    others = [argument for argument in arguments if not argument.startswith("task=")]
    _run(load_task(named[0] if named else DEFAULT), others)


def _run(task: Task, arguments: Sequence[str]) -> None:
    OmegaConf.register_new_resolver("describe_knobs", lambda *, _root_: _knobs_for_help(task, _root_), replace=True)
    OmegaConf.register_new_resolver("program", lambda: program(task), replace=True)
    OmegaConf.register_new_resolver("presets", presets_of_every_launch, replace=True)
    refuse_mistakes(task, arguments)
    if checks := [argument for argument in arguments if _asks_for_check(argument)]:
        from ablate.functions.check import check_command

        sys.exit(check_command(task, [argument for argument in arguments if argument not in checks]))
    presets, others = _own_flags(arguments)
    if any(word.startswith("-") for word in others):
        _show(task, arguments)
    elif code := run_overrides(task, others, presets, program, arguments).code:
        sys.exit(code)


def _own_flags(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The folder of presets that is named, and what is left of the arguments; -m changes nothing here."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-cd", "--config-dir", type=Path)
    parser.add_argument("-m", "--multirun", action="store_true")
    try:
        found, others = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise KnobError(f"--config-dir: {error.message}; name a folder of presets") from error
    return found.config_dir, others


def _show(task: Task, arguments: Sequence[str]) -> None:
    """What flags of Hydra's ask for: the help, a cell's configuration."""
    # Hydra's parser wants the flags first.
    sys.argv[1:] = sorted(arguments, key=is_override)
    folder, name = primary(task)
    try:
        with composing(task):
            hydra.main(version_base="1.3", config_path=folder, config_name=name)(_trains_nothing)()
    except KnobError:
        raise
    except ValueError as error:
        if not str(error).startswith("Only one of --run"):
            raise KnobError(str(error)) from error
        raise KnobError(f"one of --run, --multirun, --cfg and --info at a time; --cfg {ONE_CELL}") from error


def _knobs_for_help(task: Task, config: DictConfig) -> str:
    # Hydra reads the help as a template, in which $ has a meaning.
    width = shutil.get_terminal_size().columns
    return describe_knobs(task, values_to_show(config), width).replace("$", "$$")


def _trains_nothing(config: DictConfig) -> None:
    # Hydra calls this where its flags ask for a run.
    raise KnobError(TRAINS_NOTHING)


def program(task: Task) -> str:
    """What a user types to start it: "python -m ablate", "python digits.py"."""
    file = task.reference.partition(":")[0]
    if os.path.abspath(sys.argv[0]) == file:
        return shlex.join(["python", sys.argv[0]])
    return command_of(task)


def _asks_for_check(argument: str) -> bool:
    name, _, value = argument.partition("=")
    return name == "check" and value.lower() == "true"


def _stop(number: int, frame: object) -> None:
    raise Stopped(number)


def _guarded(run: Callable[[], None]) -> None:
    """A signal ends it in 128 + its number."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_DFL:  # not under nohup
            signal.signal(getattr(signal, name), _stop)
    with as_program("ablate"):
        # Hydra then raises instead of printing, and what as_program says is the only message.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        try:
            run()
        except KeyboardInterrupt as error:
            print("ablate: stopped; the same command goes on with what is not finished", file=sys.stderr)
            sys.exit(128 + (error.number if isinstance(error, Stopped) else signal.SIGINT))
