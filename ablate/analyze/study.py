"""Everything that is said of one study, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ablate.analyze.by_budget import Change, changes_of_sign, effects_by_budget
from ablate.analyze.comparison import comparable, compare, confounds, confounds_between, warnings_for
from ablate.analyze.components import KINDS, component_effects, disagreements
from ablate.analyze.effects import VarianceShares, factor_effects, interactions, variance_shares
from ablate.analyze.guards import guards
from ablate.analyze.noise import Noise, noise
from ablate.analyze.published import on_the_same_text, published
from ablate.analyze.table import finished
from ablate.metric import Metric
from ablate.track.read import Results

_COMPARED = 60  # cells whose differences to the baseline anybody reads


@dataclass(frozen=True)
class Analysis:
    """What the trials of one study say; every table is empty where they say nothing of the kind.

    Attributes:
        metric: what is compared; effects are differences of its scores.
        designed: whether the study was made to tell components apart.
        comparison: one row a cell, beside the baseline, with `train_mean`: the train metric of the last windows,
            the mean over finished seeds.
        components: what having each component changes, by kind of effect.
        disagreements: where kinds of effect contradict each other.
        factors: what each level of a factor changes against its first; interactions: how much that depends on
            another factor. Empty where the study was designed for components: it then holds few of the combinations.
        by_budget: what each part does at each budget, where that is a factor; changes: where an effect changes sign.
        shares: of the variation between trials, by factor.
        noise: how far seeds alone move a result, and what could have been shown.
        confounds: what differs between cells.
        besides: cell → (what, value in the baseline, value in the cell) of all that differs besides the factors.
        published: figures of others by the same recipe; same_text: by other recipes on the same text.
        warnings: what to know before believing any of it, a sentence each.
    """

    metric: Metric
    designed: bool
    comparison: pd.DataFrame
    components: pd.DataFrame
    disagreements: pd.DataFrame
    factors: pd.DataFrame
    interactions: pd.DataFrame
    by_budget: pd.DataFrame
    changes: Sequence[Change]
    shares: VarianceShares
    noise: Noise
    confounds: pd.DataFrame
    besides: Mapping[str, Sequence[tuple[str, str, str]]]
    published: pd.DataFrame
    same_text: pd.DataFrame
    warnings: list[str]

    def named_components(self) -> pd.DataFrame:
        """`components` with a `name` for each row that says how it was measured where there are several ways."""
        ways = self.components["kind"].nunique()
        names = [
            str(row["component"])
            + (f" at {row['at']}" if row["at"] else "")
            + (f", {KINDS[row['kind']]}" if ways > 1 else "")
            for row in self.components.to_dict("records")
        ]
        return self.components.assign(name=names)

    def named_factors(self) -> pd.DataFrame:
        """The marginal effects of `factors` with a `name` each."""
        marginal = self.factors[self.factors["at"] == ""]
        names = [f"{row['factor']}: {row['reference']} → {row['level']}" for row in marginal.to_dict("records")]
        return marginal.assign(name=names)

    def named_simple(self) -> pd.DataFrame:
        """The effects of `factors` at single combinations of the other factors, with a `name` each."""
        simple = self.factors[self.factors["at"] != ""]
        names = [
            f"{row['factor']}: {row['reference']} → {row['level']}, at {row['at']}" for row in simple.to_dict("records")
        ]
        return simple.assign(name=names)

    def named_interactions(self) -> pd.DataFrame:
        """`interactions` with a `name` each."""
        names = [
            f"{row['factor']}: {row['reference']} → {row['level']}, "
            f"at {row['other']}={row['other_level']} against {row['other_reference']}"
            for row in self.interactions.to_dict("records")
        ]
        return self.interactions.assign(name=names)

    def effects_to_draw(self) -> tuple[pd.DataFrame, str]:
        """What a forest plot shows, and what has the effect: components, else factors, else cells by the baseline."""
        if len(self.components):
            return self.named_components(), "having the part"
        if len(self.factors):
            return self.named_factors(), "taking the second level"
        rows = self.comparison[self.comparison["verdict"] != "baseline"]
        verdicts = {"better": "helps", "worse": "hurts"}
        effects = rows.rename(columns={"cell": "name"}).assign(
            verdict=rows["verdict"].map(lambda verdict: verdicts.get(verdict, verdict))
        )
        return effects, "taking the cell instead of the baseline"

    def costs(self) -> dict[str, str]:
        """Name of a component's row → parameters that having it adds, signed; averages over orders have none."""
        parameters = self.comparison.set_index("cell")["parameters"]
        costs = {}
        for row in self.named_components().to_dict("records"):
            # Averaged over all orders it is no step between two cells.
            if row["kind"] != "shapley" and {row["without"], row["with_"]} <= set(parameters.index):
                added = parameters[row["with_"]] - parameters[row["without"]]
                costs[str(row["name"])] = "" if pd.isna(added) else f"{added:+,.0f}".replace("-", "−")
        return costs


def _besides(trials: pd.DataFrame, comparison: pd.DataFrame, base: str) -> dict[str, list[tuple[str, str, str]]]:
    others = [str(cell) for cell in comparison["cell"].head(_COMPARED) if cell != base]
    return {cell: confounds_between(trials, base, cell) for cell in others}


def _trained_to(metric: Metric, trials: pd.DataFrame, curves: pd.DataFrame) -> dict[str, float]:
    """Cell → the metric's mean at the last point of the train curves of its finished trials."""
    last = curves[curves["split"] == "train"].sort_values("step", kind="stable").groupby(["cell", "seed"]).tail(1)
    done = finished(trials)[["cell", "seed"]]
    return {str(cell): float(mean) for cell, mean in last.merge(done).groupby("cell")[metric.name].mean().items()}


def _components(trials: pd.DataFrame, designed: Sequence[str] | None) -> pd.DataFrame:
    """Effects of the components that the design varies.

    A grid varies factors; it says something of components where it holds all of their combinations (Shapley).
    """
    effects = component_effects(trials, designed or None)
    if not designed and not (effects["kind"] == "shapley").any():
        return effects.iloc[:0]
    # The last step of a ladder is a removal too, and its first an addition: one pair of cells is told once.
    told = effects.groupby("kind")["component"].transform("nunique")
    kept: pd.DataFrame = effects[(told > 1) | (told == told.max())]
    return kept.reset_index(drop=True)


def analyse(results: Results, baseline: str | None = None) -> Analysis:
    """Compute everything; `baseline` is the cell that others are compared with (None: the first)."""
    trials, metric = results.trials, results.metrics[0]
    comparison = compare(metric, trials, baseline)
    comparison = comparison.assign(
        train_mean=comparison["cell"].map(_trained_to(metric, trials, results.curves)).astype(float)
    )
    designed = bool(results.design.get("components"))
    # What was evaluated on other text cannot be averaged with the rest.
    base = str(comparison.loc[comparison["verdict"] == "baseline", "cell"].iloc[0])
    alike = trials[trials["cell"].isin(comparable(trials, base))]
    components = _components(alike, results.design.get("components"))
    factors, together = factor_effects(alike), interactions(alike)
    by_budget = effects_by_budget(alike, results.design.get("components"))
    return Analysis(
        metric=metric,
        designed=designed,
        comparison=comparison,
        components=components,
        disagreements=disagreements(components),
        factors=factors.iloc[:0] if designed else factors,
        interactions=together.iloc[:0] if designed else together,
        by_budget=by_budget,
        changes=changes_of_sign(by_budget),
        shares=variance_shares(alike),
        noise=noise(alike, base),
        confounds=confounds(trials),
        besides=_besides(trials, comparison, base),
        published=published(metric, trials, comparison),
        same_text=on_the_same_text(trials),
        warnings=[*warnings_for(trials), *guards(trials, results.curves)],
    )
