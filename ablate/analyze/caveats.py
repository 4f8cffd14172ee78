"""What to know before a comparison is believed: what is missing, and what else differs between its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ablate.analyze.differs import FACTS, Task, confounds, followers, values_of
from ablate.analyze.sources import varies_noise_alone
from ablate.analyze.table import cells_of, finished, without_finite_score
from ablate.metric import Metric

_OF_MACHINES = ("precision", "threads", "device")
_NOT_SETTINGS = {"parameters", "seen", *FACTS} - {"torch"}

ByCell = Mapping[str, str]


@dataclass(frozen=True)
class Caveats:
    """Mappings are by cell, in the order of the study, and empty where there is nothing to tell.

    Attributes:
        trials: how many the study asked for.
        seeds: finished trials, where they are what shows the noise; missing: of the others, status → how many.
        not_finite: (cell, seed) whose test score is no finite number.
        evaluated: digests of what the cells are evaluated on, where these differ.
        details: of data that differ, where `evaluated` does: name → values.
        seen: how much was trained on, where it differs and was not varied on purpose.
        code: digests of the code, where they differ.
        machines: of precision, threads and device what differs, unless it is a factor: fact → values.
        settings: other knobs and facts that differ and are no factors: name → values.
        presets: factor whose presets set several parts at once → these parts.
    """

    trials: int
    seeds: Mapping[str, int]
    missing: Mapping[str, Mapping[str, int]]
    not_finite: Sequence[tuple[str, int]]
    evaluated: ByCell
    details: Mapping[str, ByCell]
    seen: ByCell
    code: ByCell
    machines: Mapping[str, ByCell]
    settings: Mapping[str, ByCell]
    presets: Mapping[str, Sequence[str]]


def caveats(metric: Metric, task: Task, trials: pd.DataFrame) -> Caveats:
    """Look for everything at once. `task`: as a launch records it."""
    done = finished(metric, trials)
    seeds = done["cell"].value_counts().reindex(cells_of(trials), fill_value=0)
    odd = without_finite_score(metric, trials)
    evaluated, differing = _differing(done, "evaluated"), confounds(task, done)
    budget = {f"factor.{name}" for name in task["budget"]}
    details = [str(c) for c in done.columns if str(c).startswith("detail.")] if evaluated else []
    return Caveats(
        trials=len(trials),
        seeds={} if varies_noise_alone(task, trials) else {str(cell): int(n) for cell, n in seeds.items()},
        missing=_missing(trials),
        not_finite=[(str(cell), int(seed)) for cell, seed in zip(odd["cell"], odd["seed"], strict=True)],
        evaluated=evaluated,
        details={name.removeprefix("detail."): values for name in details if (values := _differing(done, name))},
        seen={} if budget & set(done.columns) else _differing(done, "seen"),
        code=_differing(done, "code"),
        machines={
            fact: values for fact in _OF_MACHINES if f"factor.{fact}" not in done and (values := _differing(done, fact))
        },
        settings=_settings(task, done, differing, {*_NOT_SETTINGS, *details}),
        presets=_presets(task, done, differing),
    )


def _differing(done: pd.DataFrame, column: str) -> ByCell:
    """Cell → its values, where there are several; {} elsewhere."""
    return values_of(done, column) if column in done and done[column].nunique() > 1 else {}


def _missing(trials: pd.DataFrame) -> dict[str, dict[str, int]]:
    missing = trials[trials["status"] != "FINISHED"]
    by_cell = missing.groupby("cell", sort=False)["status"]
    return {str(cell): {str(s): int(n) for s, n in its.value_counts().items()} for cell, its in by_cell}


def _settings(task: Task, done: pd.DataFrame, differing: pd.DataFrame, left_out: set[str]) -> dict[str, ByCell]:
    own = ~differing["factor"].astype(bool) & ~differing.index.isin([*left_out, *followers(task, done)])
    values = differing[own].drop(columns="factor").to_dict("index")
    return {str(name): {str(cell): str(value) for cell, value in row.items()} for name, row in values.items()}


def _presets(task: Task, done: pd.DataFrame, differing: pd.DataFrame) -> dict[str, list[str]]:
    """Presets that set several parts at once, where that is the only thing that tells the rows apart."""
    found = {}
    for preset, parts in task.get("presets", {}).items():
        varied = [str(name) for name in differing.index if name in parts]
        if f"factor.{preset}" in done and len(varied) > 1 and not any(f"factor.{name}" in done for name in varied):
            found[str(preset)] = varied
    return found
