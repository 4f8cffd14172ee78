"""python -m ablate: compose, check, run. The only place that knows Hydra's configs."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import ablate
from ablate.config import DATA, KnobError, describe_knobs, knob_names, unknown_name
from ablate.registry import suggest
from ablate.study.cells import Job, make_study
from ablate.study.server import warm_up

_USER_ERROR = 2


def _environment(knobs: DictConfig) -> dict[str, str]:
    """The environment variables that a config refers to, which may hold secrets, and their values."""
    names = re.findall(r"\$\{\s*oc\.env\s*:\s*(\w+)", str(OmegaConf.to_container(knobs)))
    return {name: os.environ.get(name, "") for name in names}


class Stopped(KeyboardInterrupt):
    """A signal asked the study to stop: Ctrl-C, a terminal that was closed, a machine that shuts down."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _stop(number: int, frame: object) -> None:
    raise Stopped(number)


def conf_folder() -> Path:
    """conf/ of the checkout, or the copy inside an installed wheel."""
    package = Path(ablate.__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
def _compose_and_run(config: DictConfig) -> None:
    # With another launcher than ours (or hydra.mode=RUN) every job is a study of its own.
    code = run_jobs([_job(tuple(HydraConfig.get().overrides.task), _knobs(config))])
    if code != 0:
        raise RuntimeError(f"the study ended with exit code {code}")


def run_jobs(jobs: Sequence[Job]) -> int:
    """Run jobs as one study and return its exit code."""
    study = make_study(jobs)
    if not study.cells[0].knobs.plan:
        warm_up()
    # Heavy (torch): imported once the knobs are right and something is really run.
    from ablate.study.run import run_study

    return run_study(study)


def compose_jobs(loader: ConfigLoader, config: DictConfig, job_overrides: Sequence[Sequence[str]]) -> list[Job]:
    """Every job composed. Those that differ in values alone are composed by Hydra once, then copied: 4 ms, not 100."""
    composed: dict[tuple[str, ...], DictConfig] = {}
    jobs = []
    for texts in job_overrides:
        overrides = [_parsed(text) for text in texts]
        shape = tuple(
            text if _is_structure(o, loader) else str(o.key_or_group) for text, o in zip(texts, overrides, strict=True)
        )
        if shape not in composed:
            composed[shape] = _knobs(loader.load_sweep_config(config, list(texts)))
        knobs = deepcopy(composed[shape])
        for override in overrides:
            if not _is_structure(override, loader):  # as Hydra itself sets it
                OmegaConf.update(knobs, override.key_or_group, override.value(), merge=True, force_add=True)
        jobs.append(_job(tuple(texts), knobs))
    return jobs


@cache
def _parsed(text: str) -> Override:
    return OverridesParser.create().parse_override(text)


def _is_structure(override: Override, loader: ConfigLoader) -> bool:
    """Whether it chooses files, or takes a knob away: more than a value."""
    return override.is_delete() or override.package is not None or _is_group(override.key_or_group, loader)


@cache
def _is_group(name: str, loader: ConfigLoader) -> bool:
    return "/" in name or bool(loader.get_group_options(name))


def _job(overrides: tuple[str, ...], knobs: DictConfig) -> Job:
    return Job(overrides, _resolved(knobs), _environment(knobs))


def _knobs(config: DictConfig) -> DictConfig:
    """A config without Hydra's own part."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def plain(config: DictConfig) -> dict[str, Any]:
    """The values that a config resolves to, without Hydra's own."""
    return _resolved(_knobs(config))


def _resolved(knobs: DictConfig) -> dict[str, Any]:
    values = OmegaConf.to_container(knobs, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def main() -> None:
    """Run the command line; a user's mistake ends in one line and exit code 2, a signal in 128 + its number."""
    show_trace = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    # Hydra then raises instead of printing, and the message below is the only one.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_DFL:  # not under nohup
            signal.signal(getattr(signal, name), _stop)
    OmegaConf.register_new_resolver("describe_knobs", describe_knobs, replace=True)
    try:
        _check_names(sys.argv[1:])
        sys.argv[1:] = sorted(sys.argv[1:], key=_is_override)  # Hydra's parser wants the flags first
        _compose_and_run()
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (KnobError, HydraException, OmegaConfBaseException) as error:
        if show_trace:
            raise
        problems = error.problems if isinstance(error, KnobError) else (_in_one_line(error),)
        for problem in problems:
            print(f"ablate: {problem}", file=sys.stderr)
        sys.exit(_USER_ERROR)
    except OSError as error:  # a folder that cannot be written, a full disk
        if show_trace:
            raise
        print(f"ablate: {error}", file=sys.stderr)
        sys.exit(_USER_ERROR)
    except KeyboardInterrupt as error:
        print("ablate: stopped; the same command goes on with what is not finished", file=sys.stderr)
        sys.exit(128 + (error.number if isinstance(error, Stopped) else signal.SIGINT))


def _is_override(argument: str) -> bool:
    return "=" in argument and not argument.startswith("-")


def _check_names(arguments: Sequence[str]) -> None:
    """Refuse an override of a knob that does not exist, with the nearest one that does."""
    problems = []
    for text in filter(_is_override, arguments):
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            problems.append(f"{text}: cannot be read, {str(error).splitlines()[0]}; {_how_to_quote(text)}")
            continue
        if override.type is not OverrideType.CHANGE:
            continue  # what is added may be a group of the user's own; `parse` refuses an added knob
        if (refusal := unknown_name(str(override.key_or_group))) is not None:
            problems.append(f"{override.input_line}: {refusal}")
    if problems:
        raise KnobError(*problems)


def _how_to_quote(text: str) -> str:
    """A condition, a cell or a component without quotes of its own, and with them."""
    key, _, value = text.partition("=")
    if key.startswith("+components."):
        return f"""quote it twice, '{key}="{value}"'"""
    if key not in ("design.exclude", "design.cells"):
        return "quote it if it holds brackets"
    items = ",".join(f'"{item.strip()}"' for item in value.strip("[]").split(","))
    return f"quote it twice, '{key}=[{items}]'"


def _in_one_line(error: Exception) -> str:
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, name = error.missing_cfg_file.rpartition("/")
        near = f"; several go without quotes, -m {group}={name}" if "," in name else suggest(name, error.options)
        return f"{group}={name}: no such preset{near}; choose from {', '.join(error.options)}"
    if of_data := re.match(r"Could not override 'data\.(\w+)'", str(error)):
        having = [f"data={name}" for name, record in DATA.items() if of_data[1] in knob_names(record)]
        return f"data.{of_data[1]}: a knob of {', '.join(having)}, not of the data chosen here; add {having[0]}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and str(cause).splitlines()[0] not in lines:
        lines.append(str(cause).splitlines()[0])
    return "; ".join(line for line in lines if not line.startswith(("full_key", "object_type", "reference_type")))


if __name__ == "__main__":
    main()
