"""What a user can turn, and how it is checked: records of pydantic, and its errors as one line each.

A record is a class whose fields are knobs: `Launch`, `Design`, and the configuration of a task. `read` turns a plain
mapping (Hydra's resolved config) into one, or raises one `KnobError` that lists everything that is wrong with it.
Nothing is ignored, clamped or repaired.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import annotated_types as at
import pydantic
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ablate.registry import Registry, suggest

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)
Parsed = TypeVar("Parsed")


class KnobError(ValueError):
    """A user's values cannot be run. `problems` holds one line for each: knob, value, rule, what would work."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Record(BaseModel):
    """A record of knobs."""

    model_config = STRICT | ConfigDict(frozen=True)


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
        if name not in self.registry.names():
            raise PydanticCustomError("unknown_name", "unknown name")
        return name


def knob(doc: str, good: object = None, **roles_and_limits: Any) -> Any:
    """Declare a knob of a record.

    Args:
        doc: its meaning, one line.
        good: a value that works, for messages.
        roles_and_limits: `decides=False`: it does not decide a trial's result, and is no part of its fingerprint;
            `packs=True`: trials of a pack may differ in it; `path=True`: it may hold any text, a secret of the
            environment too; `preset=True`: its value is the name of the preset that set other knobs, those
            that have `set_by` its name on purpose;
            `follows="hidden"`: where it is not typed it has that knob's value. All else are limits of
            `pydantic.Field`: ge, gt, le, lt, pattern, discriminator.
    """
    roles = {name: roles_and_limits.pop(name) for name in _ROLES if name in roles_and_limits}
    return Field(
        description=doc,
        examples=None if good is None else [good],
        json_schema_extra=roles or None,
        **roles_and_limits,
    )


_ROLES = ("decides", "packs", "path", "preset", "set_by", "follows")


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
        return any(kind in (int, float) for kind, _ in _alternatives(self.field.annotation, self.field.metadata))

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
        return f"; for example {show(self._good)}" if self.is_number and self._good is not None else ""

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        kind: Any = self.field.annotation
        if self.field.metadata:
            kind = Annotated[kind, *self.field.metadata]
        return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))


def _alternatives(annotation: Any, metadata: Sequence[Any] = ()) -> list[tuple[Any, list[Any]]]:
    """The types of a union, each with what its annotation says of it."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _alternatives(inner, [*metadata, *more])
    if get_origin(annotation) in (Union, types.UnionType):
        return [each for arg in get_args(annotation) for each in _alternatives(arg, metadata)]
    flat = [part for data in metadata for part in (data.metadata if isinstance(data, FieldInfo) else [data])]
    return [(annotation, flat)]


def _words(annotation: Any, metadata: Sequence[Any], good: object) -> str:
    kinds = _alternatives(annotation, metadata)
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
        return "a list" if good is None else f"a list, for example {show(good)}"
    return {str: "a text", Path: "a path"}.get(kind, getattr(kind, "__name__", str(kind)))


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
    for kind, data in _alternatives(annotation, metadata):
        found += [name for d in data if isinstance(d, OneOf) for name in d.registry.names()]
        if get_origin(kind) is Literal:
            found += [show(value) for value in get_args(kind)]
        elif isinstance(kind, type) and issubclass(kind, Enum):
            found += [show(member.value) for member in kind]
    return found


def _plain(number: float) -> str:
    return f"{number:.0f}" if float(number).is_integer() else f"{number:g}"


def is_record(kind: object) -> bool:
    """Whether a type is a record of knobs: a model of pydantic, or a dataclass."""
    return isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))


def fields_of(kind: type) -> dict[str, FieldInfo]:
    """The fields of a record by name."""
    found = getattr(kind, "__pydantic_fields__", None)
    if found is None:  # a plain dataclass inside a record
        found = pydantic.dataclasses.dataclass(kind).__pydantic_fields__
    return dict(found)


@cache
def knobs_of(kind: type) -> Mapping[str, tuple[Knob, ...]]:
    """Every knob of a record by the name that is typed; one of a nested record may differ between its kinds."""
    found: dict[str, tuple[Knob, ...]] = {}
    for each in _walk(kind, ""):
        found[each.name] = (*found.get(each.name, ()), each)
    return found


@cache
def nameable(kind: type) -> Mapping[str, Sequence[Knob]]:
    """What a condition or a component can name: every knob, and a nested record by its kind, data=ptb."""
    tagged = {name: tags for name, field in fields_of(kind).items() if (tags := _tags(field))}
    kinds = {name: FieldInfo(annotation=Literal[tuple(tags)]) for name, tags in tagged.items()}  # type: ignore[arg-type]
    return {**knobs_of(kind), **{name: (Knob(name, field),) for name, field in kinds.items()}}


def values_of(record: Any) -> dict[str, Any]:
    """The value of everything that is `nameable`."""
    values = flat(record)
    tagged = [name for name, field in fields_of(type(record)).items() if _tags(field)]
    return values | {name: values[f"{name}.name"] for name in tagged}


def _tags(field: FieldInfo) -> list[str]:
    """The names of the kinds that a nested record has."""
    own = [fields_of(record).get("name") for record in nested_records(field)]
    return [str(tag) for name in own if name is not None for tag in get_args(name.annotation)]


def _walk(kind: type, prefix: str, outer: FieldInfo | None = None) -> Iterator[Knob]:
    for name, field in fields_of(kind).items():
        if nested := nested_records(field):
            for record in nested:
                yield from _walk(record, f"{prefix}{name}.", field)
        else:
            yield Knob(prefix + name, field, outer)


def nested_records(field: FieldInfo) -> list[type]:
    """The records that a field may hold; [] where it holds a value."""
    return [each for each, _ in _alternatives(field.annotation) if is_record(each)]


def read(kind: type[Parsed], values: Mapping[str, Any], prefix: str = "") -> Parsed:
    """The record of a plain mapping.

    Args:
        prefix: what its knobs are typed with: "design.".

    Raises:
        KnobError: with a line for every value that is unknown, missing or out of range.
    """
    try:
        found: Parsed = _adapter(typing.cast(Any, kind)).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise KnobError(*_problems(kind, values, error, prefix)) from None
    return found


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


_EXTRA = ("extra_forbidden", "unexpected_keyword_argument")


def _problems(kind: type, values: Mapping[str, Any], error: ValidationError, prefix: str) -> list[str]:
    found: dict[str, str] = {}
    wrong: set[str] = set()
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        name = _knob_name(kind, [str(part) for part in one["loc"]], one["type"] in _EXTRA)
        if name not in found:
            found[name] = _problem(kind, name, values, one)
            wrong.add(name)
    followers = {
        name
        for name in wrong
        for each in knobs_of(kind).get(name, ())
        if each.role("follows") in wrong and values.get(name) == values.get(each.role("follows"))
    }
    return [prefix + text for name, text in found.items() if name not in followers]


def _knob_name(kind: type, loc: Sequence[str], is_extra: bool) -> str:
    """The dotted name of what an error is about: without the tags of unions and the places in lists."""
    known = knobs_of(kind)
    name = ""
    for part in loc:
        longer = f"{name}.{part}" if name else part
        if longer in known:
            return longer
        if any(each.startswith(f"{longer}.") for each in known) or (is_extra and part is loc[-1]):
            name = longer
    return name or ".".join(loc)


def _problem(kind: type, name: str, values: Mapping[str, Any], error: Any) -> str:
    knobs = knobs_of(kind)
    value = _at(values, name)
    if error["type"] in _EXTRA:
        near = suggest(name, knobs)
        return f"{name}={show(value)}: unknown knob{near}"
    if name not in knobs:
        return _no_such_record(kind, name, value, error)
    each = knobs[name][0] if len(knobs[name]) == 1 else next(k for k in knobs[name] if _belongs(kind, k, values))
    if error["type"] == "missing":
        return f"{name}: missing; {each.doc}"
    if value is None and name not in values and not each.field.is_required():
        value = each.field.get_default(call_default_factory=True)
    refusal = each.refusal(value)
    if refusal is None:  # a rule of the user's own
        refusal = str(error["msg"]).removeprefix("Value error, ")
    return f"{name}={show(value)}: {refusal}{'' if '.' in name else _hint(name, value)}"


def _belongs(kind: type, each: Knob, values: Mapping[str, Any]) -> bool:
    """Whether a knob of a nested record is that of the kind which was chosen."""
    group, _, rest = each.name.rpartition(".")
    chosen = _at(values, f"{group}.name")
    for record in nested_records(fields_of(kind)[group]):
        own = fields_of(record)
        tags = get_args(own["name"].annotation) if "name" in own else ()
        if chosen in tags:
            return own.get(rest) is each.field
    return True


def _no_such_record(kind: type, name: str, value: object, error: Any) -> str:
    if name in fields_of(kind) and (tags := _tags(fields_of(kind)[name])):
        tag = value.get("name") if isinstance(value, Mapping) else value
        return f"{name}={tag}: must be one of {', '.join(tags)}{suggest(str(tag), tags)}"
    return f"{name}={show(value)}: {error['msg']}"


def _at(values: Mapping[str, Any], name: str) -> Any:
    found: Any = values
    for part in name.split("."):
        if not isinstance(found, Mapping):
            return found
        found = found.get(part)
    return found


def _hint(name: str, value: object) -> str:
    """What to type instead of a comma list in quotes."""
    if not isinstance(value, str) or "," not in value:
        return ""
    return f"; the levels of a factor go without quotes: -m {name}={value.replace(' ', '')}"


def flat(record: Any, prefix: str = "") -> dict[str, Any]:
    """Every knob of a record by the name that is typed, as a plain value."""
    found: dict[str, Any] = {}
    for name in fields_of(type(record)):
        value = getattr(record, name)
        if is_record(type(value)):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = _plain_value(value)
    return found


def _plain_value(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        return TypeAdapter(type(value)).dump_python(value, mode="json")
    return value


def named(kind: type, role: str, otherwise: Any = None) -> list[str]:
    """Names of the knobs of a record that have a role."""
    return [name for name, knobs in knobs_of(kind).items() if knobs[0].role(role, otherwise)]


def deciding(record: Any) -> dict[str, Any]:
    """The knobs that decide a trial's result, by name."""
    decides = set(named(type(record), "decides", True))
    return {name: value for name, value in flat(record).items() if name in decides}


def describe(kind: type, prefix: str = "") -> list[str]:
    """Every knob of a record with its meaning and its range, a line each."""
    lines = []
    for name, field in fields_of(kind).items():
        if nested := nested_records(field):
            for record in nested:
                tag = get_args(fields_of(record)["name"].annotation) if "name" in fields_of(record) else ()
                lead = f"{name}={tag[0]}: {name}." if tag else f"{prefix}{name}."
                lines += [line for line in describe(record, lead) if f"{lead}name " not in line]
        else:
            each = Knob(prefix + name, field)
            lines.append(
                f"  {each.name:<16} {each.doc} ({each.range})" if each.doc else f"  {each.name:<16} {each.range}"
            )
    return lines


def show(value: object) -> str:
    """A value as it is typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(show, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def as_record(kind: type) -> type:
    """A user's dataclass or pydantic model as a record that is checked strictly; its name and fields are the same.

    Raises:
        KnobError: for a class that is neither, for a field without a default or with one that its type refuses.
    """
    if not is_record(kind):
        raise KnobError(f"{kind!r}: a configuration is a dataclass or a pydantic model; add @dataclass above it")
    try:
        record = _strict(kind)
    except pydantic.errors.PydanticUserError as error:
        raise KnobError(f"{kind.__name__}: {str(error).splitlines()[0]}") from error
    if absent := [name for name, field in fields_of(record).items() if field.is_required()]:
        raise KnobError(f"{kind.__name__}.{absent[0]}: has no default; every knob has one, for example {absent[0]} = 1")
    read(record, {})
    return record


def _strict(kind: type) -> type:
    if issubclass(kind, BaseModel):
        return types.new_class(kind.__name__, (kind,), {}, lambda body: body.update(model_config=STRICT))
    return typing.cast(type, pydantic.dataclasses.dataclass(kind, config=STRICT))


def plain(record: Any) -> dict[str, Any]:
    """A record as the plain mapping that `read` makes it of."""
    values = _adapter(typing.cast(Any, type(record))).dump_python(record, mode="json")
    assert isinstance(values, dict)
    return values
