"""What can be seen of a function from outside: variables that change, tensors that it starts with, how it shuffles."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import numpy as np

from ablate.functions import state as states

Orders = dict[int, dict[str, list[str]]]
_ORDERS = 2  # epochs whose order is compared


def frame_of(frame: FrameType | None, file: str) -> FrameType | None:
    """The frame of the user's file that runs the loop."""
    while frame is not None and frame.f_code.co_filename != file:
        frame = frame.f_back
    return frame


def variables_of(frame: FrameType | None, kept: Mapping[str, Any]) -> dict[str, str]:
    """Variables of a frame that have a state and are not kept, as a phrase, with a digest of it."""
    if frame is None:
        return {}
    own = {id(each) for each in kept.values()}
    for each in kept.values():
        own |= {id(part) for part in each.modules()} if callable(getattr(each, "modules", None)) else set()
    found = {}
    variables = dict(frame.f_locals)
    if "self" in variables:
        variables |= {f"self.{name}": each for name, each in getattr(variables["self"], "__dict__", {}).items()}
    for name, value in variables.items():
        if id(value) in own or not (states.is_saved(value) or isinstance(value, (int, float, str, tuple))):
            continue
        with contextlib.suppress(Exception):
            taken = states.take(name, value) if states.is_saved(value) else value
            found[f"{name} ({type(value).__name__})"] = digest_state(taken)
    return found


def tensors_of(kept: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, each in kept.items():
        if callable(getattr(each, "named_parameters", None)):
            for tensor_name, tensor in each.named_parameters():
                if tensor.numel() > 1 and bool((tensor != tensor.flatten()[0]).any()):
                    found[f"{name}.{tensor_name}"] = [list(tensor.shape), digest_state(tensor.detach().cpu())]
    return found


@contextlib.contextmanager
def watched_order(orders: Orders, step: Callable[[], int | None], loaders: list[str]) -> Iterator[None]:
    """Note what is drawn first by each way to shuffle, in each of the first epochs, and loaders whose workers live on.

    Args:
        step: the epoch, from 1; None: outside of the loop.
    """
    import torch

    places: list[tuple[Any, str]] = [
        (torch, "randperm"), (torch, "randint"), (np.random, "permutation"), (np.random, "randint"),
    ]  # fmt: skip
    originals = [getattr(module, name) for module, name in places]
    init = torch.utils.data.DataLoader.__init__

    def noted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def draw(*args: Any, **kwargs: Any) -> Any:
            drawn = original(*args, **kwargs)
            at = step()
            if at is not None and 1 <= at <= _ORDERS and name not in orders.setdefault(at, {}):
                orders[at][name] = [str(getattr(drawn, "shape", "")), digest_array(drawn)]
            return drawn

        return draw

    def watched_init(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if self.persistent_workers:
            loaders.append("a DataLoader with persistent_workers=True")

    for (module, name), original in zip(places, originals, strict=True):
        setattr(module, name, noted(f"{module.__name__}.{name}", original))
    torch.utils.data.DataLoader.__init__ = watched_init  # type: ignore[method-assign]
    try:
        yield
    finally:
        for (module, name), original in zip(places, originals, strict=True):
            setattr(module, name, original)
        torch.utils.data.DataLoader.__init__ = init  # type: ignore[method-assign]


def digest_array(array: Any) -> str:
    """SHA-256 of an array or a tensor."""
    array = np.ascontiguousarray(array.detach().cpu().numpy() if hasattr(array, "detach") else array)
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()


def digest_state(state: Any) -> str:
    """SHA-256 of an encoded state."""
    if isinstance(state, dict):
        text = repr([(key, digest_state(each)) for key, each in state.items()])
    elif isinstance(state, (list, tuple)):
        text = repr([digest_state(each) for each in state])
    elif isinstance(state, set):
        text = repr(sorted(digest_state(each) for each in state))
    elif hasattr(state, "detach"):
        text = digest_array(state.detach().cpu().float() if "bfloat16" in str(state.dtype) else state)
    else:
        text = repr(state)
    return hashlib.sha256(text.encode()).hexdigest()
