"""Designs: factors and components → the cells of a study, each as the overrides that make it. Pure functions.

`jobs` reads what a command line asks for; which of the cells can be trained is settled in `cells`, where their knobs
are known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from ablate.knobs import KnobError, read_level
from ablate.launch import Design
from ablate.registry import suggest
from ablate.study.components import Component, declared
from ablate.study.conditions import Values
from ablate.study.records import Space, read_design

# A replicate is not a level: seeds=3 and seed=0,1,2 give the same table.
REPLICATES = ("seed", "seeds")
_ONCE = ("design", "components", "study")  # what a study has one of
LISTS = tuple(f"design.{name}" for name in ("components", "exclude", "cells"))

Levels = dict[str, str]  # override's key → value, as typed


@dataclass(frozen=True)
class Asked:
    """What a design says of one of its cells.

    Attributes:
        label: "" where the cell is called by its levels.
        at: factors outside the design, whose levels come before the label.
        components: what the design varies, in its order.
        left_out: label and reason of what the design would have had otherwise.
        base: label of the cell that the design compares it with; "": it has none.
    """

    label: str = ""
    at: Sequence[str] = ()
    components: Sequence[str] = ()
    left_out: Sequence[Mapping[str, str]] = ()
    base: str = ""


@dataclass(frozen=True)
class Typed:
    """A command line: every override's levels by its key, the keys that are factors, and the designs to unite."""

    levels: Mapping[str, Sequence[str]]
    factors: Sequence[str]
    designs: Sequence[str] = ()

    def fixed(self) -> Levels:
        """What is the same in every cell."""
        return {key: levels[0] for key, levels in self.levels.items() if key not in self.factors}

    def grid(self) -> list[Levels]:
        """Every combination of levels, the last factor varying fastest."""
        return [dict(zip(self.levels, levels, strict=True)) for levels in product(*self.levels.values())]


def jobs(typed: Typed, space: Space) -> list[tuple[list[str], Asked | None]]:
    """Every cell that a command line asks for, in order: its overrides, and what a design other than a grid says of it.

    Args:
        space: where the cells are.

    Raises:
        KnobError: for a design that cannot be made of what was typed.
    """
    for key in typed.factors:
        if key.lstrip("+") == "seeds" and "auto" not in typed.levels[key]:
            levels = ",".join(typed.levels[key])
            raise KnobError(
                f"seeds={levels}: is how many seeds each cell has; seed={levels} names the seeds themselves"
            )
        if key.lstrip("+").partition(".")[0] in _ONCE:
            name = key.lstrip("+")
            if name in LISTS:
                typed_list = f"{name}=[{','.join(typed.levels[key])}]"
                raise KnobError(f"{key}={','.join(typed.levels[key])}: a list goes into brackets, '{typed_list}'")
            raise KnobError(f"{key}={','.join(typed.levels[key])}: a study has one {name}; start a study for each")
    fixed = typed.fixed()
    presets = [{"design": name} for name in typed.designs] or [{}]
    designs = [read_design(space.compose(_overrides(fixed | preset))["design"]) for preset in presets]
    check_use(designs)
    found = []
    for preset, design in zip(presets, designs, strict=True):
        here = Typed({**typed.levels, **{key: (name,) for key, name in preset.items()}}, typed.factors)
        found += [(_overrides(levels), asked) for levels, asked in _cells(here, design, space)]
    return found


def _cells(typed: Typed, design: Design, space: Space) -> list[tuple[Levels, Asked | None]]:
    return DESIGNS[design.kind](typed, design, space)


def _grid(typed: Typed, design: Design, space: Space) -> list[tuple[Levels, Asked | None]]:
    return [(levels, None) for levels in typed.grid()]


def _one_factor(typed: Typed, design: Design, space: Space) -> list[tuple[Levels, Asked | None]]:
    """The baseline, which has none of the factors' levels, then each level of each factor by itself."""
    varied = [key for key in typed.factors if key not in REPLICATES]
    if not varied:
        raise KnobError("design=one_factor: varies each factor by itself, and none is given; add one, depth=1,2,4")
    same = Typed({key: levels for key, levels in typed.levels.items() if key not in varied}, ()).grid()
    alone = [({key: level}, Asked()) for key in varied for level in typed.levels[key]]
    own: list[tuple[Levels, Asked]] = [({}, Asked("baseline")), *alone]
    return [(levels | level, asked) for level, asked in own for levels in same]


def _latin_square(typed: Typed, design: Design, space: Space) -> list[tuple[Levels, Asked | None]]:
    """Three factors of n levels in n² cells, in which every two levels of two factors meet once."""
    varied = [key for key in typed.factors if key not in REPLICATES]
    counts = {key: len(typed.levels[key]) for key in varied}
    if len(varied) != 3 or len({*counts.values()}) > 1:
        given = ", ".join(f"{key} with {n}" for key, n in counts.items()) or "none"
        raise KnobError(
            f"design=latin_square: takes three factors with equally many levels, and given is {given}; "
            "for example lr=0.1,0.3,1 dropout=0,0.2,0.5 depth=1,2,4"
        )
    rows, columns, third = (typed.levels[key] for key in varied)
    square = [
        dict(zip(varied, (row, column, third[(i + j) % len(third)]), strict=True))
        for i, row in enumerate(rows)
        for j, column in enumerate(columns)
    ]
    same = Typed({key: levels for key, levels in typed.levels.items() if key not in varied}, ()).grid()
    return [(levels | cell, Asked()) for cell in square for levels in same]


def _listed(typed: Typed, design: Design, space: Space) -> list[tuple[Levels, Asked | None]]:
    cells = [_listed_cell(text, space) for text in design.cells]
    for key in typed.factors:
        if any(key in cell for cell in cells):
            raise KnobError(f"{key}={','.join(typed.levels[key])}: design.cells sets {key} too; leave out one of them")
    return [(levels | cell, Asked(at=typed.factors)) for levels in typed.grid() for cell in cells]


def _listed_cell(text: str, space: Space) -> Levels:
    """ "depth=1 tie=true" as levels."""
    cell = {}
    for override in re.findall(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""", text):
        key, equals, level = override.partition("=")
        where = f'design.cells=["{text}"]'
        if not equals:
            raise KnobError(f"{where}: {override} is no override; for example 'design.cells=[\"depth=1 tie=true\"]'")
        if (refusal := space.refuse(key)) is not None:
            raise KnobError(f"{where}: {refusal}")
        if "," in re.sub(r"""\[.*?\]|\{.*?\}|"[^"]*"|'[^']*'""", "", level):
            raise KnobError(
                f"{where}: a cell has one level of {key}; write a cell for each, "
                'for example \'design.cells=["depth=1 tie=true","depth=2 dropout=0.5"]\''
            )
        cell[key] = level
    return cell


def _of_components(typed: Typed, design: Design, space: Space) -> list[tuple[Levels, Asked | None]]:
    """A design of components at every combination of the other factors' levels."""
    return [cell for levels in typed.grid() for cell in _at(levels, typed.factors, design, space)]


def _at(levels: Levels, factors: Sequence[str], design: Design, space: Space) -> list[tuple[Levels, Asked | None]]:
    values = space.compose(_overrides(levels))
    full, components = space.read(values), declared(values.get("components", {}), space.known)
    on, missing = chosen(components, design, full)
    varied = [key.lstrip("+") for key in factors]
    for component in on:
        if clash := [knob for knob in component.off if knob in varied]:
            rest = ",".join(c.name for c in on if c is not component)
            raise KnobError(
                f"{clash[0]}: design={design.kind} varies it, as the component {component.name}, and so does a comma; "
                f"give it one level, or leave {component.name} out, design.components=[{rest}]"
            )
    left_out = [{"label": _WITH[design.kind].format(name), "reason": reason} for name, reason in missing.items()]
    cells = _OF_COMPONENTS[design.kind](on)
    for component, (label, its) in zip(on, cells[1:], strict=True):
        # What is added to a model in which it does nothing is that model over again.
        where = None if design.kind == "leave_one_out" else component.idle_where({**full, **_levels(its)})
        if where is not None and design.kind == "cumulative":
            order = [c.name for c in on if c is not component] + [component.name]
            raise KnobError(
                f"design=cumulative: {component.name} does nothing on its step, where {where}; add it later, "
                f"design.components=[{','.join(order)}]"
            )
        if where is not None:
            left_out.append({"label": label, "reason": f"{component.name} alone does nothing, where {where}"})
            cells.remove((label, its))
    base, names = cells[0][0], [component.name for component in on]
    return [
        (levels | off, Asked(label, factors, names, left_out if label == base else (), base)) for label, off in cells
    ]


def chosen(components: Mapping[str, Component], design: Design, full: Values) -> tuple[list[Component], dict[str, str]]:
    """The components that a design varies, which do something in the full model, and why the others do not, by name.

    Raises:
        KnobError: for an unknown name, for two that share a knob, and where none is on.
    """
    names = list(components) if design.components is None else list(dict.fromkeys(design.components))
    if unknown := [name for name in names if name not in components]:
        raise KnobError(
            f"design.components=[{','.join(names)}]: no component {unknown[0]!r}{suggest(unknown[0], components)}; "
            f"declared are {', '.join(components)}"
        )
    missing = {name: reason for name in names if (reason := components[name].missing(full)) is not None}
    on = [components[name] for name in names if name not in missing]
    if not on:
        if not components:
            raise KnobError(
                f'design={design.kind}: no component is declared; add components={{"dropout": "dropout=0"}} to the '
                "task, or '+components.dropout=\"dropout=0\"' to the command"
            )
        if not names:
            raise KnobError(
                f"design.components=[]: names none; declared are {', '.join(components)}, null: all of them"
            )
        reasons = ", ".join(f"{reason} ({_as_typed(components[name].off)})" for name, reason in missing.items())
        raise KnobError(f"design={design.kind}: the full model has no component to vary: {reasons}; switch one on")
    owner: dict[str, str] = {}
    for component in on:
        for knob in component.off:
            if (other := owner.setdefault(knob, component.name)) != component.name:
                raise KnobError(
                    f"design={design.kind}: the components {other} and {component.name} both set {knob}; "
                    f"vary one of them, for example design.components=[{other}]"
                )
    return on, missing


def leave_one_out(on: Sequence[Component]) -> list[tuple[str, Levels]]:
    """The full model, then without each component: label and what is switched off."""
    return [("full", {}), *((f"without {component.name}", dict(component.off)) for component in on)]


def cumulative(on: Sequence[Component]) -> list[tuple[str, Levels]]:
    """The model without any of the components, then one after another added, up to the full model."""
    return [("base", _off(on)), *((f"+ {component.name}", _off(on[i:])) for i, component in enumerate(on, 1))]


def add_one_in(on: Sequence[Component]) -> list[tuple[str, Levels]]:
    """The model without any of the components, then with each alone."""
    alone = [(f"only {component.name}", _off([c for c in on if c is not component])) for component in on]
    return [("base", _off(on)), *alone]


_OF_COMPONENTS = {"leave_one_out": leave_one_out, "cumulative": cumulative, "add_one_in": add_one_in}
_WITH = {"leave_one_out": "without {}", "cumulative": "+ {}", "add_one_in": "only {}"}
# Every design: a command line → its cells. A new one is a line here, and its name in `ablate.launch.KINDS`.
DESIGNS: Mapping[str, Callable[[Typed, Design, Space], list[tuple[Levels, Asked | None]]]] = {
    "grid": _grid,
    "one_factor": _one_factor,
    "latin_square": _latin_square,
    "cells": _listed,
    **dict.fromkeys(_OF_COMPONENTS, _of_components),
}


def _levels(overrides: Levels) -> dict[str, object]:
    return {knob: read_level(level) for knob, level in overrides.items()}


def _off(components: Sequence[Component]) -> Levels:
    return {knob: level for component in components for knob, level in component.off.items()}


def check_use(designs: Sequence[Design]) -> None:
    """Refuse what no design asked for would read."""
    kinds = [design.kind for design in designs]
    cells = next((design.cells for design in designs if design.cells), ())
    if cells and "cells" not in kinds:
        raise KnobError(f"design.cells={json.dumps(list(cells))}: not used by design={kinds[0]}; add design=cells")
    if "cells" in kinds and not cells:
        raise KnobError('design=cells: names no cells; for example \'design.cells=["depth=1 tie=true","depth=2"]\'')
    components = next((design.components for design in designs if design.components is not None), None)
    if components is not None and not {*kinds} & {*_OF_COMPONENTS}:
        raise KnobError(
            f"design.components=[{','.join(components)}]: not used by design={kinds[0]}; "
            f"choose one of {', '.join(_OF_COMPONENTS)}, for example design=leave_one_out"
        )


def _overrides(levels: Mapping[str, str]) -> list[str]:
    return [f"{key}={level}" for key, level in levels.items()]


def _as_typed(levels: Mapping[str, str]) -> str:
    return " ".join(_overrides(levels))
