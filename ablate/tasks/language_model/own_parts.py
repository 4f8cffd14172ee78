"""Layers and optimisers of a user's own, checked before anything trains."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from torch import nn

from ablate.knobs import KnobError
from ablate.registry import Registry
from ablate.tasks.language_model.config import OPTIMIZERS, RECURRENT_LAYERS

_INTERFACE = "layers.py in ablate/tasks/language_model/model says what a layer has"


@cache
def check_layer(rnn: str) -> None:
    """Check that a recurrent layer can be made and called. It is not called: that may end the process.

    Raises:
        KnobError: where it cannot be imported, or has not the interface of a layer.
    """
    if RECURRENT_LAYERS.is_builtin(rnn):
        return
    kind = _loaded(RECURRENT_LAYERS, rnn)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise KnobError(f"rnn={rnn}: must be a class of torch.nn.Module, not {kind!r}; {_INTERFACE}")
    try:
        layer = kind(3, 4)
    except Exception as error:
        told = f"cannot be made as {kind.__name__}(input_size, hidden_size): {error}"
        raise KnobError(f"rnn={rnn}: {told}; {_INTERFACE}") from error
    try:
        inspect.signature(layer.forward).bind("x_TBD", "state")
    except TypeError as error:
        raise KnobError(f"rnn={rnn}: forward(x_TBD, state) cannot be called: {error}; {_INTERFACE}") from error
    names = dict(layer.named_parameters())
    method: Any = getattr(layer, "fan_in", None)
    fan_in = method() if callable(method) else None
    if not isinstance(fan_in, dict) or not {*fan_in} <= {*names}:
        raise KnobError(
            f"rnn={rnn}: fan_in() must give the number of inputs of its parameters ({', '.join(names)}), by name; "
            f"{_INTERFACE}"
        )


@cache
def check_optimizer(optimizer: str) -> None:
    """Raise KnobError for an optimiser that cannot be imported, or is nothing that can be called."""
    if OPTIMIZERS.is_builtin(optimizer):
        return
    made = _loaded(OPTIMIZERS, optimizer)
    if not callable(made):
        raise KnobError(f"optimizer={optimizer}: must be a function (parameters, lr), not {made!r}")


def _loaded(parts: Registry, name: str) -> Any:
    try:
        return parts.load(name)
    except Exception as error:
        raise KnobError(
            f"{parts.knob}={name}: its entry point {parts.value(name)!r} cannot be imported ({type(error).__name__}: "
            f"{error}); install the package that has it, or mend the entry point and install it again"
        ) from error
