"""What a user declares with @ablate.task, checked: every mistake is one line that says what to write instead."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.functions.digests import Data, paths_of
from ablate.functions.records import Configuration, level_problem
from ablate.knobs import KnobError, knobs_of
from ablate.launch import COMPONENT_PARTS
from ablate.metric import Metric, check_metrics
from ablate.registry import suggest

_METRIC = 'metric=ablate.Metric("error", better="lower", unit="%")'


def configuration(config: object) -> Configuration:
    """The records of a Config. Raises KnobError where @ablate.task was written without one."""
    if not isinstance(config, type):
        what = "the function" if inspect.isfunction(config) else repr(config)
        raise KnobError(
            f"@ablate.task: its first argument is a Config class, not {what}; @ablate.task(Config, {_METRIC})"
        )
    return Configuration(config)


def check_function(function: Callable[..., Any]) -> None:
    """Raise KnobError for what cannot be called as function(config, run)."""
    name = getattr(function, "__name__", repr(function))
    if not inspect.isfunction(function) or not name.isidentifier():
        raise KnobError(f"@ablate.task: {name} is no function; write it above def train(config, run)")
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        raise KnobError(f"{name}: a task returns its result; it may neither yield nor be async")
    try:
        inspect.signature(function).bind("config", "run")
    except TypeError:
        raise KnobError(
            f"{name}{inspect.signature(function)}: takes the configuration and the run; def {name}(config, run)"
        ) from None


def metrics(given: Any) -> tuple[Metric, ...]:
    """The metrics, the first of which is compared. Raises KnobError for none, for text, for two of one name."""
    if isinstance(given, str):
        raise KnobError(f'metric="{given}": is a text; write metric=ablate.Metric("{given}", better="lower")')
    found = (given,) if isinstance(given, Metric) else tuple(given or ())
    if not found:
        raise KnobError(f"@ablate.task: needs a metric, by which cells are compared; {_METRIC}")
    problems = []
    for metric in found:
        if not isinstance(metric, Metric):
            problems.append(f"metric={metric!r}: is no ablate.Metric; {_METRIC}")
            continue
        for name in {metric.name, metric.recorded}:
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                problems.append(
                    f"metric {name!r}: a name is of letters, digits and _, because it is logged as valid_<name>"
                )
    if not problems:
        names = [name for metric in found for name in sorted({metric.name, metric.recorded})]
        problems += [f"metric {name!r}: is declared twice; give each metric a name" for name in _twice(names)]
    if problems:
        raise KnobError(*problems)
    try:
        check_metrics(found)
    except ValueError as error:
        raise KnobError(str(error)) from error
    return found


def components(given: Any, config: type) -> dict[str, Any]:
    """The components. Raises KnobError where an off level sets no knob of the config."""
    if not isinstance(given, Mapping):
        raise KnobError(f'components={given!r}: is a dict, for example components={{"dropout": "dropout=0"}}')
    problems = [line for name, declaration in given.items() for line in _problems(name, declaration, config)]
    if problems:
        raise KnobError(*problems)
    return dict(given)


def _problems(name: str, declaration: Any, config: type) -> list[str]:
    where = f"components[{name!r}]"
    example = f'{{"{name}": "{next(iter(knobs_of(config)), "dropout")}=…"}}'
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name):
        return [f"{where}: a component's name is of letters, digits and _"]
    parts = declaration if isinstance(declaration, Mapping) else {"off": declaration}
    if extra := [str(part) for part in parts if part not in COMPONENT_PARTS]:
        return [f"{where}: {extra[0]} is none of {', '.join(COMPONENT_PARTS)}{suggest(extra[0], COMPONENT_PARTS)}"]
    off = parts.get("off")
    if not isinstance(off, str) or not off.strip():
        return [f"{where}: needs the override that switches it off, as text; for example components={example}"]
    return [f"{where}: {problem}" for each in off.split() if (problem := level_problem(config, each)) is not None]


def data(given: Any) -> Data:
    """Paths, or a function that returns a digest. Raises KnobError for anything else."""
    if given is None or callable(given):
        return given  # type: ignore[no-any-return]
    is_path = isinstance(given, (str, Path))
    if not is_path and not (isinstance(given, Sequence) and all(isinstance(each, (str, Path)) for each in given)):
        raise KnobError(f'data={given!r}: is a list of paths, data=["data/digits.csv"], or a function of the config')
    if not paths_of(given):
        raise KnobError("data=[]: names no file; leave data out where there is nothing to check")
    return given if is_path else list(given)


def _twice(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
