"""Hands all jobs of a multirun to ablate as one study. What is heavy is imported when a study is launched."""

# No `from __future__ import annotations` here: Hydra executes plug-ins outside sys.modules, where a dataclass
# cannot look up annotations that are strings.

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class PoolLauncherConf:
    """Config of `hydra/launcher=pool`."""

    _target_: str = "hydra_plugins.ablate.launcher.PoolLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="pool", node=PoolLauncherConf, provider="ablate")


class PoolLauncher(Launcher):
    """Composes every job, then runs them as one study: all are checked before the first is trained."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self._context = hydra_context
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the study; leaves with its exit code when something has no result."""
        from ablate.cli import run_together

        # Hydra's basic sweeper has written the overrides down there, a tracking URI's password too.
        written = Path(self._config.hydra.sweep.dir, "multirun.yaml")
        if written.is_file():
            written.unlink()
        code = run_together(self._context.config_loader, self._config, job_overrides)
        if code != 0:
            raise SystemExit(code)
        return [JobReturn(status=JobStatus.COMPLETED) for _ in job_overrides]
