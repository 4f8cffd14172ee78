"""A user's Config: the record whose fields are knobs, and the one that the function gets."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticSerializationError, to_jsonable_python

from ablate.knobs import STRICT, KnobError, fields_of, is_record, knobs_of, nest, plain, read, read_level
from ablate.launch import Launch
from ablate.registry import suggest

FILLED_IN = ("seed", "device")  # fields of a Config that a trial sets: they are no knobs of the task
# A default is checked once, as what a command line would say: as it is, a path is no text.
_CONFIG = STRICT | ConfigDict(validate_default=False)
RESERVED = (*Launch.model_fields, "design", "components", "hydra", "tracking")


class Configuration:
    """Both records of a user's Config.

    Args:
        kind: a dataclass or a pydantic model.

    Attributes:
        knobs: the record that is composed, checked and fingerprinted: without `seed` and `device`.

    Raises:
        KnobError: for a class that is no record, a field without a default, or a name that a launch has.
    """

    def __init__(self, kind: type) -> None:
        if not is_record(kind):
            raise KnobError(f"{kind!r}: a configuration is a dataclass or a pydantic model; add @dataclass above it")
        names = _names(kind)
        for name in names:
            if name in RESERVED and name not in FILLED_IN:
                raise KnobError(
                    f"{kind.__name__}.{name}: every launch has a knob of this name; rename the field, "
                    f"for example {name}_of_model"
                )
        self._filled = [name for name in FILLED_IN if name in names]
        self._full = _full(kind)
        self.knobs = self._knobs(kind)
        _check_defaults(self.knobs)
        self.full(read(self.knobs, {}), seed=0, device="cpu")

    def _knobs(self, kind: type) -> type:
        if not self._filled:
            return self._full
        own = {name: field for name, field in fields_of(self._full).items() if name not in self._filled}
        fields: dict[str, Any] = {name: (field.annotation, field) for name, field in own.items()}
        made = pydantic.create_model(kind.__name__, __config__=_CONFIG, __module__=kind.__module__, **fields)
        return typing.cast(type, made)

    def full(self, config: Any, *, seed: int, device: str) -> Any:
        """What the function gets: an instance of the user's class. Raises KnobError for values that it refuses."""
        own = {"seed": seed, "device": device}
        return read(self._full, plain(config) | {name: own[name] for name in self._filled})

    def of(self, knobs: Mapping[str, Any]) -> Any:
        """The record of values by name: "lr", "optimizer.lr". Raises KnobError."""
        return read(self.knobs, nest(to_jsonable_python(dict(knobs))))


def level_problem(kind: type, override: str) -> str | None:
    """Why "dropout=0" sets no knob of a record, and what would; None: it does."""
    name, sign, text = override.partition("=")
    known = knobs_of(kind)
    if not sign:
        return f"{override}: needs a value, for example {name}=0"
    if name not in known:
        return f"{override}: unknown knob {name!r}{suggest(name, known)}"
    refusals = [knob.refusal(read_level(text)) for knob in known[name]]
    return f"{override}: {name} {refusals[0]}" if all(refusals) else None


def _names(kind: type) -> list[str]:
    if issubclass(kind, BaseModel):
        return list(kind.model_fields)
    return [field.name for field in dataclasses.fields(typing.cast(Any, kind))]


def _full(kind: type) -> type:
    """The user's class, checked strictly."""
    try:
        made = _strict(kind)
    except (pydantic.errors.PydanticUserError, NameError) as error:
        raise KnobError(f"{kind.__name__}: {str(error).splitlines()[0]}") from error
    for name, field in fields_of(made).items():
        if field.is_required() and name not in FILLED_IN:
            raise KnobError(f"{kind.__name__}.{name}: has no default; every knob has one, for example {name} = 1")
    return made


def _strict(kind: type) -> type:
    if problems := list(_without_type(kind)):
        raise KnobError(*problems)
    if issubclass(kind, BaseModel):
        return type(kind.__name__, (kind,), {"model_config": _CONFIG, "__module__": kind.__module__})
    frozen = bool(kind.__dataclass_params__.frozen)  # type: ignore[attr-defined]
    return typing.cast(type, pydantic.dataclasses.dataclass(kind, config=_CONFIG, frozen=frozen))


def _without_type(kind: type) -> Iterator[str]:
    """Python takes a value without a type for one of the class, not for a field: it would be no knob, silently."""
    typed = inspect.get_annotations(kind)
    for name, value in vars(kind).items():
        if name.islower() and not name.startswith("_") and name not in typed and type(value) in (bool, int, float, str):
            written = f"{name}: {type(value).__name__} = {value!r}"
            yield f"{kind.__name__}.{name}: has no type, and is no knob without; write {written}"


def _check_defaults(kind: type) -> None:
    try:
        made = kind()
    except pydantic.ValidationError:  # a rule of the user's own
        made = read(kind, {})
    try:
        values = plain(made)
    except PydanticSerializationError:
        raise KnobError(*[problem for name in fields_of(kind) if (problem := _no_text(kind, name, made))]) from None
    read(kind, values)


def _no_text(kind: type, name: str, made: Any) -> str | None:
    try:
        to_jsonable_python(getattr(made, name))
    except PydanticSerializationError:
        what = type(getattr(made, name)).__name__
        return f'{kind.__name__}.{name}: a {what} is no value of a knob; choose it by a text, for example {name} = "a"'
    return None
