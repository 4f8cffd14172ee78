"""Everything that is found out about one study, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ablate.analyze.by_budget import Change, changes_of_sign, rows_by_budget
from ablate.analyze.caveats import Caveats, caveats
from ablate.analyze.comparison import baseline_of, comparable, other_spreads, rows_of_cells, told_apart
from ablate.analyze.components import MEASURES, disagreements, rows_of_components
from ablate.analyze.differs import Task, code_in_common, confounds, confounds_with
from ablate.analyze.effects import rows_of_factors, rows_of_interactions
from ablate.analyze.evidence import Evidence
from ablate.analyze.families import PRIMARY, judge, size_of_family
from ablate.analyze.guards import Guards, guards
from ablate.analyze.noise import Noise, noise
from ablate.analyze.paired import LEVEL, NAN
from ablate.analyze.power import detectable
from ablate.analyze.published import on_the_same_data, published
from ablate.analyze.sources import Sources, sources_of_noise
from ablate.analyze.table import finished
from ablate.analyze.variance import VarianceShares, variance_shares
from ablate.metric import Metric
from ablate.track.read import Results
from ablate.worth import margin

_COMPARED = 60  # cells whose differences to the baseline anybody reads


@dataclass(frozen=True)
class Analysis:
    """What the trials of one study say; every table is empty where they say nothing of the kind.

    Attributes:
        metric: what is compared; effects are differences of its scores. others: what else was measured.
        margin: differences of scores within ± it are as good as none; None: nobody said so.
        stopping: how seeds=auto came to its end, as the launch records it; None: the number of seeds was fixed.
        task: as the launch records it.
        designed: whether the study was made to tell components apart.
        primary: name of the table whose primary rows answer what the study was made for: "components", "by_budget",
            "factors" (and "interactions" with it), or "comparison"; tests: contrasts of this family.
        comparison: one row a cell, beside the baseline, with `train_mean`: the train metric of the last steps, the mean
            over finished seeds, and `test_<name>_mean`, `test_<name>_sd` of each of `others`.
        components: what having each component changes, by kind of effect.
        disagreements: by how much two kinds of effect of a component differ.
        factors: what each level of a factor changes against its reference; interactions: how much that depends on
            another factor. Empty where the study was designed for components: it then holds few of the combinations.
        by_budget: what each part does at each budget, where that is a factor; changes: where an effect changes sign.
        ends: by cell, trials `asked`, and of these `diverged`.
        shares: of the variation between trials, by factor.
        sources: of the noise, where the study varies these and nothing else; there are no effects of factors then.
        noise: how far seeds alone move a result, and what could have been shown.
        confounds: what differs between cells.
        besides: cell → (what, value in the baseline, value in the cell) of all that differs besides the factors.
        published: figures of others by the same recipe; same_data: by other recipes on the same data.
        caveats, guards: what to know before believing any of it.
    """

    metric: Metric
    others: Sequence[Metric]
    margin: float | None
    stopping: Mapping[str, Any] | None
    task: Task
    designed: bool
    primary: str
    tests: int
    comparison: pd.DataFrame
    components: pd.DataFrame
    disagreements: pd.DataFrame
    factors: pd.DataFrame
    interactions: pd.DataFrame
    by_budget: pd.DataFrame
    changes: Sequence[Change]
    ends: pd.DataFrame
    shares: VarianceShares
    sources: Sources
    noise: Noise
    confounds: pd.DataFrame
    besides: Mapping[str, Sequence[tuple[str, str, str]]]
    published: pd.DataFrame
    same_data: pd.DataFrame
    caveats: Caveats
    guards: Guards

    @property
    def learned_nothing(self) -> bool:
        """Whether there are results, and each is worse than that of a model that knows nothing."""
        done = self.comparison.loc[self.comparison["n"] > 0, "cell"]
        return len(done) > 0 and {*done} <= {*self.guards.hopeless}


def analyse(results: Results, baseline: str | None = None) -> Analysis:
    """Compute everything; `baseline` is the cell that others are compared with (None: the first)."""
    if "code" in results.trials:
        in_common = code_in_common(results.trials, results.sources)
        results = replace(results, trials=results.trials.assign(code=in_common))
    trials, task, (metric, *others) = results.trials, results.task, results.metrics
    found = verdicts(results, baseline)
    judged, alike, tests = found.tables, found.evidence, size_of_family(found.tables)
    comparison, differing = told_apart(judged["comparison"]), confounds(task, trials)
    return Analysis(
        metric=metric,
        others=others,
        margin=found.evidence.margin,
        stopping=results.stopping,
        task=task,
        designed=bool(results.design.get("components")),
        primary=found.primary[0],
        tests=tests,
        comparison=_with_means(metric, others, results, comparison),
        components=judged["components"],
        disagreements=judged["disagreements"],
        factors=judged["factors"],
        interactions=judged["interactions"],
        by_budget=judged["by_budget"],
        changes=changes_of_sign(judged["by_budget"]),
        ends=Evidence(metric, trials).ends,
        shares=variance_shares(metric, alike.trials),
        sources=found.sources,
        noise=replace(noise(alike, found.base), tests=tests, in_family=_shown_in_family(judged, tests)),
        confounds=differing,
        besides=confounds_with(task, trials, differing, found.base, _others(comparison, found.base)),
        published=published(metric, task["name"], trials, comparison),
        same_data=on_the_same_data(task["name"], trials),
        caveats=caveats(metric, task, trials),
        guards=guards(metric, task, trials, results.curves),
    )


@dataclass(frozen=True)
class Verdicts:
    """Every contrast of a page with its verdict.

    Attributes:
        tables: by name: "components", "by_budget", "factors", "interactions", "comparison", "disagreements".
        primary: names of the tables whose rows answer what the study was made for.
        evidence: of the cells that can be compared with the baseline.
        base: the baseline.
        sources: of the noise, where the study varies these and nothing else.
    """

    tables: Mapping[str, pd.DataFrame]
    primary: Sequence[str]
    evidence: Evidence
    base: str
    sources: Sources


def verdicts(results: Results, baseline: str | None = None) -> Verdicts:
    """Compute and judge all contrasts; `baseline` as for `analyse`."""
    base = baseline_of(results.trials, baseline)
    metric, looked = results.metrics[0], results.stopping is not None
    whole = Evidence(metric, results.trials, margin(results.worth, metric), results.blocks, looked)
    # What was evaluated on other data cannot be averaged with the rest.
    alike = whole.of(results.trials[results.trials["cell"].isin(comparable(results.trials, base))])
    designed = results.design.get("components")
    sources = sources_of_noise(metric, results.task, alike.trials)
    without = bool(designed) or sources.asked  # the effects of single levels, which would say nothing
    components, factors, together = (
        _components(alike, designed), rows_of_factors(alike, baseline), rows_of_interactions(alike),
    )  # fmt: skip
    rows = {
        "components": components,
        "by_budget": rows_by_budget(alike, designed, next(iter(results.task["budget"]), None)),
        "factors": factors.iloc[:0] if without else factors,
        "interactions": together.iloc[:0] if without else together,
        "comparison": rows_of_cells(whole, baseline),
        "disagreements": disagreements(components, alike),
    }
    primary = _primary(results.design, rows)
    return Verdicts(judge(rows, primary), list(primary), alike, base, sources)


def _shown_in_family(judged: Mapping[str, pd.DataFrame], tests: int) -> float:
    """The difference that a typical comparison of the primary family would have shown with a power of 80 %, at the
    first and hardest step of Holm's correction; NaN where none has a spread."""
    level = 1 - (1 - LEVEL) / max(1, tests)
    shown = [
        detectable(row["sd"], len(row["deltas"]), level=level)
        for table in judged.values()
        for row in table.loc[table["family"] == PRIMARY, ["sd", "deltas"]].to_dict("records")
        if row["sd"] > 0 and len(row["deltas"]) > 1
    ]
    return float(np.median(shown)) if shown else NAN


def _primary(design: Mapping[str, Any], rows: Mapping[str, pd.DataFrame]) -> dict[str, pd.Series[bool]]:
    """Which rows of which tables are what the design was made for."""
    kinds = design["kind"].split("+")
    by_budget, components, factors, together = (
        rows[name] for name in ("by_budget", "components", "factors", "interactions")
    )
    if len(by_budget):
        return {"by_budget": pd.Series(True, index=by_budget.index)}
    if design.get("components") and len(components):
        measured = components["kind"].isin([MEASURES[kind] for kind in kinds if kind in MEASURES])
        return {"components": measured if measured.any() else ~measured}
    if len(factors) and "cells" not in kinds:
        return {"factors": factors["at"] == "", "interactions": pd.Series(True, index=together.index)}
    return {"comparison": pd.Series(True, index=rows["comparison"].index)}


def _with_means(metric: Metric, others: Sequence[Metric], results: Results, comparison: pd.DataFrame) -> pd.DataFrame:
    trained_to = comparison["cell"].map(_trained_to(metric, results.trials, results.curves)).astype(float)
    return comparison.assign(train_mean=trained_to).join(other_spreads(metric, others, results.trials), on="cell")


def _trained_to(metric: Metric, trials: pd.DataFrame, curves: pd.DataFrame) -> dict[str, float]:
    """Cell → the metric's mean at the last point of the train curves of its finished trials."""
    train = curves[(curves["split"] == "train") & curves[metric.recorded].notna()]
    last = train.sort_values("step", kind="stable").groupby(["cell", "seed"]).tail(1)
    done = finished(metric, trials)[["cell", "seed"]]
    return {str(cell): float(mean) for cell, mean in last.merge(done).groupby("cell")[metric.name].mean().items()}


def _components(evidence: Evidence, designed: Sequence[str] | None) -> pd.DataFrame:
    """Effects of the components that the design varies.

    A grid varies factors; it says something of components where it holds all of their combinations (Shapley).
    """
    effects = rows_of_components(evidence, designed or None)
    if not designed and not (effects["kind"] == "shapley").any():
        return effects.iloc[:0]
    # The last step of a ladder is a removal too, and its first an addition: one pair of cells is told once.
    told = effects.groupby("kind")["component"].transform("nunique")
    kept: pd.DataFrame = effects[(told > 1) | (told == told.max())]
    return kept.reset_index(drop=True)


def _others(comparison: pd.DataFrame, base: str) -> list[str]:
    return [str(cell) for cell in comparison["cell"].head(_COMPARED) if cell != base]
