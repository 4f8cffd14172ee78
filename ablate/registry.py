"""Name → part. Names are known without importing the part, so that a name is checked before torch is loaded.

A user adds a part without touching this package, through an entry point of their own distribution:

    [project.entry-points."ablate.rnn"]
    gru = "my_package.layers:GRULayer"

after which `rnn=gru` is a level like any other.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from ablate.code import part_files


def suggest(name: str, options: Iterable[str]) -> str:
    """Return "; did you mean 'depth'?" for the option nearest to `name`, or "" where none is near."""
    near = difflib.get_close_matches(name, list(options), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


class Registry:
    """The parts that one knob chooses among.

    Args:
        knob: name of the knob; entry points are read from the group `ablate.<knob>`.
        builtin: name → "module:attribute" of the parts that come with the package.
    """

    def __init__(self, knob: str, builtin: Mapping[str, str]) -> None:
        self.knob = knob
        self._builtin = dict(builtin)

    def names(self) -> list[str]:
        """The names that can be chosen, sorted."""
        return sorted({*self._builtin, *(point.name for point in entry_points(group=f"ablate.{self.knob}"))})

    def knows(self, name: str) -> bool:
        """Whether it can be chosen. Entry points are looked for only where the package has none of that name: 50 ms."""
        return name in self._builtin or name in self.names()

    def is_builtin(self, name: str) -> bool:
        """Whether it comes with the package."""
        return name in self._builtin

    def value(self, name: str) -> str:
        """Where a part is that a distribution registers: "module:attribute"."""
        return self._point(name).value

    def load(self, name: str) -> Any:
        """Import the part called `name`. Raises ValueError when there is none."""
        if name in self._builtin:
            module, attribute = self._builtin[name].split(":")
            return getattr(import_module(module), attribute)
        return self._point(name).load()

    def files(self, name: str) -> dict[str, Path]:
        """Name → path of the code that a part brings; none for one that comes with the package."""
        return {} if name in self._builtin else part_files(self._point(name))

    def _point(self, name: str) -> EntryPoint:
        for point in entry_points(group=f"ablate.{self.knob}"):
            if point.name == name:
                return point
        raise ValueError(
            f"{self.knob}={name}: unknown{suggest(name, self.names())}; choose from {', '.join(self.names())}"
        )
