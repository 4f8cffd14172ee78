"""Components: parts with an off level, as a configuration declares them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ablate.knobs import KnobError, read_level
from ablate.launch import COMPONENT_PARTS
from ablate.registry import suggest
from ablate.study.conditions import Condition, Known, Values, read_condition

_EXAMPLE = '+components.clipping="clip=null"'


@dataclass(frozen=True)
class Component:
    """A part with an off level.

    Attributes:
        off: knob → level, the overrides that switch it off.
        requires: conditions that hold wherever it is on.
        excludes: conditions that hold nowhere where it is on.
        idle: conditions under which it does nothing: a full model where one holds is as good as without it.
    """

    name: str
    off: Mapping[str, str]
    requires: tuple[Condition, ...] = ()
    excludes: tuple[Condition, ...] = ()
    idle: tuple[Condition, ...] = ()

    def is_on(self, values: Values) -> bool:
        """Whether any of its knobs differs from its off level."""
        return any(values.get(knob) != read_level(level) for knob, level in self.off.items())

    def missing(self, full: Values) -> str | None:
        """Why a full model with these knobs has nothing of it to lose; None: it has."""
        if not self.is_on(full):
            return f"{self.name} is off in the full model"
        where = self.idle_where(full)
        return None if where is None else f"{self.name} does nothing in the full model, where {where}"

    def idle_where(self, values: Values) -> str | None:
        """The condition under which it does nothing in a cell with these knobs; None: it does something."""
        return next((condition.text for condition in self.idle if condition.holds(values)), None)

    def refusal(self, values: Values) -> str | None:
        """Why a cell with these knobs cannot be, for example "tying requires embedding=hidden"; None: it can."""
        if not self.is_on(values):
            return None
        for condition in self.requires:
            if not condition.holds(values):
                return f"{self.name} requires {condition.text}"
        for condition in self.excludes:
            if condition.holds(values):
                return f"{self.name} excludes {condition.text}"
        return None


def declared(values: object, known: Known) -> dict[str, Component]:
    """The components that a configuration declares, by name.

    Args:
        values: name → declaration; known: the knobs that there are.

    Raises:
        KnobError: with all that is wrong with them.
    """
    if not isinstance(values, Mapping):
        raise KnobError(f"components={values}: must be a mapping; for example {_EXAMPLE}")
    found: dict[str, Component] = {}
    problems: list[str] = []
    for name, declaration in values.items():
        try:
            found[str(name)] = _component(str(name), declaration, known)
        except KnobError as error:
            problems += error.problems
    if problems:
        raise KnobError(*problems)
    return found


def _component(name: str, declaration: object, known: Known) -> Component:
    where = f"components.{name}"
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise KnobError(f"{where}: a component's name is of letters, digits and _; for example {_EXAMPLE}")
    given = declaration if isinstance(declaration, Mapping) else {"off": declaration}
    given = {"off" if key is False else key: part for key, part in given.items()}  # YAML reads a bare off as false
    if extra := [str(key) for key in given if key not in COMPONENT_PARTS]:
        parts = ", ".join(COMPONENT_PARTS)
        raise KnobError(f"{where}: {extra[0]} is none of {parts}{suggest(extra[0], COMPONENT_PARTS)}")
    off = given.get("off")
    if not isinstance(off, str) or not off.strip():
        raise KnobError(f"{where}: needs the override that switches it off; for example {_EXAMPLE}")
    return Component(
        name,
        dict(_off_level(where, override, known) for override in off.split()),
        **{part: _conditions(f"{where}.{part}", given.get(part), known) for part in ("requires", "excludes", "idle")},
    )


def _conditions(where: str, given: object, known: Known) -> tuple[Condition, ...]:
    texts = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise KnobError(f"{where}={given} is no condition; for example requires: embedding=hidden")
    return tuple(read_condition(text, where, known) for text in texts)


def _off_level(where: str, override: str, known: Known) -> tuple[str, str]:
    knob, _, level = override.partition("=")
    if knob not in known:
        raise KnobError(f"{where}={override}: unknown knob {knob!r}{suggest(knob, known)}")
    refusals = [each.refusal(read_level(level)) for each in known[knob]]
    if all(refusal is not None for refusal in refusals):
        raise KnobError(f"{where}={override}: {knob} {refusals[0]}")
    return knob, level
