"""Whether a study has seeds enough: with seeds=auto it is asked after every seed that all cells have trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from ablate.analyze.families import PRIMARY, is_claim
from ablate.analyze.study import verdicts
from ablate.track.read import Results


@dataclass(frozen=True)
class Look:
    """What a look at the primary family found.

    Attributes:
        seeds: that every cell had trained, with or without a result.
        decided, undecided: names of the comparisons that have a result, in the order of the report.
    """

    seeds: int
    decided: tuple[str, ...]
    undecided: tuple[str, ...]

    @property
    def comparisons(self) -> int:
        """For how many the level is corrected."""
        return len(self.decided) + len(self.undecided)

    def record(self) -> dict[str, Any]:
        """As a launch writes it down: `seeds`, `comparisons`, `decided` and `undecided` (names)."""
        return {**asdict(self), "comparisons": self.comparisons}


def look(results: Results) -> Look:
    """Which comparisons of the primary family the seeds of a study decide: they differ, or are equivalent.

    The verdicts are those of the page, by tests that hold however often one looks: the chance that any difference of
    the family is found at any look where there is none is below 5 %, and so is that of a false equivalence.
    """
    found = verdicts(replace(results, stopping=results.stopping or {"seeds": "auto"}))
    rows = [
        (name, row)
        for name in found.primary
        for row in _asked(found.tables[name]).to_dict("records")
        if row["contrast"].weights and not (name == "factors" and row["at"])
    ]
    kinds = {row.get("kind", "") for _, row in rows}
    named = [(_name(name, row, len(kinds) > 1), is_claim(row["verdict"])) for name, row in rows]
    decided, undecided = (tuple(name for name, is_so in named if is_so is which) for which in (True, False))
    return Look(int(results.trials["seed"].nunique()), decided, undecided)


def _asked(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["family"] == PRIMARY) & table["effect"].notna()]


def _name(table: str, row: Mapping[Any, Any], several: bool) -> str:
    """`several`: components are measured in several ways."""
    if table == "components":
        kind = f" ({row['kind']})" if several else ""
        return f"{row['component']} {row['at']}".strip() + kind
    if table == "factors":
        return f"{row['factor']}={row['level']}"
    if table == "interactions":
        return f"{row['factor']}={row['level']} × {row['other']}={row['other_level']}"
    if table == "by_budget":
        level = f"={row['level']}" if row["level"] else ""
        return f"{row['part']}{level} {row['kind']} at {row['budget']:g}".replace("  ", " ")
    return str(row["cell"])
