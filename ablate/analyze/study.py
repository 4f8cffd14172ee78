"""Everything that is found out about one study, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ablate.analyze.by_budget import Change, changes_of_sign, effects_by_budget
from ablate.analyze.caveats import Caveats, caveats
from ablate.analyze.comparison import comparable, compare, other_spreads
from ablate.analyze.components import component_effects, disagreements
from ablate.analyze.differs import Task, confounds, confounds_between
from ablate.analyze.effects import factor_effects, interactions
from ablate.analyze.guards import Guards, guards
from ablate.analyze.noise import Noise, noise
from ablate.analyze.published import on_the_same_data, published
from ablate.analyze.sources import Sources, sources_of_noise
from ablate.analyze.table import finished
from ablate.analyze.variance import VarianceShares, variance_shares
from ablate.metric import Metric
from ablate.track.read import Results

_COMPARED = 60  # cells whose differences to the baseline anybody reads


@dataclass(frozen=True)
class Analysis:
    """What the trials of one study say; every table is empty where they say nothing of the kind.

    Attributes:
        metric: what is compared; effects are differences of its scores. others: what else was measured.
        task: as the launch records it.
        designed: whether the study was made to tell components apart.
        comparison: one row a cell, beside the baseline, with `train_mean`: the train metric of the last steps, the mean
            over finished seeds, and `test_<name>_mean`, `test_<name>_sd` of each of `others`.
        components: what having each component changes, by kind of effect.
        disagreements: where kinds of effect contradict each other.
        factors: what each level of a factor changes against its first; interactions: how much that depends on
            another factor. Empty where the study was designed for components: it then holds few of the combinations.
        by_budget: what each part does at each budget, where that is a factor; changes: where an effect changes sign.
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
    task: Task
    designed: bool
    comparison: pd.DataFrame
    components: pd.DataFrame
    disagreements: pd.DataFrame
    factors: pd.DataFrame
    interactions: pd.DataFrame
    by_budget: pd.DataFrame
    changes: Sequence[Change]
    shares: VarianceShares
    sources: Sources
    noise: Noise
    confounds: pd.DataFrame
    besides: Mapping[str, Sequence[tuple[str, str, str]]]
    published: pd.DataFrame
    same_data: pd.DataFrame
    caveats: Caveats
    guards: Guards


def analyse(results: Results, baseline: str | None = None) -> Analysis:
    """Compute everything; `baseline` is the cell that others are compared with (None: the first)."""
    trials, task, (metric, *others) = results.trials, results.task, results.metrics
    comparison = _compared(metric, others, results, baseline)
    designed = bool(results.design.get("components"))
    # What was evaluated on other data cannot be averaged with the rest.
    base = str(comparison.loc[comparison["verdict"] == "baseline", "cell"].iloc[0])
    alike = trials[trials["cell"].isin(comparable(trials, base))]
    components = _components(metric, alike, results.design.get("components"))
    factors, together = factor_effects(metric, alike), interactions(metric, alike)
    sources = sources_of_noise(metric, task, alike)
    by_budget = effects_by_budget(metric, alike, results.design.get("components"), next(iter(task["budget"]), None))
    return Analysis(
        metric=metric,
        others=others,
        task=task,
        designed=designed,
        comparison=comparison,
        components=components,
        disagreements=disagreements(components),
        factors=factors.iloc[:0] if designed or sources.asked else factors,
        interactions=together.iloc[:0] if designed or sources.asked else together,
        by_budget=by_budget,
        changes=changes_of_sign(by_budget),
        shares=variance_shares(metric, alike),
        sources=sources,
        noise=noise(metric, alike, base),
        confounds=confounds(task, trials),
        besides=_besides(task, trials, comparison, base),
        published=published(metric, task["name"], trials, comparison),
        same_data=on_the_same_data(task["name"], trials),
        caveats=caveats(metric, task, trials),
        guards=guards(metric, task, trials, results.curves),
    )


def _compared(metric: Metric, others: Sequence[Metric], results: Results, baseline: str | None) -> pd.DataFrame:
    comparison = compare(metric, results.trials, baseline)
    trained_to = comparison["cell"].map(_trained_to(metric, results.trials, results.curves)).astype(float)
    return comparison.assign(train_mean=trained_to).join(other_spreads(metric, others, results.trials), on="cell")


def _trained_to(metric: Metric, trials: pd.DataFrame, curves: pd.DataFrame) -> dict[str, float]:
    """Cell → the metric's mean at the last point of the train curves of its finished trials."""
    train = curves[(curves["split"] == "train") & curves[metric.recorded].notna()]
    last = train.sort_values("step", kind="stable").groupby(["cell", "seed"]).tail(1)
    done = finished(metric, trials)[["cell", "seed"]]
    return {str(cell): float(mean) for cell, mean in last.merge(done).groupby("cell")[metric.name].mean().items()}


def _components(metric: Metric, trials: pd.DataFrame, designed: Sequence[str] | None) -> pd.DataFrame:
    """Effects of the components that the design varies.

    A grid varies factors; it says something of components where it holds all of their combinations (Shapley).
    """
    effects = component_effects(metric, trials, designed or None)
    if not designed and not (effects["kind"] == "shapley").any():
        return effects.iloc[:0]
    # The last step of a ladder is a removal too, and its first an addition: one pair of cells is told once.
    told = effects.groupby("kind")["component"].transform("nunique")
    kept: pd.DataFrame = effects[(told > 1) | (told == told.max())]
    return kept.reset_index(drop=True)


def _besides(
    task: Task, trials: pd.DataFrame, comparison: pd.DataFrame, base: str
) -> dict[str, list[tuple[str, str, str]]]:
    others = [str(cell) for cell in comparison["cell"].head(_COMPARED) if cell != base]
    return {cell: confounds_between(task, trials, base, cell) for cell in others}
