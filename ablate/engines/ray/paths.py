"""Paths that a user typed, as a process in another folder finds them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from ablate.knobs import flat, named, plain


def portable(config: Any) -> dict[str, Any]:
    """The values of a configuration, its paths absolute."""
    return _with_paths(plain(config), config, lambda _, typed: os.path.abspath(typed))


def as_typed(values: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """The same values, with the paths that a configuration has."""
    typed = flat(config)
    return _with_paths(values, config, lambda name, _: str(typed[name]))


def _with_paths(values: Mapping[str, Any], config: Any, path: Callable[[str, str], str]) -> dict[str, Any]:
    """Values with other paths; `path`: name and value → the one to have."""
    changed = deepcopy(dict(values))
    for name in named(type(config), "path"):
        *outer, last = name.split(".")
        place: Any = changed
        for key in outer:
            place = place.get(key) if isinstance(place, dict) else None
        if isinstance(place, dict) and isinstance(place.get(last), str):
            place[last] = path(name, place[last])
    return changed
