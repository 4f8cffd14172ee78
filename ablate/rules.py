"""What a knob may be, in words: the rule that its type makes, and what would work instead of a value it refuses."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as at
from pydantic import ConfigDict, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ablate.registry import Registry, suggest


@dataclass(frozen=True)
class Says:
    """How a rule is put to a user where its type does not say it: "a path"."""

    text: str


@dataclass(frozen=True)
class OneOf:
    """A name that a registry knows."""

    registry: Registry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def _known(self, name: str) -> str:
        if not self.registry.knows(name):
            raise PydanticCustomError("unknown_name", "unknown name")
        return name


@dataclass(frozen=True)
class Knob:
    """One knob of a record.

    Attributes:
        name: as it is typed, "data.vocab_size" for a field of a nested record.
        outer: the field that holds the nested record; what it decides not, its knobs do not decide.
    """

    name: str
    field: FieldInfo
    outer: FieldInfo | None = None

    @property
    def doc(self) -> str:
        """Its meaning."""
        return self.field.description or ""

    def role(self, name: str, otherwise: Any = None) -> Any:
        """What `knob` was told of a role."""
        for field in (self.field, self.outer):
            extra = None if field is None else field.json_schema_extra
            if isinstance(extra, dict) and name in extra:
                return extra[name]
        return otherwise

    @cached_property
    def range(self) -> str:
        """The values it takes, in words."""
        return _words(self.field.annotation, self.field.metadata, self._good)

    @property
    def _good(self) -> object:
        if self.field.examples:
            return self.field.examples[0]
        return None if self.field.is_required() else self.field.get_default(call_default_factory=True)

    @property
    def is_number(self) -> bool:
        """Whether its values have an order."""
        return any(kind in (int, float) for kind, _ in alternatives(self.field.annotation, self.field.metadata))

    def refusal(self, value: object) -> str | None:
        """Why a value is refused, and what would work; None when it is fine."""
        try:
            self._adapter.validate_json(json.dumps(value, default=str))
        except ValidationError:
            return f"must be {self.range}{self._remedy(value)}"
        return None

    def _remedy(self, value: object) -> str:
        if names := _names(self.field.annotation, self.field.metadata):
            return suggest(str(value), names)
        if "a text" in self.range and isinstance(value, (int, float)):
            return f"""; in quotes it is one, '{self.name}="{show(value)}"'"""
        if not self.is_number or self._good is None or (not self.field.examples and show(self._good) == show(value)):
            return ""  # the default itself may be what is refused
        return f"; for example {show(self._good)}"

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        kind: Any = self.field.annotation
        if self.field.metadata:
            kind = Annotated[kind, *self.field.metadata]
        return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))


def alternatives(annotation: Any, metadata: Sequence[Any] = ()) -> list[tuple[Any, list[Any]]]:
    """The types of a union, each with what its annotation says of it."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return alternatives(inner, [*metadata, *more])
    if get_origin(annotation) in (Union, types.UnionType):
        return [each for arg in get_args(annotation) for each in alternatives(arg, metadata)]
    flat = [part for data in metadata for part in (data.metadata if isinstance(data, FieldInfo) else [data])]
    return [(annotation, flat)]


def _words(annotation: Any, metadata: Sequence[Any], good: object) -> str:
    kinds = alternatives(annotation, metadata)
    optional = ", or null" if any(kind is type(None) for kind, _ in kinds) else ""
    # "auto, or a whole number"
    literal_first = sorted((k for k in kinds if k[0] is not type(None)), key=lambda k: get_origin(k[0]) is not Literal)
    alone = len(literal_first) == 1
    return ", or ".join(_one(kind, data, good, alone) for kind, data in literal_first) + optional


def _one(kind: Any, metadata: Sequence[Any], good: object, alone: bool) -> str:
    if said := next((data.text for data in metadata if isinstance(data, Says)), None):
        return str(said)
    if names := _names(kind, metadata):
        return f"one of {', '.join(names)}" if alone else ", ".join(names)
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return _number(kind, metadata)
    if (get_origin(kind) or kind) in (list, tuple, set, frozenset, Sequence):
        return f"a list{_of(kind)}" if good is None else f"a list{_of(kind)}, for example {show(good)}"
    return {str: "a text", Path: "a path"}.get(kind, getattr(kind, "__name__", str(kind)))


def _of(kind: Any) -> str:
    """What a list has to hold, where that is numbers alone: " of 2 whole numbers"."""
    items = [item for item in get_args(kind) if item is not Ellipsis]
    noun = {int: "whole numbers", float: "finite numbers"}.get(items[0]) if len({*items}) == 1 else None
    if noun is None:
        return ""
    is_fixed = get_origin(kind) is tuple and Ellipsis not in get_args(kind)
    return f" of {len(items)} {noun}" if is_fixed else f" of {noun}"


def _number(kind: type, metadata: Sequence[Any]) -> str:
    noun = "a whole number" if kind is int else "a finite number"
    bounds = []
    for rule in sorted(metadata, key=lambda rule: isinstance(rule, (at.Le, at.Lt))):
        for of, word in ((at.Ge, "at least"), (at.Gt, "above"), (at.Le, "at most"), (at.Lt, "below")):
            if isinstance(rule, of):
                bounds.append(f"{word} {_plain(getattr(rule, of.__name__.lower()))}")
    return " ".join([noun, " and ".join(bounds)]).rstrip()


def _names(annotation: Any, metadata: Sequence[Any] = ()) -> list[str]:
    """The names that it chooses among; [] where it does not."""
    found: list[str] = []
    for kind, data in alternatives(annotation, metadata):
        found += [name for d in data if isinstance(d, OneOf) for name in d.registry.names()]
        if get_origin(kind) is Literal:
            found += [show(value) for value in get_args(kind)]
        elif isinstance(kind, type) and issubclass(kind, Enum):
            found += [show(member.value) for member in kind]
    return found


def _plain(number: float) -> str:
    return f"{number:.0f}" if float(number).is_integer() else f"{number:g}"


def show(value: object) -> str:
    """A value as it is typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, (set, frozenset)):  # which has another order in every process
        value = sorted(value, key=str)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(show, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


_WORDS = {"null": None, "true": True, "false": False}
_WHOLE, _DIGITS = r"(?:0|[1-9](?:_?\d)*)", r"\d(?:_?\d)*"
_NUMBER = re.compile(
    rf"[+-]?(?:(?:{_WHOLE}?\.{_DIGITS}|{_WHOLE}\.?)(?:e[+-]?{_DIGITS})?|inf|nan)", re.ASCII | re.IGNORECASE
)
_QUOTED = re.compile(r"""(["'])((?:\\.|(?!\1).)*)\1""", re.DOTALL)


def read_level(text: str) -> object:
    """A level as it is typed, read as Hydra reads it: null, true, false, a number, a quoted text, a list, or a name.

    A list or mapping has to be JSON: what is none is a text.
    """
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _NUMBER.fullmatch(text):
        try:
            return int(text)
        except ValueError:
            return float(text)
    if quoted := _QUOTED.fullmatch(text):
        return quoted[2].replace(f"\\{quoted[1]}", quoted[1])
    if text.startswith(("[", "{")):
        with suppress(ValueError):
            return json.loads(text)
    return text
