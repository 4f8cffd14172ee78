"""One trial of a function: what is prepared for it, how it ends, and what of its result is recorded."""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.disk import replacing
from ablate.functions.ending import Stopped
from ablate.functions.examples import numbers_by_example
from ablate.functions.measured import number_of
from ablate.functions.run import SAVE_SECONDS, Run
from ablate.functions.state import RunError
from ablate.functions.streams import seed_all
from ablate.knobs import KnobError, plain
from ablate.metric import Metric
from ablate.protocol import Blocks, Outcome, Payload, Sink, Trial
from ablate.train.checkpoint import FILES
from ablate.train.examples import save_examples
from ablate.train.machine import choose_device

if TYPE_CHECKING:
    from ablate.functions.task import FunctionTask
    from ablate.train import Checkpoints


class Diverged(ArithmeticError):
    """A number that a function logged in a plain call was not finite."""


class Memory:
    """Keeps the best weights of a plain call, which is never resumed."""

    def __init__(self) -> None:
        self._best: Payload = {}

    def save(self, window: int, state: Payload) -> None:
        """Nothing."""

    def save_best(self, window: int, weights: Payload) -> None:
        """Keep them."""
        self._best = weights

    def save_last(self, window: int, weights: Payload) -> None:
        """Nothing."""

    def best(self, window: int) -> Payload:
        """What was kept."""
        return self._best


def fit(
    task: FunctionTask,
    trial: Trial,
    sink: Sink,
    kept: Checkpoints,
    state: Payload | None,
    *,
    kind: type[Run] = Run,
    save_seconds: float = SAVE_SECONDS,
) -> Outcome:
    """Train one trial, from the start or from a checkpoint's state."""
    files = kept.folder / FILES
    if state is None:
        kept.clear()
    else:
        kept.drop_after(int(state["window"]))
        _bring(files, kept.earlier)
    device = choose_device(trial.device).type
    run = kind(list(task.metrics), trial.seed, device, files, kept, sink, state, save_seconds)
    result = call(task, task.configured(trial.config, trial.seed, device), run)
    values = _ending(result, run, kept.folder)
    blocks = _blocks(run, values[f"test_{task.metrics[0].recorded}"])
    if blocks is not None and run.by_example is not None:
        save_examples(kept.folder, run.by_example.values)
    if run.ending.has_diverged:
        print(f"diverged at {task.step} {run.ending.diverged_at}: {run.ending.reason}", flush=True)
    run.finish()
    return Outcome(
        status="DIVERGED" if run.ending.has_diverged else "FINISHED",
        steps=run.step,
        seen=None,
        diverged_at=run.ending.diverged_at,
        seconds=run.clock.seconds,
        train_seconds=run.clock.loop_seconds,
        best_step=run.measured.best_step,
        values=values,
        parameters=run.parameters,
        reason=run.ending.reason,
        blocks=blocks,
    )


def _ending(result: object, run: Run, folder: Path) -> dict[str, float | None]:
    """What is recorded at the end; a test value that is not finite is a divergence too."""
    metrics = run.measured.metrics
    values: dict[str, float | None] = {f"test_{metric.recorded}": None for metric in metrics}
    if not run.ending.has_diverged:
        values |= _values_of(result, metrics, folder)
        if bad := [metric.recorded for metric in metrics if values[f"test_{metric.recorded}"] is None]:
            run.ending.diverge(run.step, f"test_{bad[0]} is not finite")
        if run.loop is None:
            print(
                "note: the function never asked for run.epochs or run.steps; after a kill it starts from the beginning",
                flush=True,
            )
    return values | run.measured.values(run.tested_best) | {"tested_best": float(run.tested_best)}


def _blocks(run: Run, test_value: float | None) -> Blocks | None:
    """What was given to `run.examples`, in blocks; None where nothing was, and where the trial has diverged."""
    if run.by_example is None or run.ending.has_diverged or test_value is None or not np.isfinite(test_value):
        return None
    return run.by_example.blocks(test_value)


def plain_call(task: FunctionTask, config: Any, seed: int, folder: Path | None) -> dict[str, Any]:
    """Call the function with nothing around it: no journal, no checkpoints. Raises Diverged."""
    device = choose_device("auto").type
    with tempfile.TemporaryDirectory(prefix="ablate-") as temporary:
        files = Path(temporary) if folder is None else Path(folder)
        run = Run(list(task.metrics), seed, device, files, Memory())
        result = call(task, task.configured(config, seed, device), run)
    if run.ending.has_diverged:
        raise Diverged(f"diverged at {task.step} {run.ending.diverged_at}: {run.ending.reason}")
    check_result(result, task.metrics)
    assert isinstance(result, dict), "checked"
    if run.by_example is not None:
        name = f"test_{task.metrics[0].recorded}"
        _blocks(run, number_of(f"the result's {name}", result[name]))
    return result


def call(task: FunctionTask, config: Any, run: Run) -> Any:
    """What the function returns; None where the trial has diverged."""
    import torch  # noqa: F401 (imported by now, it is seeded too)

    refuse_many_processes()
    named, before = task.function.__name__, plain(config)
    seed_all(run.seed, "start")
    try:
        result = task.function(config, run)
    except Stopped:
        return None
    except SystemExit as error:
        raise RunError(f"{named} called exit({error.code}); return a result, or raise an exception") from error
    except UnboundLocalError as error:
        if not run.has_nothing_left:
            raise
        raise RunError(
            f"{error}; this trial was resumed after its last checkpoint, when nothing of the loop is left to do: "
            "set the variable before the loop, or keep it in a dict"
        ) from error
    if (after := plain(config)) != before:
        changed = sorted(name for name in before if before[name] != after[name])
        print(f"warning: {named} changed its config ({', '.join(changed)}); what is recorded is as asked", flush=True)
    return result


def refuse_many_processes() -> None:
    """Raise KnobError in a process group: a trial is one process."""
    if re.fullmatch(r"[2-9]|\d{2,}", size := os.environ.get("WORLD_SIZE", "")):
        raise KnobError(
            f"WORLD_SIZE={size}: a trial is one process, and cannot be started by torchrun; start the script by "
            "python, and it trains a trial on each GPU"
        )


def check_result(result: object, metrics: Sequence[Metric]) -> None:
    """Raise RunError for a result that lacks a metric, has none that can be compared, or is no dict."""
    if not isinstance(result, dict):
        example = f'{{"test_{metrics[0].recorded}": …}}'
        raise RunError(f"the function returned {_a(result)}; return a dict, {example}")
    for metric in metrics:
        name = f"test_{metric.recorded}"
        if name not in result:
            instead = f"test_{metric.name}"
            why = f", the logarithm of {metric.name}" if instead != name and instead in result else ""
            names = ", ".join(map(str, result)) or "nothing"
            raise RunError(f"the function returned no {name} ({names}); add {name}{why}")
        value = None if result[name] is None else number_of(f"the result's {name}", result[name])
        if metric.scale == "log" and metric.logged is None and value is not None and -math.inf < value <= 0:
            raise RunError(
                f"the function returned {name}={value:g}: {metric.name} is compared by ratios, for which it has to be "
                "above zero; declare the metric without scale='log'"
            )


def _a(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _values_of(result: object, metrics: Sequence[Metric], folder: Path) -> dict[str, float | None]:
    """The numbers of a result; arrays of one value an example go to files in the trial's folder."""
    check_result(result, metrics)
    assert isinstance(result, dict), "checked"
    values: dict[str, float | None] = {}
    for name, value in result.items():
        if str(name).endswith("_each"):
            _save_each(folder / f"{name}.npy", value)
            continue
        number = None if value is None else number_of(f"the result's {name}", value)
        values[str(name)] = number if number is not None and np.isfinite(number) else None
    for line in disagreements(result):
        print(f"warning: {line}", flush=True)
    return values


def disagreements(result: Mapping[str, Any]) -> list[str]:
    """Numbers of a result that are not the mean of their `_each`, a line each."""
    found = []
    for name, value in result.items():
        each = result.get(f"{name}_each")
        if each is None or value is None:
            continue
        mean, number = float(np.mean(_array(f"{name}_each", each))), number_of(name, value)
        if not np.isclose(mean, number, rtol=1e-4, atol=1e-6, equal_nan=True):
            found.append(f"{name} is {number:.6g}, and the mean of {name}_each is {mean:.6g}; give both in one unit")
    return found


def _array(name: str, each: Any) -> Any:
    return numbers_by_example(f"the result's {name}", each)


def _save_each(path: Path, each: Any) -> None:
    with replacing(path) as file:
        np.save(file, _array(path.stem, each))


def _bring(files: Path, earlier: Sequence[Path]) -> None:
    """A copy of the function's own folder, as the process before left it, which may not be dead yet."""
    left = next((folder / FILES for folder in earlier if (folder / FILES).is_dir()), None)
    if left is not None and left != files:
        shutil.copytree(left, files)
