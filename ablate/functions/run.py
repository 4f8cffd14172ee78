"""What a user's function finds on `run`: what is restored after a kill, what is logged, where randomness comes from.

State is restored when the loop starts, not when it is kept: by then schedulers and whatever else changes an optimizer
have been made. All that comes before the loop runs again after a kill, and has to be the same then.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ablate.functions.batches import Batches
from ablate.functions.ending import Clock, Ending, Pace
from ablate.functions.examples import Examples, examples_of
from ablate.functions.kept import Kept, Store, Weights
from ablate.functions.measured import Measured, numbers_of
from ablate.functions.state import RunError
from ablate.functions.streams import number, seed_all
from ablate.metric import Metric
from ablate.protocol import Payload, Sink
from ablate.train.preemption import is_asked, leave

if TYPE_CHECKING:
    import torch

SAVE_SECONDS = 60.0  # between two checkpoints, at most; an epoch or a step is never cut

Batch = TypeVar("Batch")


class Run:
    """One trial, as the function that trains it sees it.

    Attributes:
        seed: of the trial; the global generators of Python, NumPy and torch are seeded already.
        device: "cpu" or "cuda".
        folder: for files of the function's own: empty when a trial starts anew, kept when it is resumed.
    """

    def __init__(
        self,
        metrics: list[Metric],
        seed: int,
        device: str,
        folder: Path,
        store: Store,
        sink: Sink | None = None,
        state: Payload | None = None,
        save_seconds: float = SAVE_SECONDS,
    ) -> None:
        self.seed = seed
        self.device = device
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ending = Ending()
        self.measured = Measured(metrics)
        self.loop: str | None = None  # "epochs" or "steps", once one was asked for
        self._budget: int | None = None  # its budget, once the loop has said so
        self.step = 0  # epochs or steps, the current one included
        self.resumed_at: int | None = None  # the step at which the loop went on
        self.tested_best = False
        self.by_example: Examples | None = None
        self.clock = Clock()
        self._kept = Kept(seed)
        self._weights = Weights(store, self._kept)
        self._store = store
        self._sink = sink
        self._restored = state
        self._has_begun = False
        self._pace = Pace(save_seconds)
        self._batches: Batches | None = None
        self._journal_bytes = 0

    def keep(self, **objects: Any) -> None:
        """Save these at every checkpoint, and restore them in place when the loop starts after a kill.

        Modules, optimizers, schedulers and whatever else has `state_dict` and `load_state_dict`; dicts, lists, arrays,
        tensors and random generators.

        Raises:
            RunError: for plain values, for a name that is kept already, and once the loop has started.
        """
        self._refuse_late("keep")
        self._kept.add(objects)

    def keep_best(self, **objects: Any) -> None:
        """Copy these whenever `log` sees the best valid value of the first metric, for `load_best`.

        Raises:
            RunError: as `keep` does.
        """
        self._refuse_late("keep_best")
        self._weights.best.add(objects)

    def load_best(self) -> None:
        """Restore what `keep_best` copied; the record then says that the best weights were tested.

        Raises:
            RunError: where nothing was copied.
        """
        self.ending.refuse_more()
        if not self.keeps_best:
            raise RunError("load_best: call run.keep_best(model=model) before the loop")
        if not self._weights.is_known:
            raise RunError(f"load_best: nothing was best, because {self._advice()}")
        self._weights.load_best()
        self.tested_best = True

    def epochs(self, n: int) -> Iterator[int]:
        """0, 1, …, n − 1; after a kill, from the first that was not completed.

        Each epoch starts with the global generators seeded from (seed, epoch), then saves if that is due.

        Raises:
            RunError: for a second loop.
        """
        return self._epochs(self._claim("epochs", n))

    @overload
    def steps(self, n: int) -> Iterator[int]: ...
    @overload
    def steps(self, n: int, loader: Iterable[Batch]) -> Iterator[tuple[int, Batch]]: ...
    def steps(self, n: int, loader: Iterable[Any] | None = None) -> Iterator[Any]:
        """0, 1, …, n − 1, or each with a batch of the loader, which is read as often as it takes.

        Each step starts with the global generators seeded from (seed, step); there is a checkpoint once a minute. After
        a kill the batches that were read are skipped.

        Raises:
            RunError: for a second loop.
        """
        return self._steps(self._claim("steps", n), loader)

    def log(self, *, step: int | None = None, **numbers: Any) -> bool:
        """Record numbers; None stands for an undefined one and is left out.

        `train_<metric>` and `valid_<metric>` are the metric's curves. A number that is NaN or infinite ends the trial:
        it has diverged.

        Args:
            step: where; None: the current epoch or step, counted from 1.

        Returns:
            Whether the valid value of the first metric is the best so far.

        Raises:
            RunError: for what is no number, and for one of test data.
        """
        self.ending.refuse_more()
        values = numbers_of(self.measured.metrics, numbers)
        at = self.step if step is None else operator.index(step)
        is_new_best = self.measured.take(at, values)
        # Before the loop a resumed function only repeats what its first process recorded.
        repeats = self._restored is not None and not self._has_begun
        if values and self._sink is not None and not repeats:
            self._journal_bytes = self._sink("log", step=at, of=self._budget, seconds=self.clock.seconds, values=values)
        self.ending.refuse_infinite(at, values)
        if is_new_best:
            self._weights.copy()
        return is_new_best

    def examples(self, values: Any, blocks: Any = None) -> None:
        """Record the first metric of each test example, for intervals that hold for other test data too.

        Call it once, after the loop. The test data and their order have to be the same in every trial.

        Args:
            values: shape [n], of which `test_<metric>` in the result is the mean: a list, an array, or a tensor on any
                device.
            blocks: what examples belong to, a text or a whole number each, shape [n]: examples of one document or one
                patient are alike. None: up to 50 runs of neighbours.

        Raises:
            RunError: for values of another shape, a second call, a metric on a logarithmic scale that is no mean; and
                when the function returns, where a value is not finite or the result is not their mean.
        """
        self.ending.refuse_more()
        if self.by_example is not None:
            raise RunError("run.examples: called twice; call it once, after the loop, with the values of the test data")
        self.by_example = examples_of(self.measured.metrics[0], values, blocks)

    def number(self, *key: object) -> int:
        """A whole number from 0 to 2³¹ − 1 of (seed, key), for what takes a seed: `random_state=run.number("t")`."""
        return number(self.seed, *key)

    def stream(self, *key: object) -> torch.Generator:
        """The random generator of (seed, key), saved and restored with the checkpoints; the same one at every call."""
        return self._kept.stream(key)

    def initial_values(self, model: torch.nn.Module, init: Callable[[torch.nn.Module], Any] | None = None) -> None:
        """Draw a model's initial values again, each module's from (seed, its name): what two cells share starts equal.

        Call it once, before copies of the model (an EMA) are made. Each module is drawn by its `reset_parameters`, as
        torch's are; one without keeps its values.

        Args:
            init: draws one module's values instead, for a model that has a scheme of its own: `model._init_weights`.

        Raises:
            RunError: where the values then come from another distribution than those that were there.
        """
        from ablate.functions.initial import draw_again

        self._refuse_late("initial_values")
        draw_again(model, self.seed, init)
        seed_all(self.seed, "after initial values")

    @property
    def has_nothing_left(self) -> bool:
        """Whether it was resumed after its last checkpoint, so that the loop is empty."""
        return self.resumed_at is not None and self.resumed_at == self.step

    @property
    def parameters(self) -> int | None:
        """Numbers that are trained in what is kept; None: not known."""
        return self._kept.parameters()

    @property
    def keeps_best(self) -> bool:
        """Whether best weights were asked for."""
        return bool(self._weights.best.objects)

    def finish(self) -> None:
        """Once the function has returned: write the last and the best weights."""
        if self.keeps_best and not self.ending.has_diverged and self.measured.best_step is None:
            raise RunError(f"keep_best: nothing was best, because {self._advice()}")
        self._weights.write(self.step)

    def _advice(self) -> str:
        name = f"valid_{self.measured.metrics[0].recorded}"
        return f"{name} was never logged; call run.log({name}=…) in the loop"

    def _refuse_late(self, how: str) -> None:
        if self._has_begun:
            raise RunError(f"{how}: call it before the loop starts, because that is where state is restored")

    def _claim(self, loop: str, n: int) -> int:
        self.ending.refuse_more()
        if self.loop is not None:
            raise RunError(
                f"run.{loop}: a function has one loop, and run.{self.loop} was called before; use plain range(…) for "
                "what is inside of it, or one loop over all phases"
            )
        try:
            number_of_steps = -1 if isinstance(n, bool) else operator.index(n)
        except TypeError:
            number_of_steps = -1
        if number_of_steps < 0:
            raise RunError(f"run.{loop}({n!r}): must be a whole number, at least 0")
        self.loop, self._budget = loop, number_of_steps
        return number_of_steps

    def _epochs(self, n: int) -> Iterator[int]:
        for epoch in range(self._begin(), n):
            self.ending.refuse_more()
            self.step, self.tested_best = epoch + 1, False
            seed_all(self.seed, "epoch", epoch)
            yield epoch
            self._pace.save(self._save, at_once=epoch + 1 == n or is_asked())
            leave()
        self._end()

    def _steps(self, n: int, loader: Iterable[Any] | None) -> Iterator[Any]:
        first = self._begin()
        if loader is not None:
            self._open(loader)
        saved_at = time.perf_counter()
        for step in range(first, n):
            self.ending.refuse_more()
            self.step, self.tested_best = step + 1, False
            batch = None if self._batches is None else self._batches.next(step)
            seed_all(self.seed, "step", step)
            yield step if self._batches is None else (step, batch)
            if step + 1 == n or is_asked() or time.perf_counter() - saved_at >= self._pace.most_seconds:
                self._save()
                saved_at = time.perf_counter()
                leave()
        self._end()

    def _begin(self) -> int:
        """Restore what was saved; returns how many epochs or steps were completed."""
        self._has_begun = True
        if (saved := self._restored) is not None:
            if saved["loop"] != self.loop:
                raise RunError(f"run.{self.loop}: the checkpoint is of run.{saved['loop']}")
            self._kept.restore(saved)
            self._weights.restore(saved["best_window"])
            self.measured.load(saved["measured"])
            self.clock.load(saved["clock"])
            self.tested_best = saved["tested_best"]
            self._journal_bytes = saved["journal_bytes"]
            self.step = self.resumed_at = int(saved["window"])
        self.clock.enter_loop()
        return self.step

    def _open(self, loader: Iterable[Any]) -> None:
        self._batches = Batches(loader, self.seed, self._kept.generators, self._kept.set_generators)
        if self._restored is not None:
            knows = any(kept is loader for kept in self._kept.objects.values())
            self._batches.go_to(self._restored["place"], skips=not knows)

    def _save(self) -> None:
        self.ending.refuse_more()
        if self._kept.unsaved:
            return
        self._weights.write_best(self.step)
        state = {
            "window": self.step,
            "loop": self.loop,
            "journal_bytes": self._journal_bytes,
            "best_window": self._weights.window,
            "tested_best": self.tested_best,
            "place": None if self._batches is None else self._batches.place(),
            "measured": self.measured.state(),
            "clock": self.clock.state(),
        }
        self._store.save(self.step, state | self._kept.state())

    def _end(self) -> None:
        self.clock.leave_loop()
        self._weights.copy_last()
