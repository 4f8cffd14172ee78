"""Conditions on a cell's knobs, as a user writes them: "tie=true & embedding!=hidden"."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.knobs import Knob, KnobError, read_level
from ablate.registry import suggest

_EXAMPLE = "tie=true & embedding!=hidden"
_COMPARISON = re.compile(r"([\w.]+)\s*(!=|<=|>=|=|<|>)\s*([^\s=<>!&|]+)")
_SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip

Values = Mapping[str, object]
Known = Mapping[str, Sequence[Knob]]


@dataclass(frozen=True)
class Comparison:
    """A knob beside a level, or beside another knob.

    Attributes:
        level: what it is compared with; None, and `other` the knob's name, where that is a knob.
    """

    knob: str
    sign: str
    level: object
    other: str | None

    def holds(self, values: Values) -> bool:
        """Whether it does; a knob that the cell does not have (`data.path` with data=ptb), or null, has no order."""
        if self.knob not in values or (self.other is not None and self.other not in values):
            return False
        left, right = values[self.knob], self.level if self.other is None else values[self.other]
        if self.sign not in ("=", "!=") and (left is None or right is None):
            return False
        return _SIGNS[self.sign](left, right)


@dataclass(frozen=True)
class Condition:
    """All of its comparisons hold; `text` is how the user wrote it."""

    text: str
    comparisons: tuple[Comparison, ...]

    def holds(self, values: Values) -> bool:
        """Whether all do, for the values that `ablate.knobs.flat` returns."""
        return all(comparison.holds(values) for comparison in self.comparisons)


def read_condition(text: str, where: str, known: Known) -> Condition:
    """A conjunction of comparisons.

    Args:
        known: the knobs that it can name.
        where: what a message starts with, for example "design.exclude".

    Raises:
        KnobError: when it cannot be read, or names what is no knob or no level; with an example that works.
    """
    parts = text.split("&")
    if any(not part.strip() for part in parts) or re.search(r"==|\||,|\band\b|\bor\b", text):
        raise _unreadable(text, where)
    return Condition(" ".join(text.split()), tuple(_comparison(part.strip(), text, where, known) for part in parts))


def _comparison(part: str, text: str, where: str, known: Known) -> Comparison:
    match = _COMPARISON.fullmatch(part)
    if match is None:
        raise _unreadable(text, where)
    name, sign, right = match.groups()
    if name not in known:
        raise KnobError(f"{where}={text}: unknown knob {name!r}{suggest(name, known)}")
    ordered = sign not in ("=", "!=")
    if ordered and not _is_number(known[name]):
        raise KnobError(f"{where}={text}: {name} has no order; compare it with = or !=, for example {_EXAMPLE}")
    level = read_level(right)
    # A word that the knob can be is a level (model=rnn), any other the name of a knob (embedding!=hidden).
    if any(rule.refusal(level) is None for rule in known[name]) or (ordered and isinstance(level, (int, float))):
        return Comparison(name, sign, level, None)
    if right in known and (not ordered or _is_number(known[right])):
        return Comparison(name, sign, None, right)
    refusal = known[name][0].refusal(level)
    near = suggest(right, known) if isinstance(level, str) else ""
    raise KnobError(f"{where}={text}: {right} is no level of {name} and no knob{near}; {name} {refusal}")


def _is_number(knobs: Sequence[Knob]) -> bool:
    return any(knob.is_number for knob in knobs)


def _unreadable(text: str, where: str) -> KnobError:
    return KnobError(
        f"{where}={text}: cannot be read; a condition is comparisons (= != < <= > >=) of knobs joined by a single &, "
        f'several are several in the list; for example design.exclude=["{_EXAMPLE}"]'
    )
