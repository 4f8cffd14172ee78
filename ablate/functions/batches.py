"""Batches of a loader, step by step: the seed decides the order of each pass, and a resume skips what was read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ablate.functions.state import RunError
from ablate.functions.streams import seed_all


class Batches:
    """Reads a loader again and again.

    Args:
        loader: what can be iterated anew for every pass: a DataLoader, a list.
        take, put: the states of the random generators that the order may come from, and how they are restored.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        seed: int,
        take: Callable[[], dict[str, Any]],
        put: Callable[[dict[str, Any]], None],
    ) -> None:
        self._loader = loader
        self._seed = seed
        self._take = take
        self._put = put
        self._pass = 0
        self._read = 0
        self._first = 0  # the step of the pass's first batch
        self._before: dict[str, Any] = {}  # the generators as they were when the pass began
        self._iterator: Iterator[Any] | None = None

    def next(self, step: int) -> Any:
        """The batch of a step; what is drawn for it follows from the seed and the step."""
        if self._iterator is None:
            self._begin(step)
        batch = self._next(step)
        if batch is _END and self._read:
            self._pass += 1
            self._begin(step)
            batch = self._next(step)
        if batch is _END:
            again = "cannot be read a second time; give a DataLoader or a list" if self._pass else "is empty"
            raise RunError(f"steps: the loader {again}")
        self._read += 1
        return batch

    def place(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"pass": self._pass, "read": self._read, "first": self._first, "before": self._before}

    def go_to(self, place: dict[str, Any], skips: bool) -> None:
        """Go on from `place()`; `skips=False`: the loader itself knows how far it was read."""
        now = self._take()
        self._pass = place["pass"]
        self._put(place["before"])
        self._begin(place["first"])
        # A sampler may draw its order as late as with the first batch: each is read as it was.
        while skips and self._read < place["read"]:
            if self._next(self._first + self._read) is _END:
                raise RunError(f"steps: the loader has {self._read} batches, and had {place['read']} before the stop")
            self._read += 1
        self._read = place["read"]
        self._put(now)

    def _begin(self, step: int) -> None:
        self._read, self._first = 0, step
        self._before = self._take()
        seed_all(self._seed, "pass", self._pass)
        self._iterator = iter(self._loader)

    def _next(self, step: int) -> Any:
        assert self._iterator is not None, "the pass has begun"
        seed_all(self._seed, "batch", step)
        return next(self._iterator, _END)


_END = object()
