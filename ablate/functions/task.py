"""The decorator that makes a task of a user's function."""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.functions import declared
from ablate.functions.digests import Data, digest_of, paths_of
from ablate.knobs import KnobError
from ablate.metric import Metric
from ablate.programs import end_in_a_line, shows_trace
from ablate.protocol import Estimates, Facts, Outcome, Payload, Sink, Trial

if TYPE_CHECKING:
    from ablate.functions.run import Run
    from ablate.functions.trained import Trained
    from ablate.train import Checkpoints

Function = Callable[[Any, "Run"], Mapping[str, Any]]


def task(
    config: type,
    *,
    components: Mapping[str, Any] | None = None,
    metric: Metric | Sequence[Metric] | None = None,
    data: Data = None,
    step: str = "epoch",
    unit: str = "",
) -> Callable[[Function], FunctionTask]:
    """Make a task of the function below: `function(config, run)`, which trains once and returns {"test_<metric>": x}.

    Args:
        config: a dataclass or a pydantic model; its fields are the knobs, each with a default. `seed` and `device` are
            set by the trial.
        components: name → the override that switches it off, "dropout=0", or {"off": …, "requires": …, "idle": …}.
        metric: one or several; the first is the one that is compared.
        data: files and folders, relative to the script, or a function of the config that returns `ablate.digest(…)`;
            None: the data is not checked.
        step: what one round of the loop is called; unit: what training reads, "images".

    Raises:
        KnobError: for a declaration that cannot be run, with a line for each problem.
    """
    given: Any = config
    if inspect.isfunction(given):  # @ablate.task without a call: no second call follows that could say so
        _declare(config, components or {}, metric, data, step, unit, config)
    return functools.partial(_declare, config, components or {}, metric, data, step, unit)


def _declare(*declaration: Any) -> FunctionTask:
    """A task; in the script that is run, what is wrong with it is said as `ablate.main` says it: in a line."""
    function = declaration[-1]
    in_script = getattr(function, "__module__", "") == "__main__"
    try:
        made = FunctionTask(*declaration)
    except KnobError as error:
        if not in_script or shows_trace():
            raise
        end_in_a_line("ablate", error)
    if in_script and os.path.abspath(sys.argv[0]) == str(made.file):
        atexit.register(_say_that_nothing_began, function.__name__)
    return made


# Whatever trains or checks a task, loads what it has trained or reads its results imports one of these.
_USES = {
    "ablate.cli", "ablate.session", "ablate.functions.check", "ablate.functions.fit", "ablate.track.read",
    "ablate.trained",
}  # fmt: skip


def _say_that_nothing_began(name: str) -> None:
    if not _USES & sys.modules.keys() and not hasattr(sys, "last_value"):  # the script ended in no error
        last = f'if __name__ == "__main__": ablate.main({name})'
        print(f"ablate: {sys.argv[0]}: nothing asked {name} to train; write at its end {last}", file=sys.stderr)


class FunctionTask:
    """A user's function as a task (`ablate.protocol.Task`); calling it calls the function.

    Attributes:
        function: as the user wrote it.
        file: where it was written.
    """

    def __init__(
        self,
        config: type,
        components: Mapping[str, Any],
        metric: Metric | Sequence[Metric] | None,
        data: Data,
        step: str,
        unit: str,
        function: Function,
    ) -> None:
        functools.update_wrapper(self, function)
        self._configuration = declared.configuration(config)
        declared.check_function(function)
        self.function = function
        self.file = Path(inspect.unwrap(function).__code__.co_filename).absolute()
        self.name = _name(self.file, function.__name__)
        self.Config = self._configuration.knobs
        self.metrics: Sequence[Metric] = declared.metrics(metric)
        self.components: Mapping[str, Any] = declared.components(components, self.Config)
        self.data = declared.data(data)
        self.step = step
        self.unit = unit
        self.budget: Sequence[str] = ()

    def __call__(self, config: Any, run: Run) -> Any:
        """The plain function."""
        return self.function(config, run)

    def __reduce__(self) -> tuple[Any, ...]:
        """Processes send each other its reference."""
        from ablate.functions.load import load_task

        return load_task, (self.reference,)

    @property
    def reference(self) -> str:
        """By which `load_task` finds it in another process: "/home/me/digits.py:train".

        Raises:
            KnobError: for a function that no other process can import.
        """
        own = self.function.__name__
        if not self.file.is_file():
            raise KnobError(
                f"{own}: a task is in a file, for other processes import it; in a notebook, write its cell with "
                f"%%writefile train.py, then: from train import {own}"
            )
        if "<locals>" in self.function.__qualname__:
            raise KnobError(f"{own}: a task is at the top level of its file; it is inside of another function")
        return f"{self.file.resolve()}:{own}"

    @property
    def leaves_no_trace(self) -> bool:
        """False: a function may set what the next one would find: a default type, an environment variable, a cache."""
        return False

    @property
    def folder(self) -> Path:
        """That of the script."""
        return self.file.parent

    @property
    def presets(self) -> Path | None:
        """The folder `conf/` beside the file, if there is one."""
        folder = self.file.parent / "conf"
        return folder if folder.is_dir() else None

    def configured(self, config: Any, seed: int, device: str) -> Any:
        """What the function gets: an instance of the user's class. Raises KnobError for values that it refuses."""
        return self._configuration.full(config, seed=seed, device=device)

    def run(self, seed: int = 0, folder: str | Path | None = None, **knobs: Any) -> dict[str, Any]:
        """Call the function and return its result, with nothing recorded: for tests and notebooks.

        Args:
            folder: `run.folder`; None: one that is removed at the end.
            knobs: values of the config; those of nested records as **{"optimizer.lr": 0.1}.

        Raises:
            KnobError: for values that the config refuses.
            Diverged: where a number that it logged was not finite.
        """
        from ablate.functions.fit import plain_call

        given: Any = seed  # of NumPy too
        if not isinstance(given, Integral) or given < 0:
            raise KnobError(f"seed={seed!r}: must be a whole number at least 0; for example 0")
        return plain_call(self, self._configuration.of(knobs), int(given), None if folder is None else Path(folder))

    def settle(self, config: Any, device: str) -> Any:
        """The configuration as it is. Raises KnobError within a process group of torchrun's."""
        from ablate.functions.fit import refuse_many_processes

        refuse_many_processes()
        return config

    def check(self, config: Any) -> None:
        """Raise KnobError where the user's class refuses a combination of values."""
        self.configured(config, 0, "cpu")

    def describe(self, config: Any) -> Facts:
        """The digest of the data. Raises KnobError where a file is missing."""
        digest = digest_of(self.data, self.configured(config, 0, "cpu"), self.file.parent)
        named = [] if self.data is None or callable(self.data) else paths_of(self.data)
        return Facts(data=", ".join(map(str, named)), digest=digest)

    def files(self, config: Any) -> Mapping[str, Path]:
        """The script with its package, and what of the user's own they import."""
        from ablate.functions.sources import files

        return files(self.file.resolve())

    def sources(self, config: Any) -> Mapping[str, str]:
        """SHA-256 of these files."""
        from ablate.functions.sources import sources

        return sources(self.file.resolve())

    def shape(self, config: Any) -> Hashable | None:
        """None: a function trains alone."""

    def bytes_of(self, config: Any, facts: Facts) -> float:
        """0: not known."""
        return 0.0

    def trial_facts(self, trial: Trial) -> Mapping[str, str]:
        """Nothing but what every trial records."""
        return {}

    def estimate(self, packs: Sequence[Sequence[Trial]]) -> Estimates | None:
        """None: only training tells."""

    def load(self, config: Any, weights: Payload) -> Trained:
        """What a finished trial has trained."""
        from ablate.functions.state import decode
        from ablate.functions.trained import Trained

        objects = {name: decode(kept) for name, kept in weights["objects"].items()}
        return Trained(self.configured(config, 0, "cpu"), objects)

    def fit(
        self,
        pack: Sequence[Trial],
        sinks: Sequence[Sink],
        checkpoints: Sequence[Checkpoints],
        states: Sequence[Payload] | None,
    ) -> list[Outcome]:
        """Train one trial, from the start or from what its checkpoint held."""
        from ablate.functions.fit import fit

        ((trial, sink, kept),) = zip(pack, sinks, checkpoints, strict=True)
        return [fit(self, trial, sink, kept, None if states is None else states[0])]


def _name(file: Path, function: str) -> str:
    """What its studies are called: by the file, and by the function where that says more than that it trains."""
    stem = re.sub(r"[^\w.-]", "_", file.stem) or function
    return stem if function in ("train", "main", "run", "fit") else f"{stem}.{function}"
