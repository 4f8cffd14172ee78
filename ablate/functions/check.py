"""The conformance check of a task: does it repeat, does it resume to the same bits, does each component matter?"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.functions import causes, watch
from ablate.functions.fresh import Server, write_job
from ablate.functions.watch import Seen
from ablate.knobs import KnobError, flat, knobs_of, plain, read_level
from ablate.registry import suggest
from ablate.train.machine import choose_device

if TYPE_CHECKING:
    from ablate.functions.task import FunctionTask

_MOST_STOPS = 8
_MOST_EPOCHS = 3
_EPOCHS = ("epochs", "n_epochs", "num_epochs", "max_epochs")


@dataclass
class Report:
    """What the check found.

    Attributes:
        failures: what does not hold, a sentence each, with its probable cause and a remedy.
        notes: what a reader should know besides.
    """

    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return not self.failures

    def __str__(self) -> str:
        lines = [*(f"FAILED  {line}" for line in self.failures), *(f"note    {line}" for line in self.notes)]
        return "\n".join([*lines, "the check passed" if self.ok else f"the check failed in {len(self.failures)} ways"])


def check(task: FunctionTask, *, seed: int = 0, say: Callable[[str], None] = print, **overrides: Any) -> Report:
    """Train a task in short, again and again, stopped and resumed, and report what does not hold.

    Epochs are cut to 3 where the config calls them `epochs`.

    Args:
        overrides: values of the config that make it short.
        say: takes lines of progress.

    Raises:
        KnobError: for values that the config refuses, and a task that no other process can import.
    """
    if not hasattr(task, "_configuration"):
        raise KnobError(
            f"{getattr(task, '__name__', repr(task))}: is no task; check takes a function under @ablate.task"
        )
    short = _short(task) if not set(_EPOCHS) & set(overrides) else {}
    if short:
        say(f"{_shown(short)}: shortened; give check(…, epochs=…) for another")
    config = task._configuration.of(short | overrides)
    task.check(config)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="ablate-check-") as folder, ExitStack() as stack:
        servers = [stack.enter_context(Server(hash_seed)) for hash_seed in (1, 2)]
        _Check(task, config, seed, Path(folder), servers, report, say).run()
    say(str(report))
    return report


def check_command(task: Any, arguments: Sequence[str]) -> int:
    """`python digits.py check=true [name=value …]`: returns the exit code.

    Raises:
        KnobError: for a task that is no function, and for what is neither a knob of its Config nor `seed`.
    """
    from ablate.functions.task import FunctionTask

    if not isinstance(task, FunctionTask):
        raise KnobError(f"check=true: checks a function of one's own, and {task.name} is none")
    values: dict[str, Any] = {}
    for argument in arguments:
        name, sign, text = argument.partition("=")
        if not sign or (name != "seed" and name not in knobs_of(task.Config)):
            known = ["seed", *knobs_of(task.Config)]
            own = task.function.__name__
            raise KnobError(f"check=true {argument}: takes seed and knobs of {own}{suggest(name, known)}")
        values[name] = read_level(text)
    seed = values.pop("seed", 0)
    if not isinstance(seed, int) or seed < 0:
        raise KnobError(f"seed={seed}: must be a whole number at least 0; for example 0")
    return 0 if check(task, seed=seed, **values).ok else 1


def _short(task: FunctionTask) -> dict[str, Any]:
    defaults = flat(task._configuration.of({}))
    return {
        name: _MOST_EPOCHS
        for name in _EPOCHS
        if isinstance(defaults.get(name), int)
        and defaults[name] > _MOST_EPOCHS
        and knobs_of(task.Config)[name][0].refusal(_MOST_EPOCHS) is None
    }


def _shown(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())


@dataclass
class _Check:
    task: FunctionTask
    config: Any
    seed: int
    folder: Path
    servers: Sequence[Server]
    report: Report
    say: Callable[[str], None]
    _jobs: int = 0

    def run(self) -> None:
        base = self._train("base")
        if base.error:
            return self.report.failures.append(f"it fails: {base.error}{causes.of_failure(base)}")
        self.say(f"one training takes {base.seconds:.1f} s; about {self._remaining(base)} more follow")
        self._result(base)
        self._repeats(base)
        self._other_trials(base)
        if base.saved_at:
            self._resumes(base)
        else:
            self.report.notes.append(causes.no_checkpoints(base))
        self._survives_kill(base)
        for name in self.task.components:
            self._component(name, base)
        return None

    def _remaining(self, base: Seen) -> int:
        return 5 + len(self.task.components)

    def _train(
        self,
        trial: str,
        config: Any = None,
        *,
        server: int = 0,
        resumes: bool = False,
        stop_after: int | None = None,
        first: Sequence[Any] = (),
        cwd: str = ".",
        kill_after: float | None = None,
    ) -> Seen:
        """Train in a fresh process; `trial` names its folder."""
        self._jobs += 1
        path = self.folder / f"{self._jobs}.json"
        write_job(
            path, reference=self.task.reference, values=plain(config or self.config), seed=self.seed,
            device=choose_device("auto").type, trial=trial, resumes=resumes, stop_after=stop_after, first=list(first),
            folder_of_process=str(Path(cwd).absolute()),
        )  # fmt: skip
        code = self.servers[server].run(path, kill_after)
        seen = watch.read(path)
        if not path.with_suffix(".pickle").exists():
            seen.error = f"the process ended with code {code}"
        return seen

    def _result(self, base: Seen) -> None:
        first = self.task.metrics[0].recorded
        logged = {name for _, values in base.logs for name in values}
        if base.status == "DIVERGED":
            self.report.failures.append(
                "the short configuration diverges: a number that it logs or returns is NaN or infinite; check a "
                "configuration that trains"
            )
        for metric in self.task.metrics:
            if f"valid_{metric.recorded}" not in logged:
                what = "selects the best weights and draws the curve" if metric.recorded == first else "has no curve"
                self.report.failures.append(
                    f"valid_{metric.recorded} is never logged, and it {what}; call run.log(valid_{metric.recorded}=…)"
                )
        self.report.failures += [causes.of_warning(line) for line in base.warnings]
        self.report.failures += [
            f"importing the file changes {effect}; put that below the guard, or into the function"
            for effect in base.effects
        ]

    def _repeats(self, base: Seen) -> None:
        self.say("repeated in a fresh process, from another working directory")
        again = self._train("again", server=1, cwd=str(self.folder))
        if again.data != base.data:
            self.report.failures.append(causes.OF_DATA)
        if again.sources != base.sources:
            self.report.failures.append(causes.of_sources(base, again))
        if difference := causes.difference(base, again, self.task.step):
            third = self._train("third")
            by_hash = causes.difference(base, third, self.task.step) is None
            self.report.failures.append(causes.of_repetition(difference, again, by_hash))

    def _other_trials(self, base: Seen) -> None:
        self.say("after a trial of another seed in the same process")
        used = self._train("used", first=[[plain(self.config), self.seed + 1]])
        other = watch.read(self.folder / f"{self._jobs}-first0.json")
        if not other.error and other.logs == base.logs and base.logs:
            self.report.failures.append(causes.OF_SEED)
        if difference := causes.difference(base, used, self.task.step):
            self.report.failures.append(causes.of_used_process(difference))

    def _resumes(self, base: Seen) -> None:
        """Stopped after checkpoint after checkpoint, the last included, each time resumed in a fresh process."""
        stops = _spread(len(base.saved_at))
        self.say(f"stopped after {len(stops)} of {len(base.saved_at)} checkpoints, resumed each time")
        done, place = 0, None
        for index, stop in enumerate([*stops, None]):
            seen = self._train(
                "resumed", server=index % 2, resumes=index > 0, stop_after=None if stop is None else stop - done
            )
            if place is not None and (seen.error or not seen.resumed_at or seen.resumed_at != place):
                return self.report.failures.append(causes.of_resume(seen, place, self.task.step))
            if seen.error:
                return self.report.failures.append(causes.of_resume(seen, 0, self.task.step))
            if stop is not None:
                done, place = stop, seen.saved_at[-1] if seen.saved_at else 0
        if difference := causes.difference(base, seen, self.task.step):
            self.report.failures.append(causes.of_resumed(difference, base))
        elif base.loaders:
            self.report.notes.append(causes.OF_PERSISTENT_WORKERS)
        return None

    def _survives_kill(self, base: Seen) -> None:
        self.say("killed at a random moment, and resumed")
        self._train("killed", kill_after=random.uniform(0.0, base.seconds))
        seen = self._train("killed", server=1, resumes=True)
        if seen.error:
            self.report.failures.append(f"after SIGKILL it fails: {seen.error}{causes.of_failure(seen)}")
        elif difference := causes.difference(base, seen, self.task.step):
            self.report.failures.append(causes.of_kill(difference, seen, base))

    def _component(self, name: str, base: Seen) -> None:
        declaration = self.task.components[name]
        off = declaration["off"] if isinstance(declaration, Mapping) else declaration
        self.say(f"without {name}: {off}")
        try:
            config = self._off(off)
        except KnobError as error:
            return self.report.failures.append(f"without {name} ({off}): {error}")
        if plain(config) == plain(self.config):
            return self.report.notes.append(f"{name} is off in this configuration already ({off})")
        seen = self._train(f"without-{name}", config)
        if seen.error:
            return self.report.failures.append(f"without {name} ({off}) it fails: {seen.error}")
        if seen.logs == base.logs and seen.result == base.result:
            return self.report.failures.append(causes.of_inert(name, off))
        if order := causes.order(name, off, base, seen):
            self.report.failures.append(order)
        if shared := causes.shared_initial_values(name, base, seen):
            self.report.notes.append(shared)
        return None

    def _off(self, off: str) -> Any:
        typed = [text.partition("=") for text in off.split()]
        values = flat(self.config) | {name: read_level(level) for name, _, level in typed}
        config = self.task._configuration.of(values)
        self.task.check(config)
        return config


def _spread(saves: int) -> list[int]:
    """Which checkpoints to stop after: all, or the first, the last and some between."""
    if saves <= _MOST_STOPS:
        return list(range(1, saves + 1))
    return sorted({1 + round(i * (saves - 1) / (_MOST_STOPS - 1)) for i in range(_MOST_STOPS)})
