"""The state of what a user keeps, as values that a checkpoint can hold and that load without running any code."""

from __future__ import annotations

import io
import random
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

_TAG = "__ablate__"
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_NOT_KEPT = (*_PLAIN, tuple, frozenset, range, np.generic, Path, Enum)


class RunError(ValueError):
    """`run` was used in a way that cannot work; the message says what to do instead."""


def check(how: str, name: str, kept: object) -> None:
    """Raise RunError for what cannot be kept: plain values, and states that would not load again."""
    if isinstance(kept, _NOT_KEPT):
        raise RunError(
            f"{how}({name}=…): a {type(kept).__name__} cannot be restored in place; put it into a dict, "
            f'counters = {{"{name}": …}}, keep the dict, and change it there'
        )
    if _holds_parameters(kept):
        raise RunError(
            f"{how}({name}=…): holds parameters of a model, which would be others after a resume; keep the model itself"
        )
    if is_saved(kept):
        take(name, kept)
    elif how != "keep":
        raise RunError(f"{how}({name}=…): a {type(kept).__name__} has no state_dict and load_state_dict")
    else:
        print(
            f"keep({name}=…): a {type(kept).__name__} has no state_dict and load_state_dict, so nothing is saved: "
            "after a kill this trial starts from the beginning",
            flush=True,
        )


def _holds_parameters(kept: object) -> bool:
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(kept, (dict, list, deque)):
        return False
    values = list(kept.values() if isinstance(kept, dict) else kept)
    return any(isinstance(each, torch.nn.Parameter) or _holds_parameters(each) for each in values)


def is_saved(kept: object) -> bool:
    """Whether the state of an object is known how to be taken and put back."""
    return _kind(kept) is not None


def take(name: str, kept: Any) -> Any:
    """The state of a kept object, encoded. Raises RunError for one that holds what cannot be loaded again."""
    kind = _kind(kept)
    assert kind is not None, "asked before"
    return encode(_TAKE[kind](kept), name)


def put(kept: Any, state: Any) -> None:
    """Restore a kept object in place; `state` stays as it is."""
    kind = _kind(kept)
    assert kind is not None, "asked before"
    _PUT[kind](kept, decode(state))


def is_generator(kept: object) -> bool:
    """Whether it is a random generator."""
    return _kind(kept) in ("torch_generator", "numpy_generator", "numpy_state", "python_random")


def _kind(kept: Any) -> str | None:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(kept, torch.Generator):
        return "torch_generator"
    if torch is not None and isinstance(kept, torch.Tensor):
        return "tensor"
    for kind, name in _KINDS:
        if isinstance(kept, kind):
            return name
    if callable(getattr(kept, "state_dict", None)) and callable(getattr(kept, "load_state_dict", None)):
        return "state_dict"
    return None


_KINDS: tuple[tuple[type, str], ...] = (
    (np.random.Generator, "numpy_generator"),
    (np.random.RandomState, "numpy_state"),
    (random.Random, "python_random"),
    (np.ndarray, "array"),
    (dict, "dict"),
    (list, "list"),
    (deque, "list"),
)


def _put_dict(kept: dict[Any, Any], state: Mapping[Any, Any]) -> None:
    kept.clear()
    kept.update(state)


def _put_list(kept: Any, state: Any) -> None:
    kept.clear()
    kept.extend(state)


def _put_tensor(kept: Any, state: Any) -> None:
    import torch

    with torch.no_grad():
        kept.copy_(state)


def _put_array(kept: Any, state: Any) -> None:
    kept[...] = state


_TAKE: dict[str, Callable[[Any], Any]] = {
    "state_dict": lambda kept: kept.state_dict(),
    "torch_generator": lambda kept: kept.get_state(),
    "numpy_generator": lambda kept: kept.bit_generator.state,
    "numpy_state": lambda kept: kept.get_state(legacy=False),
    "python_random": lambda kept: kept.getstate(),
    "tensor": lambda kept: kept.detach(),
    "array": lambda kept: kept,
    "dict": lambda kept: dict(kept),
    "list": lambda kept: list(kept),
}
_PUT: dict[str, Callable[[Any, Any], None]] = {
    "state_dict": lambda kept, state: kept.load_state_dict(state),
    "torch_generator": lambda kept, state: kept.set_state(state),
    "numpy_generator": lambda kept, state: setattr(kept.bit_generator, "state", state),
    "numpy_state": lambda kept, state: kept.set_state(state),
    "python_random": lambda kept, state: kept.setstate(state),
    "tensor": _put_tensor,
    "array": _put_array,
    "dict": _put_dict,
    "list": _put_list,
}


def encode(value: Any, where: str = "") -> Any:
    """A copy of containers and arrays of which tensors, dicts, lists, tuples, sets and plain values are left.

    Args:
        where: what a message calls it, for example "model".

    Raises:
        RunError: for an object that a checkpoint would not load again.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (np.ndarray, np.generic)):
        return _encode_array(np.asarray(value), isinstance(value, np.generic), where)
    if type(value) is dict:
        return {key: encode(each, f"{where}[{key!r}]") for key, each in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(encode(each, f"{where}[…]") for each in value)
    if type(value) in _CONTAINERS:
        return _encode_container(value, where)
    if isinstance(value, Path):
        return {_TAG: "path", "items": str(value)}
    return _encode_tensor(value, where)


_CONTAINERS: dict[type, str] = {OrderedDict: "ordered", Counter: "counter", deque: "deque", frozenset: "frozenset"}


def _encode_container(value: Any, where: str) -> dict[str, Any]:
    plain = dict(value) if isinstance(value, dict) else list(value)
    found = {_TAG: _CONTAINERS[type(value)], "items": encode(plain, where)}
    if isinstance(value, deque):
        found["maxlen"] = value.maxlen
    if (versions := getattr(value, "_metadata", None)) is not None:  # of modules, in a state_dict
        found["metadata"] = encode(dict(versions), where)
    return found


def _encode_array(array: Any, is_scalar: bool, where: str) -> dict[str, Any]:
    import torch

    if array.dtype.hasobject:
        raise RunError(f"{where}: an array of objects cannot be saved; keep numbers")
    flat = np.frombuffer(array.tobytes(), dtype=np.uint8).copy()
    tag = "scalar" if is_scalar else "array"
    return {_TAG: tag, "dtype": array.dtype.str, "shape": list(array.shape), "items": torch.from_numpy(flat)}


def _encode_tensor(value: Any, where: str) -> Any:
    import torch

    if type(value) in (torch.Tensor, torch.nn.Parameter):
        tensor = value.detach()
        # Checkpoints are loaded to the CPU; what a user's dict holds goes back to where it was.
        return tensor if tensor.device.type == "cpu" else {_TAG: "on", "device": str(tensor.device), "items": tensor}
    if isinstance(value, torch.Size):
        return {_TAG: "size", "items": list(value)}
    if not _loads(value):
        raise RunError(
            f"{where}: a {type(value).__name__} cannot be saved, because loading it would run code; "
            "keep plain values, lists, dicts, arrays and tensors"
        )
    return value


def _loads(value: Any) -> bool:
    import torch

    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception:
        return False
    return True


def decode(value: Any) -> Any:
    """What `encode` was given, in copies of its own."""
    if isinstance(value, dict):
        return _DECODE[value[_TAG]](value) if _TAG in value else {key: decode(each) for key, each in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(decode(each) for each in value)
    if (torch := sys.modules.get("torch")) is not None and isinstance(value, torch.Tensor):
        return value.clone()
    return value


def _decode_array(value: dict[str, Any]) -> Any:
    array = np.frombuffer(value["items"].numpy().tobytes(), dtype=np.dtype(value["dtype"]))
    array = array.reshape(value["shape"]).copy()
    return array[()] if value[_TAG] == "scalar" else array


def _decode_ordered(value: dict[str, Any]) -> Any:
    found: Any = OrderedDict(decode(value["items"]))
    if "metadata" in value:
        found._metadata = OrderedDict(decode(value["metadata"]))
    return found


def _decode_on(value: dict[str, Any]) -> Any:
    import torch

    is_there = torch.device(value["device"]).type != "cuda" or torch.cuda.is_available()
    return value["items"].to(value["device"] if is_there else "cpu", copy=True)


def _decode_size(value: dict[str, Any]) -> Any:
    import torch

    return torch.Size(value["items"])


_DECODE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "array": _decode_array,
    "scalar": _decode_array,
    "ordered": _decode_ordered,
    "counter": lambda value: Counter(decode(value["items"])),
    "deque": lambda value: deque(decode(value["items"]), maxlen=value["maxlen"]),
    "frozenset": lambda value: frozenset(decode(value["items"])),
    "path": lambda value: Path(value["items"]),
    "on": _decode_on,
    "size": _decode_size,
}


def on_cpu(value: Any) -> Any:
    """An encoded state whose tensors are copies in main memory, which training does not change."""
    if isinstance(value, dict):
        return {key: on_cpu(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(on_cpu(each) for each in value)
    if (torch := sys.modules.get("torch")) is not None and isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    return value
