"""argparse → Config: a script's arguments as the fields of a dataclass."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field

from ablate.knobs import KnobError

_FLAGS = (argparse._StoreTrueAction, argparse._StoreFalseAction, argparse.BooleanOptionalAction)
_NOT_KNOBS = (argparse._HelpAction, argparse._VersionAction)
_TYPES = (int, float, str)


def arguments(parser: argparse.ArgumentParser) -> type:
    """A Config of a parser's options: names, types, defaults, choices and help texts are theirs.

    Raises:
        KnobError: for an argument that is required or positional, or that a knob cannot stand for; a line for each.
    """
    fields: list[tuple[str, Any, Any]] = []
    problems: list[str] = []
    for action in parser._actions:
        if isinstance(action, _NOT_KNOBS):
            continue
        try:
            kind, default = _field(action)
        except KnobError as error:
            problems += error.problems
            continue
        doc = (action.help or "").replace("%%", "%").split("\n")[0]
        fields.append((action.dest, Annotated[kind, Field(description=doc)], _default(default)))
    if problems:
        raise KnobError(*problems)
    return dataclasses.make_dataclass("Config", fields)


def _default(value: Any) -> Any:
    return dataclasses.field(default_factory=lambda: list(value)) if isinstance(value, list) else value


def _field(action: argparse.Action) -> tuple[Any, Any]:
    """Type and default of an option."""
    name = action.option_strings[-1] if action.option_strings else action.dest
    if not action.option_strings:
        raise KnobError(f"{name}: is positional; a knob is an option with a default: --{name}")
    if action.required:
        raise KnobError(f"{name}: is required; give it a default, which the command line then changes")
    if isinstance(action, _FLAGS):
        return bool, bool(action.default)
    if not isinstance(action, argparse._StoreAction):
        what = type(action).__name__.strip("_").removesuffix("Action").lower()
        raise KnobError(f"{name}: a {what} action is no knob; write the field into a dataclass by hand")
    return _stored(name, action)


def _stored(name: str, action: argparse.Action) -> tuple[Any, Any]:
    kind: Any = _type_of(name, action)
    default = action.default
    if isinstance(default, str) and kind is not str:
        default = kind(default)  # as argparse does
    if action.choices is not None:
        kind = Literal[tuple(action.choices)]
    if action.nargs is not None and action.nargs != "?":
        kind, default = list[kind], default if default is None else list(default)
    elif kind is float and isinstance(default, int):
        default = float(default)
    return (kind | None if default is None else kind), default


def _type_of(name: str, action: argparse.Action) -> Any:
    if action.type in _TYPES:
        return action.type
    if action.type is not None:
        label = getattr(action.type, "__name__", repr(action.type))
        remedy = "action='store_true'" if action.type is bool else "int, float or str"
        raise KnobError(f"{name}: type={label} is no type of a knob; use {remedy}")
    sample = action.default[0] if isinstance(action.default, (list, tuple)) and action.default else action.default
    # Without a type argparse gives texts; a default that is a number says what was meant.
    return type(sample) if type(sample) in _TYPES else str
