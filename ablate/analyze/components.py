"""What having a component does: taken from the full model, added to the plain one, on the way up, and shared fairly.

A component is on or off in every cell (columns `component.<name>`). Only pairs of cells that differ in one component,
and in no factor that is not part of it, say anything about it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from ablate.analyze.contrast import Contrast, between, combined, weigh
from ablate.analyze.evidence import ESTIMATED, Evidence, estimate
from ablate.analyze.families import judge_alone
from ablate.analyze.table import factors_of

KINDS = ("removal", "addition", "cumulative", "shapley")
_BY_STEPS = ("removal", "addition", "cumulative")
_PREFERRED = ("shapley", "removal", "cumulative", "addition")
# What a design of components is made to measure.
MEASURES = {"leave_one_out": "removal", "cumulative": "cumulative", "add_one_in": "addition"}
_SIDES = ("first_effect", "second_effect")
_DISAGREEMENT = ["component", "at", "first", "second", *_SIDES, *ESTIMATED]
_COLUMNS = ["component", "kind", "at", "without", "with_", *ESTIMATED]


@dataclass(frozen=True)
class _Context:
    """Cells that differ in components alone.

    Attributes:
        at: the levels that they share of the factors that belong to no component, where there are several contexts.
        on: cell ↦ the components that are on in it, of those that vary; in the order of the study.
        levels: cell ↦ its levels of the components' factors.
        order: of the components, on a ladder.
    """

    at: str
    on: dict[str, frozenset[str]]
    levels: dict[str, dict[str, str]]
    belongs: dict[str, set[str]]
    order: Sequence[str]

    def differ(self, without: str, with_: str) -> str | None:
        """The component in which `with_` has one more than `without`, with all else equal; None: there is none."""
        more = self.on[with_] - self.on[without]
        if len(more) != 1 or not self.on[without] < self.on[with_]:
            return None
        (component,) = more
        mine, other = self.levels[without], self.levels[with_]
        alike = all(mine[factor] == other[factor] for factor in mine if factor not in self.belongs[component])
        return component if alike else None


def component_effects(
    evidence: Evidence, components: Sequence[str] | Mapping[str, Sequence[str]] | None = None
) -> pd.DataFrame:
    """The effect of having each component, in every way that the study's cells allow.

    Args:
        components: their names in the order to show; a mapping also says which factors belong to each. None: those
            that vary in the study. Where it is not said, a factor belongs to a component when its level decides
            whether the component is on (in this study's cells).

    Returns:
        One row a component, kind and context: `component`, `kind`, `at` (levels of the factors that belong to no
        component, "" where these do not vary), `without`, `with_` (labels of the two cells compared), what `estimate`
        gives (`effect` is that of having it: below 0 it helps), and what `judge` adds, with the rows of this table as
        a family of their own. Kinds:

        - `removal`: the full model (all that vary on; the first such cell) against the one without it.
        - `addition`: the plainest model (all that vary off) with it against without. Not given where it would be the
          removal over again.
        - `cumulative`: the steps of a ladder from the plainest to the full model, on which the components are added
          in their order. Not given where all subsets are there: it would be one of many orders.
        - `shapley`: where each of the 2^k subsets of the components that vary has exactly one cell, k ≥ 2: the mean
          effect over all orders of adding them, for each seed that finished all cells (Shapley 1953). They add up to
          the full against the plainest model; those two are `without` and `with_`.
    """
    return judge_alone("components", rows_of_components(evidence, components))


def rows_of_components(
    evidence: Evidence, components: Sequence[str] | Mapping[str, Sequence[str]] | None = None
) -> pd.DataFrame:
    """`component_effects` without verdicts."""
    on, levels = _states(evidence.trials, components), factors_of(evidence.trials)
    rows = [
        {"component": component, "kind": kind, "at": context.at, "without": without, "with_": with_}
        | estimate(contrast, evidence)
        for context in _contexts(on, levels, _belongs(on, levels, components))
        for component, kind, without, with_, contrast in _effects(context)
    ]
    order = {name: place for place, name in enumerate(on.columns)}
    rows.sort(key=lambda row: order[str(row["component"])])
    return pd.DataFrame(rows, columns=_COLUMNS)


def widest_kind(effects: pd.DataFrame) -> str:
    """The kind of effect that tells of the most components, of several the first of shapley, removal, cumulative and
    addition; "" where there is none."""
    covered = effects.groupby("kind")["component"].nunique()
    return max((kind for kind in _PREFERRED if kind in covered), key=lambda kind: covered[kind], default="")


def disagreements(effects: pd.DataFrame, evidence: Evidence) -> pd.DataFrame:
    """By how much two ways of measuring a component differ, seed by seed.

    Args:
        effects: as `component_effects` gives it.

    Returns:
        One row a component and two of the kinds removal, addition and cumulative that have a result: `component`,
        `at`, `first`, `second` (kinds), `first_effect`, `second_effect` (over the seeds of their difference), and what
        `estimate` knows of the first minus the second.
    """
    rows = []
    told = effects[effects["kind"].isin(_BY_STEPS) & effects["effect"].notna()]
    for (component, at), group in told.groupby(["component", "at"], sort=False):
        for one, other in combinations(group.to_dict("records"), 2):
            apart = combined([(one["contrast"], 1.0), (other["contrast"], -1.0)])
            if apart.weights:
                named = {"component": component, "at": at, "first": one["kind"], "second": other["kind"]}
                found = estimate(apart, evidence)
                seeds = found["delta_seeds"]
                same = evidence.of(evidence.trials[evidence.trials["seed"].isin(seeds)]) if seeds else evidence
                sides = (estimate(side["contrast"], same)["effect"] for side in (one, other))
                rows.append({**named, **dict(zip(_SIDES, sides, strict=True)), **found})
    return pd.DataFrame(rows, columns=_DISAGREEMENT)


def _states(trials: pd.DataFrame, components: Sequence[str] | Mapping[str, Sequence[str]] | None) -> pd.DataFrame:
    """Whether a component is on: bool, shape [cells, components that vary]."""
    by_cell = trials.drop_duplicates("cell").set_index("cell")
    known = [str(c).removeprefix("component.") for c in by_cell.columns if str(c).startswith("component.")]
    chosen = known if components is None else [name for name in components if name in known]
    columns = {name: by_cell[f"component.{name}"] for name in chosen}
    states = pd.DataFrame(columns, index=by_cell.index)
    states = states.loc[:, states.notna().all() & (states.nunique() > 1)]
    return states.astype(bool)


def _belongs(
    on: pd.DataFrame, levels: pd.DataFrame, components: Sequence[str] | Mapping[str, Sequence[str]] | None
) -> dict[str, set[str]]:
    """Component ↦ the factors that are part of it."""
    if isinstance(components, Mapping):
        return {name: set(components[name]) for name in on.columns}
    return {
        name: {factor for factor in levels.columns if on[name].groupby(levels[factor]).nunique().max() == 1}
        for name in on.columns
    }


def _contexts(on: pd.DataFrame, levels: pd.DataFrame, belongs: dict[str, set[str]]) -> Iterator[_Context]:
    if on.empty:
        return
    own = set().union(*belongs.values()) if belongs else set()
    around = levels[[factor for factor in levels.columns if factor not in own]]
    keys = [" ".join(f"{name}={row[name]}" for name in around.columns) for _, row in around.iterrows()]
    parts = levels[[factor for factor in levels.columns if factor in own]]
    for at in dict.fromkeys(keys):
        cells = [str(cell) for cell, key in zip(on.index, keys, strict=True) if key == at]
        yield _Context(
            at,
            {cell: frozenset(str(name) for name in on.columns if on.at[cell, name]) for cell in cells},
            {cell: {str(f): str(parts.at[cell, f]) for f in parts.columns} for cell in cells},
            belongs,
            [str(name) for name in on.columns],
        )


def _effects(context: _Context) -> Iterator[tuple[str, str, str, str, Contrast]]:
    """(component, kind, without, with, contrast)."""
    varying = frozenset[str]().union(*context.on.values()) - frozenset.intersection(*context.on.values())
    common = frozenset.intersection(*context.on.values())
    full = _first(context, varying | common)
    plain = _first(context, common)
    removals = _one_more(context, with_=full)
    additions = _one_more(context, without=plain)
    factorial = len(set(context.on.values())) == 2 ** len(varying)
    ladder = [] if factorial else _ladder(context, [name for name in context.order if name in varying], common)
    kinds = {
        "removal": removals,
        "addition": [step for step in additions if step not in removals],
        "cumulative": ladder,
    }
    for kind, steps in kinds.items():
        for component, without, with_ in steps:
            yield component, kind, without, with_, between(with_, without)
    if factorial and len(context.on) == 2 ** len(varying) and len(varying) > 1:
        cells = {on & varying: cell for cell, on in context.on.items()}
        assert plain is not None
        assert full is not None
        for component, contrast in _shapley(cells, sorted(varying)).items():
            yield component, "shapley", plain, full, contrast


def _first(context: _Context, on: frozenset[str]) -> str | None:
    return next((cell for cell, its in context.on.items() if its == on), None)


def _one_more(context: _Context, without: str | None = None, with_: str | None = None) -> list[tuple[str, str, str]]:
    """(component, without, with) of the first pair of cells for each component, one end being given."""
    found: dict[str, tuple[str, str, str]] = {}
    if without is None and with_ is None:
        return []
    for cell in context.on:
        pair = (cell, with_) if without is None else (without, cell)
        component = context.differ(pair[0], str(pair[1]))
        if component is not None:
            found.setdefault(component, (component, pair[0], str(pair[1])))
    return list(found.values())


def _ladder(context: _Context, order: Sequence[str], common: frozenset[str]) -> list[tuple[str, str, str]]:
    """(component, without, with) of every step from plain to full, in this order; empty where a step is missing.

    By what is on and not by the order of the cells: two designs in one study share cells, under one label each.
    """
    cells = [_first(context, common | frozenset(order[:i])) for i in range(len(order) + 1)]
    rungs = [cell for cell in cells if cell is not None]
    if len(rungs) < len(cells) or len(order) < 2:
        return []
    steps = list(zip(order, rungs[:-1], rungs[1:], strict=True))
    return steps if all(context.differ(without, with_) == name for name, without, with_ in steps) else []


def _shapley(cells: Mapping[frozenset[str], str], players: Sequence[str]) -> dict[str, Contrast]:
    """Component ↦ its Shapley value, a weighting of all cells."""
    k = len(players)
    share = [math.factorial(size) * math.factorial(k - size - 1) / math.factorial(k) for size in range(k)]
    return {
        player: weigh({
            cell: share[len(subset) - 1] if player in subset else -share[len(subset)]
            for subset, cell in cells.items()
        })
        for player in players
    }  # fmt: skip
