"""Knobs as a help shows them: meaning, range and default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from ablate.knobs import Knob, fields_of, nested_records, plain_value, show


@dataclass(frozen=True)
class Description:
    """A knob as the help shows it: the heading that it stands under, its name, and its meaning, range and default."""

    group: str
    name: str
    text: str


def describe(kind: type, prefix: str = "", values: object = None, group: str = "") -> list[Description]:
    """Every knob of a record.

    Args:
        values: the defaults, as the plain mapping that `read` takes; the record's own where it has none.
        group: heading of the first knob, where the record does not say.
    """
    lines: list[Description] = []
    given: Mapping[str, Any] = values if isinstance(values, Mapping) else {}
    for name, field in fields_of(kind).items():
        group = Knob(name, field).role("group", group)
        if nested := nested_records(field):
            for record in nested:
                tag = get_args(fields_of(record)["name"].annotation) if "name" in fields_of(record) else ()
                lead = f"{name}={tag[0]}: {name}." if tag else f"{prefix}{name}."
                of_record = given.get(name)
                if tag and isinstance(of_record, Mapping) and of_record.get("name") not in tag:
                    of_record = None  # of another kind
                lines += [line for line in describe(record, lead, of_record, group) if line.name != f"{lead}name"]
        else:
            each = Knob(prefix + name, field)
            says = _range_and_default(each, given.get(name, _OWN))
            lines.append(Description(group, each.name, f"{each.doc} ({says})" if each.doc else says))
    return lines


_OWN = object()  # the default that the record itself has


def _range_and_default(each: Knob, value: object) -> str:
    if value is _OWN:
        value = "???" if each.field.is_required() else plain_value(each.field.get_default(call_default_factory=True))
    if value == "???" or (value is None and each.refusal(None) is not None):  # it has to be given
        return each.range
    default = "''" if value == "" else show(value)
    return f"{each.range.removesuffix(f', for example {default}')}; default {default}"
