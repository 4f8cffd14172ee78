"""Command lines → the jobs of a study: what Hydra composes, as plain values. The only place that sees its configs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from ablate.find_task import is_function, load_task
from ablate.knobs import KnobError, fields_of, nested_records, plain, read
from ablate.launch import Launch
from ablate.protocol import Task
from ablate.study.cells import Job
from ablate.study.designs import Asked
from ablate.study.records import OF_THE_DESIGN

# What the primary config of every task chooses; the language model's is conf/config.yaml.
_DEFAULTS = [
    "launch",
    {"tracking": "local"},
    {"engine": "local"},
    {"design": "grid"},
    "_self_",
    {"override hydra/sweeper": "study"},
    {"override hydra/job_logging": "none"},
    {"override hydra/hydra_logging": "none"},
]


def primary(task: Task) -> tuple[str, str]:
    """Folder and name of a task's primary config; that of a function is made of its configuration's defaults."""
    if task.presets is not None and not is_function(task.reference):
        return str(task.presets), "config"
    search = [] if task.presets is None else [f"file://{task.presets}"]
    node = {
        "defaults": _DEFAULTS,
        "hydra": {"searchpath": search},
        **plain(read(task.Config, {})),
        "components": dict(task.components),
        "task": task.reference,
    }
    ConfigStore.instance().store(name="function", node=node, provider="ablate")
    return str(files("ablate") / "conf"), "function"


def presets_of_every_launch() -> str:
    """The groups that Hydra's own help does not see, as it lists groups: "design: cells, grid, …"."""
    groups = sorted(folder for folder in Path(str(files("ablate") / "conf")).iterdir() if folder.is_dir())
    names = {group.name: sorted(path.stem for path in group.glob("*.yaml")) for group in groups}
    return "\n".join(f"{name}: {', '.join(choices)}" for name, choices in names.items() if choices)


def compose_jobs(
    loader: ConfigLoader, config: DictConfig, asked: Sequence[tuple[Sequence[str], Asked | None]]
) -> list[Job]:
    """Every job composed. `asked`: overrides, and what the design says of that cell."""
    return [_job(tuple(texts), composed(loader, config, texts), of_design) for texts, of_design in asked]


def composed(loader: ConfigLoader, config: DictConfig, texts: Sequence[str]) -> DictConfig:
    """The knobs that overrides compose to.

    Hydra composes the files that they choose, once for all jobs; each job's values are set in a copy, 4 ms, not 100.

    Args:
        config: what the overrides `of_hydra` and those `of_every_job` compose to.
    """
    name = str(config.hydra.job.config_name)
    choices = [text for text in texts if _chooses_files(text, loader, name)]
    knobs = deepcopy(_files(loader, config, choices))
    OmegaConf.set_struct(knobs, True)
    try:
        for text in texts:
            if text not in choices:
                _set(knobs, parsed(text))
    except OmegaConfBaseException:
        return _knobs(loader.load_sweep_config(config, list(texts)))  # Hydra says what is wrong
    return knobs


def of_hydra(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides of Hydra's own config, and the others."""
    own = [text for text in overrides if parsed(text).is_hydra_override()]
    return own, [text for text in overrides if text not in own]


def of_every_job(overrides: Sequence[str], loader: ConfigLoader, primary_name: str) -> list[str]:
    """The overrides that choose the same files for every job."""
    choices = [text for text in overrides if not parsed(text).is_sweep_override()]
    return [text for text in choices if _chooses_files(text, loader, primary_name)]


def _set(knobs: DictConfig, override: Override) -> None:
    """Set a value as Hydra itself sets it: what is there, or with + what is not. Raises OmegaConfBaseException."""
    key, value = override.key_or_group, override.value()
    if override.is_add() and not isinstance(value, list) and OmegaConf.select(knobs, key) is not None:
        raise ConfigKeyError(f"{key} is there already")
    OmegaConf.update(knobs, key, value, merge=True, force_add=override.is_add() or override.is_force_add())


def _files(loader: ConfigLoader, config: DictConfig, texts: Sequence[str]) -> DictConfig:
    known = _composed_files(loader)
    key = (str(config.hydra.job.config_name), *config.hydra.overrides.hydra, *texts)
    if key not in known:
        is_composed = list(texts) == OmegaConf.to_container(config.hydra.overrides.task)
        try:
            knobs = _knobs(config if is_composed else loader.load_sweep_config(config, list(texts)))
        except (HydraException, OmegaConfBaseException):
            for chosen in filter(lambda each: not each.is_delete(), map(parsed, texts)):
                _refuse_without_header(loader, load_task(str(config.task)), chosen)
            raise
        for text in texts:
            _check_package(loader, knobs, parsed(text))
        known[key] = knobs
    return known[key]


@cache
def _composed_files(loader: ConfigLoader) -> dict[tuple[str, ...], DictConfig]:
    # What Hydra has composed, by what chose its files: a design asks for what its cells ask for again.
    return {}


_GLOBAL = "# @package _global_"


def _check_package(loader: ConfigLoader, knobs: DictConfig, chosen: Override) -> None:
    """Raise KnobError for a preset of the user's own that does not say where its knobs belong, and so sets none."""
    group = str(chosen.key_or_group)
    placed = None if chosen.is_delete() else OmegaConf.select(knobs, group.replace("/", "."))
    if not isinstance(chosen.value(), dict) and isinstance(placed, DictConfig):
        _refuse_without_header(loader, load_task(str(knobs.task)), chosen, "its file")


def _refuse_without_header(loader: ConfigLoader, task: Task, chosen: Override, file: str | None = None) -> None:
    """Raise KnobError where a chosen preset has no header; `file`: what it is called where it is not found."""
    group, value = str(chosen.key_or_group), chosen.value()
    nested = [name for name, field in fields_of(task.Config).items() if nested_records(field)]
    if group.partition("/")[0] in (*nested, *fields_of(Launch), *OF_THE_DESIGN, "hydra"):
        return
    places = [Path(str(each.path).removeprefix("file://")) for each in loader.get_search_path().get_path()]
    names = [str(name).removesuffix(".yaml") for name in (value if isinstance(value, list) else [value])]
    found = [place / group / f"{name}.yaml" for place in (*places, task.presets) if place for name in names]
    lacking = next((path for path in found if path.is_file() and _GLOBAL not in path.read_text("utf-8")), file)
    if lacking is not None:
        what = f"its knobs are read as knobs of {group!r}; let {lacking} begin with {_GLOBAL!r}"
        raise KnobError(f"{group}={value}: {what}")


@cache
def parsed(text: str) -> Override:
    """An override as Hydra reads it."""
    return OverridesParser.create().parse_override(text)


def _chooses_files(text: str, loader: ConfigLoader, primary_name: str) -> bool:
    """Whether an override chooses files, takes a knob away, or gives several at once: more than a value."""
    override = parsed(text)
    if override.is_delete() or override.package is not None or isinstance(override.value(), dict):
        return True
    return _is_group(override.key_or_group, loader, primary_name)


def _is_group(name: str, loader: ConfigLoader, primary_name: str) -> bool:
    return "/" in name or name in _groups(loader, primary_name)


@cache
def _groups(loader: ConfigLoader, primary_name: str) -> frozenset[str]:
    # With the primary config, for that says where else to look. Hydra reads its files again at each question: 20 ms.
    return frozenset(loader.get_group_options("", ObjectType.GROUP, config_name=primary_name))


def _job(overrides: tuple[str, ...], knobs: DictConfig, asked: Asked | None) -> Job:
    return Job(overrides, _resolved(knobs), asked, _environment(knobs))


def plain_values(config: DictConfig) -> dict[str, Any]:
    """The values that a config resolves to, without Hydra's own."""
    return _resolved(_knobs(config))


def values_to_show(config: DictConfig) -> dict[str, Any]:
    """What knobs are set to, for help: as written where a value is from the environment or cannot be resolved."""
    knobs = _knobs(config)
    if not _environment(knobs):
        with suppress(OmegaConfBaseException):
            return _resolved(knobs)
    written = OmegaConf.to_container(knobs)
    assert isinstance(written, dict)
    return {str(key): value for key, value in written.items()}


def _knobs(config: DictConfig) -> DictConfig:
    """A config without Hydra's own part."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def _environment(knobs: DictConfig) -> dict[str, str]:
    """The environment variables that a config refers to, which may hold secrets, and their values."""
    names = re.findall(r"\$\{\s*oc\.env\s*:\s*(\w+)", str(OmegaConf.to_container(knobs)))
    return {name: os.environ.get(name, "") for name in names}


def _resolved(knobs: DictConfig) -> dict[str, Any]:
    values = OmegaConf.to_container(knobs, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def values_of(task: Task, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The values that overrides of a task's primary config resolve to, outside a command line."""
    folder, name = primary(task)
    with initialize_config_dir(folder, version_base="1.3"):
        return plain_values(compose(name, overrides=list(overrides)))
