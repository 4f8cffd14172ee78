"""What a checkpoint of a function holds: the objects that it keeps, its random streams, and its best weights."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from ablate.functions import state as states
from ablate.functions.state import RunError
from ablate.functions.streams import global_state, number, set_global_state
from ablate.protocol import Payload

if TYPE_CHECKING:
    import torch

_MOST_STREAMS = 1000


class Store(Protocol):
    """Where states go: the checkpoints of a trial, or memory in a plain call."""

    def save(self, window: int, state: Payload, /) -> None:
        """Keep what training needs to go on."""

    def save_best(self, window: int, weights: Payload, /) -> None:
        """Keep the best weights."""

    def save_last(self, window: int, weights: Payload, /) -> None:
        """Keep the weights at the end."""

    def best(self, window: int, /) -> Payload:
        """The best weights that were kept then."""
        ...


class Kept:
    """Objects by name, and random streams by key.

    Args:
        how: the method of `run` that takes them in, for messages.
    """

    def __init__(self, seed: int, how: str = "keep") -> None:
        self.objects: dict[str, Any] = {}
        self.unsaved: list[str] = []
        self._seed = seed
        self._how = how
        self._streams: dict[str, torch.Generator] = {}
        self._saved_streams: dict[str, Any] = {}

    def add(self, objects: dict[str, Any]) -> None:
        """Take objects in. Raises RunError for a plain value, for what cannot be loaded again, for a name in use."""
        for name, each in objects.items():
            if name in self.objects:
                raise RunError(f"{self._how}({name}=…): {name} is kept already; give the other object another name")
            states.check(self._how, name, each)
            if not states.is_saved(each):
                self.unsaved.append(name)
            self.objects[name] = each

    def stream(self, key: tuple[object, ...]) -> torch.Generator:
        """The generator of a key, the same one at every call."""
        import torch

        name = repr(key)
        if name not in self._streams:
            if len(self._streams) == _MOST_STREAMS:
                raise RunError(
                    f"stream{name}: more than {_MOST_STREAMS} streams; use one of fewer keys, which goes on by itself, "
                    "or seed a generator with run.number(…)"
                )
            self._streams[name] = torch.Generator().manual_seed(number(self._seed, "stream", *key, bits=63))
            if name in self._saved_streams:  # made in the loop, which has been restored
                states.put(self._streams[name], self._saved_streams.pop(name))
        return self._streams[name]

    def state(self) -> Payload:
        """What a checkpoint holds of it, the global generators included."""
        return {
            "objects": {name: states.take(name, each) for name, each in self.objects.items()},
            "streams": {name: states.take(name, each) for name, each in self._streams.items()} | self._saved_streams,
            "modes": {name: [each.training for each in model.modules()] for name, model in self._models().items()},
            "random": states.encode(global_state()),
        }

    def parameters(self) -> int | None:
        """Numbers that are trained in the modules that are kept; None where none is."""
        models = self._models().values()
        trained = {id(p): p.numel() for model in models for p in model.parameters() if p.requires_grad}
        return sum(trained.values()) if models else None

    def _models(self) -> dict[str, torch.nn.Module]:
        torch = sys.modules.get("torch")
        if torch is None:
            return {}
        return {name: each for name, each in self.objects.items() if isinstance(each, torch.nn.Module)}

    def restore(self, saved: Payload) -> None:
        """Put everything back in place."""
        if set(saved["objects"]) != set(self.objects):
            raise RunError(
                f"the checkpoint holds {sorted(saved['objects'])}, and {sorted(self.objects)} are kept now: "
                "what is kept may depend on the configuration alone"
            )
        for name, each in self.objects.items():
            states.put(each, saved["objects"][name])
        for name, model in self._models().items():  # what comes after the loop may count on model.eval() in it
            for each, training in zip(model.modules(), saved["modes"][name], strict=True):
                each.training = training
        self._saved_streams = dict(saved["streams"])
        for name, generator in self._streams.items():
            if name in self._saved_streams:
                states.put(generator, self._saved_streams.pop(name))
        set_global_state(states.decode(saved["random"]))

    def generators(self) -> Payload:
        """The states of all random generators, from which the order of a loader may come."""
        kept = {name: each for name, each in self.objects.items() if states.is_generator(each)}
        return {
            "kept": {name: states.take(name, each) for name, each in kept.items()},
            "streams": {name: states.take(name, each) for name, each in self._streams.items()},
            "random": states.encode(global_state()),
        }

    def set_generators(self, saved: Payload) -> None:
        """Put them back."""
        for name, each in saved["kept"].items():
            states.put(self.objects[name], each)
        for name, each in saved["streams"].items():
            if name in self._streams:
                states.put(self._streams[name], each)
        set_global_state(states.decode(saved["random"]))


class Weights:
    """The best weights, and the last.

    What is best is copied at once, and written when the next state is: that state, and no other, refers to it.
    """

    def __init__(self, store: Store, kept: Kept) -> None:
        self.best = Kept(0, "keep_best")
        self.window: int | None = None  # the step at which the best were written
        self._kept = kept
        self._store = store
        self._copy: Payload | None = None
        self._last: Payload | None = None

    @property
    def is_known(self) -> bool:
        """Whether there are best weights."""
        return self._copy is not None or self.window is not None

    def copy(self) -> None:
        """These are the best so far."""
        if self.best.objects:
            self._copy = _copies(self.best.objects)

    def copy_last(self) -> None:
        """These are the last so far."""
        modules = {name: each for name, each in self._kept.objects.items() if hasattr(each, "parameters")}
        self._last = _copies(self.best.objects or modules)

    def load_best(self) -> None:
        """Put the best back in place."""
        if self._last is None:
            self.copy_last()
        found = self._copy
        if found is None:
            assert self.window is not None, "asked before"
            found = self._store.best(self.window)
        for name, each in self.best.objects.items():
            states.put(each, found["objects"][name])

    def restore(self, window: int | None) -> None:
        """Go on from a state that refers to the best of this step."""
        self.window, self._copy = window, None

    def write_best(self, step: int) -> None:
        """Write the best, where they are new."""
        if self._copy is not None:
            self._store.save_best(step, self._copy)
            self.window, self._copy = step, None

    def write(self, step: int) -> None:
        """Write both at the end."""
        # A best of after the last state is not the one that this state refers to, and gets a step of its own.
        self.write_best(step + 1)
        if self._last is None:
            self.copy_last()
        assert self._last is not None, "copied"
        self._store.save_last(step, self._last)


def _copies(objects: dict[str, Any]) -> Payload:
    taken = {name: states.take(name, each) for name, each in objects.items() if states.is_saved(each)}
    return {"objects": states.on_cpu(taken)}
