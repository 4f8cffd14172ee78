"""What a user can turn, and how it is checked: records of pydantic, and its errors as one line each.

A record is a class whose fields are knobs: `Launch`, `Design`, and the configuration of a task. `read` turns a plain
mapping (Hydra's resolved config) into one, or raises one `KnobError` that lists everything that is wrong with it.
Nothing is ignored, clamped or repaired.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeVar, get_args

import pydantic
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from ablate.registry import suggest
from ablate.rules import Knob, OneOf, Says, alternatives, read_level, show

__all__ = [
    "Knob", "KnobError", "OneOf", "Record", "Says", "deciding", "fields_of", "flat",
    "is_record", "knob", "knobs_of", "nameable", "named", "nest", "nested_records", "plain", "read", "read_level",
    "show", "values_of",
]  # fmt: skip

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


def knob(doc: str, good: object = None, **roles_and_limits: Any) -> Any:
    """Declare a knob of a record.

    Args:
        doc: its meaning, one line.
        good: a value that works, for messages.
        roles_and_limits: `decides=False`: it does not decide a trial's result, and is no part of its fingerprint;
            `packs=True`: trials of a pack may differ in it; `path=True`: it may hold any text, a secret of the
            environment too; `preset=True`: its value is the name of the preset that set other knobs, those
            that have `set_by` its name on purpose;
            `follows="hidden"`: where it is not typed it has that knob's value; `noise="the order of the text"`: it
            is the seed of that source of noise alone, null: the trial's; `needs="dropout"`: such a seed does nothing
            where that knob is 0; `group="Model"`: heading in the help of this knob and those after it. All else are
            limits of `pydantic.Field`: ge, gt, le, lt, pattern, discriminator.
    """
    roles = {name: roles_and_limits.pop(name) for name in _ROLES if name in roles_and_limits}
    return Field(
        description=doc,
        examples=None if good is None else [good],
        json_schema_extra=roles or None,
        **roles_and_limits,
    )


_ROLES = ("decides", "packs", "path", "preset", "set_by", "follows", "noise", "needs", "group")


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
    return [each for each, _ in alternatives(field.annotation) if is_record(each)]


def read(kind: type[Parsed], values: Mapping[str, Any], prefix: str = "") -> Parsed:
    """The record of a plain mapping.

    Args:
        prefix: what its knobs are typed with: "design.".

    Raises:
        KnobError: with a line for every value that is unknown, missing or out of range.
    """
    try:
        found: Parsed = _adapter(typing.cast(Any, kind)).validate_json(
            json.dumps(values, default=str), strict=True, extra="forbid"
        )
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
            found[prefix + name] = plain_value(value)
    return found


def nest(record: Mapping[str, Any]) -> dict[str, Any]:
    """What `flat` gives, {"optimizer.lr": 1}, as `read` takes it: {"optimizer": {"lr": 1}}."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        *groups, last = name.split(".")
        place = found
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return found


def plain_value(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, (set, frozenset)):
        return sorted((plain_value(each) for each in value), key=str)  # a set has another order in every process
    return to_jsonable_python(value)


def named(kind: type, role: str, otherwise: Any = None) -> list[str]:
    """Names of the knobs of a record that have a role."""
    return [name for name, knobs in knobs_of(kind).items() if knobs[0].role(role, otherwise)]


def deciding(record: Any) -> dict[str, Any]:
    """The knobs that decide a trial's result, by name."""
    decides = set(named(type(record), "decides", True))
    return {name: value for name, value in flat(record).items() if name in decides}


def plain(record: Any) -> dict[str, Any]:
    """A record as the plain mapping that `read` makes it of."""
    values = _adapter(typing.cast(Any, type(record))).dump_python(record, mode="json", warnings=False)
    assert isinstance(values, dict)
    return values
