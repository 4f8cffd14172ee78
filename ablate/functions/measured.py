"""What a function logged: checked, and the best, last and first values of each metric."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ablate.functions.state import RunError
from ablate.metric import Metric

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-./ ]*")  # what MLflow takes


def numbers_of(metrics: Sequence[Metric], given: Mapping[str, Any]) -> dict[str, float]:
    """What was logged as floats, without what is None. Raises RunError for what cannot be logged."""
    found = {}
    for name, value in given.items():
        _check_name(metrics, name)
        if value is not None:
            found[name] = number_of(f"log({name}=…)", value)
    return found


def number_of(where: str, value: Any) -> float:
    """A number, an array or a tensor of one element as a float. Raises RunError for anything else."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError):
        several = hasattr(value, "__len__") and not isinstance(value, (str, bytes))
        remedy = f" of {len(value)}; for example its mean" if several else ""
        raise RunError(f"{where}: must be one number, not a {type(value).__name__}{remedy}") from None


def _check_name(metrics: Sequence[Metric], name: str) -> None:
    if not _NAME.fullmatch(name):
        raise RunError(f"log: {name!r} is no name; use letters, digits, '_', '-', '.', '/' and blanks")
    if name.startswith("test_"):
        raise RunError(f"log({name}=…): test data is read once, at the end; return {{{name!r}: …}} from the function")
    for metric in metrics:
        for split in ("train", "valid"):
            if metric.logged is not None and name == f"{split}_{metric.name}":
                raise RunError(f"log({name}=…): log {split}_{metric.logged}=…, the logarithm of {metric.name}")


@dataclass
class Measured:
    """The values of each metric so far, by the name under which it is recorded.

    Attributes:
        first: logged as `train_` before the first step.
        last: logged last as `valid_`; best: the best of those; best_step: where that of the first metric was.
        at_best: logged as `valid_` together with the best of the first metric.
    """

    metrics: Sequence[Metric]
    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    at_best: dict[str, float] = field(default_factory=dict)
    best_step: int | None = None

    def take(self, step: int, values: Mapping[str, float]) -> bool:
        """Take in what was logged; returns whether the valid value of the first metric is a new best."""
        is_new_best = False
        for metric in self.metrics:
            name = metric.recorded
            train, valid = values.get(f"train_{name}"), values.get(f"valid_{name}")
            if train is not None and step == 0:
                self.first.setdefault(name, train)
            if valid is None:
                continue
            self.last[name] = valid
            if math.isfinite(valid) and (name not in self.best or metric.sign * valid < metric.sign * self.best[name]):
                self.best[name] = valid
                is_new_best |= metric is self.metrics[0]
        if is_new_best:
            self.best_step = step
            names = [metric.recorded for metric in self.metrics]
            self.at_best = {name: values[f"valid_{name}"] for name in names if f"valid_{name}" in values}
        return is_new_best

    def values(self, tested_best: bool) -> dict[str, float | None]:
        """As an outcome has them; `tested_best`: valid values are those of the best weights."""
        valid = self.last | self.at_best if tested_best else self.last
        return {
            **{f"first_{name}": value for name, value in self.first.items()},
            **{f"best_valid_{name}": value for name, value in self.best.items()},
            **{f"valid_{name}": _finite(value) for name, value in valid.items()},
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        found = asdict(self)
        del found["metrics"]
        return found

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`."""
        for name, value in state.items():
            setattr(self, name, dict(value) if isinstance(value, dict) else value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
