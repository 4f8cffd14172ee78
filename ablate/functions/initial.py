"""Initial values by name: two models that share a module start with the same values in it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ablate.functions.state import RunError
from ablate.functions.streams import seed_all


def draw_again(model: nn.Module, seed: int, init: Callable[[nn.Module], Any] | None) -> None:
    """Draw the values of every module from (seed, its name), by `init` or its own `reset_parameters`.

    Raises:
        RunError: where a tensor's values come from another distribution than those that were there.
    """
    before = {id(tensor): tensor.detach().clone() for tensor in model.parameters()}
    drawn: dict[int, Tensor] = {}
    left = []
    with torch.no_grad():
        for name, module in model.named_modules():
            own = dict(module.named_parameters(recurse=False))
            if not own:
                continue
            draw = _own_draw(module) if init is None else partial(init, module)
            if draw is None:
                left += [f"{name}.{each}".lstrip(".") for each, tensor in own.items() if not _is_constant(tensor)]
                continue
            seed_all(seed, "initial", name)
            draw()
            for tensor in own.values():
                _keep_tied(tensor, before[id(tensor)], drawn)
    _check(model, before)
    if left:
        print(
            f"initial_values: {', '.join(left)} keep values that depend on what was drawn before; a module draws by "
            "itself where it has a method reset_parameters",
            flush=True,
        )


def _own_draw(module: nn.Module) -> Callable[[], Any] | None:
    for name in ("reset_parameters", "_reset_parameters"):
        if callable(found := getattr(module, name, None)):
            return found  # type: ignore[no-any-return]
    return None


def _keep_tied(tensor: Tensor, before: Tensor, drawn: dict[int, Tensor]) -> None:
    """A tensor of two modules keeps the values of the one whose distribution it had."""
    first = drawn.get(id(tensor))
    if first is not None and _is_alike(before, first) and not _is_alike(before, tensor):
        tensor.copy_(first)
    drawn[id(tensor)] = tensor.detach().clone()


def _check(model: nn.Module, before: dict[int, Tensor]) -> None:
    for name, tensor in model.named_parameters():
        if not _is_alike(before[id(tensor)], tensor):
            raise RunError(
                f"initial_values: {name} had a standard deviation of {_std(before[id(tensor)]):.3g}, and "
                f"reset_parameters draws one of {_std(tensor):.3g}: the model has a scheme of its own; pass it, "
                "run.initial_values(model, init=draw), where draw(module) sets the values of one module"
            )


def _is_alike(one: Tensor, other: Tensor) -> bool:
    """Whether two draws may come from one distribution, by their standard deviations."""
    if _is_constant(one) or _is_constant(other):
        return torch.equal(one, other) or one.numel() == 1
    if one.numel() < 16:
        return True
    ratio = math.log(_std(one) / _std(other))
    return abs(ratio) < 0.05 + 6 / math.sqrt(one.numel())


def _is_constant(tensor: Tensor) -> bool:
    return tensor.numel() == 0 or bool((tensor == tensor.flatten()[0]).all())


def _std(tensor: Tensor) -> float:
    return float(tensor.detach().double().std(correction=0))
