"""Turns a command line into the cells of its design. What it does is in ablate.study.designs."""

# No `from __future__ import annotations` here: see launcher.py.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

_OURS = "hydra_plugins.ablate.launcher.PoolLauncher"


@dataclass
class StudySweeperConf:
    """Config of `hydra/sweeper=study`; `params` and `max_batch_size` are those of Hydra's basic sweeper."""

    _target_: str = "hydra_plugins.ablate.sweeper.StudySweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="study", node=StudySweeperConf, provider="ablate")


class StudySweeper(Sweeper):
    """Hands the launcher a job for every cell of the design: of Hydra's own grid, or of another."""

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None) -> None:
        self._max_batch_size = max_batch_size
        self._params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.hydra_context = hydra_context  # these two are what validate_batch_is_legal reads
        self.config = config
        self._loader = hydra_context.config_loader
        self._config = config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Called by Hydra, with the command line's overrides."""
        from ablate.study.designs import jobs
        from ablate.study.records import space
        from ablate.study.tasks import load_task

        typed = self._typed([*(f"{key}={value}" for key, value in self._params.items()), *arguments])
        found = jobs(typed, space(load_task(str(self._config.task)), self._compose))
        size = self._max_batch_size or len(found)
        returns = []
        for first in range(0, len(found), size):
            batch = found[first : first + size]
            if self._config.hydra.launcher._target_ != _OURS:  # ours composes all before the first is trained
                self.validate_batch_is_legal(batch)
            results = self._launcher.launch(batch, initial_job_idx=first)
            for result in results:
                _ = result.return_value  # raises what the job has raised
            returns.append(results)
        return returns

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
            factors[key] = None
        designs = levels.pop("design") if "design" in factors else ()
        return Typed(levels, [key for key in factors if key != "design"], designs)

    def _compose(self, overrides: Sequence[str]) -> Mapping[str, Any]:
        from ablate.compose import composed, plain_values

        return plain_values(composed(self._loader, self._config, overrides))
