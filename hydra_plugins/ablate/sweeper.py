"""Turns a command line into the cells of its design. What is heavy is imported then."""

# No `from __future__ import annotations` here: Hydra executes plug-ins outside sys.modules, where a dataclass
# cannot look up annotations that are strings.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class StudySweeperConf:
    """Config of `hydra/sweeper=study`; `params` are those of Hydra's basic sweeper."""

    _target_: str = "hydra_plugins.ablate.sweeper.StudySweeper"
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="study", node=StudySweeperConf, provider="ablate")


class StudySweeper(Sweeper):
    """A job for every cell of the design; `ablate.session` runs them as one study."""

    def __init__(self, params: Mapping[str, str] | None) -> None:
        self._params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self._loader = hydra_context.config_loader
        self._config = config

    def sweep(self, arguments: list[str]) -> None:
        """Called by Hydra where its flags ask for a run."""
        from ablate.mistakes import TRAINS_NOTHING

        raise HydraException(TRAINS_NOTHING)

    def cells(self, arguments: list[str]) -> Any:
        """The cells that overrides ask for, each as `ablate.study.designs.jobs` gives it."""
        from ablate.find_task import load_task
        from ablate.study.designs import jobs
        from ablate.study.records import space

        typed = self._typed([*(f"{key}={value}" for key, value in self._params.items()), *arguments])
        return jobs(typed, space(load_task(str(self._config.task)), self._compose))

    def _typed(self, overrides: list[str]) -> Any:
        from ablate.study.designs import Typed

        levels: dict[str, Sequence[str]] = {}
        factors: dict[str, None] = {}
        for override in OverridesParser.create(config_loader=self._loader).parse_overrides(overrides):
            key = override.get_key_element()
            if not override.is_sweep_override():
                factors.pop(key, None)
                levels[key] = [override.get_value_element_as_str()]
                continue
            if not override.is_discrete_sweep():
                raise HydraException(f"{override.input_line}: an interval has no levels; list them with commas")
            levels[key] = list(override.sweep_string_iterator())
            if not levels[key]:
                raise HydraException(f"{override.input_line}: names no level; list them with commas")
            factors[key] = None
        designs = levels.pop("design") if "design" in factors else ()
        return Typed(levels, [key for key in factors if key != "design"], designs)

    def _compose(self, overrides: Sequence[str]) -> Mapping[str, Any]:
        from ablate.compose import composed, plain_values

        return plain_values(composed(self._loader, self._config, overrides))
