"""What the numbers say, in sentences computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ablate.analyze.noise import Noise
from ablate.analyze.study import Analysis
from ablate.metric import Metric
from ablate.report import told
from ablate.report.budgets import by_budget
from ablate.report.cells import of_cells, of_divergence
from ablate.report.factors import of_factors
from ablate.report.names import NOT_KNOWN
from ablate.report.noise import noise_told
from ablate.report.parts import of_parts
from ablate.report.phrases import listed


def findings(analysis: Analysis) -> list[str]:
    """The headline and what stands beside it, the most important first; never empty."""
    metric, size = analysis.metric, analysis.margin
    lost = of_divergence(analysis.ends, analysis.components)
    if of_noise := noise_told(metric, analysis.sources):
        return [sentence for sentence in (lost, *of_noise) if sentence]
    if analysis.primary == "components":
        asked = of_parts(metric, analysis.components, size)
    elif analysis.primary == "by_budget":
        asked = " ".join(by_budget(analysis))
    elif analysis.primary == "factors":
        asked = of_factors(metric, analysis.factors, analysis.interactions, size)
    else:
        asked = ""
    if analysis.learned_nothing:
        nothing = (
            f"No cell has learned anything: every test {metric.name} is worse than that of a model that knows nothing."
        )
        return [sentence for sentence in (lost, nothing) if sentence]
    best = of_cells(metric, analysis.comparison, analysis.ends, size)
    return [sentence for sentence in (lost, asked, best) if sentence]


def certainty(metric: Metric, noise: Noise, stopping: Mapping[str, Any] | None = None) -> list[str]:
    """How far seeds alone move a result, and what this many could have shown, or when there were enough of them."""
    if np.isnan(noise.sd) or noise.sd == 0:
        return [f"How far seeds alone move these results is not known: {NOT_KNOWN[noise.reason]}."]
    low, middle, high = (told.spread(metric, sd) for sd in (noise.sd_low, noise.sd, noise.sd_high))
    spread = f"standard deviation within a cell; 95 % interval {low} to {high}"
    said = [f"Seeds alone move test {metric.name} by {middle} ({spread})."]
    if np.isfinite(noise.correlation):
        said.append(_pairing(noise))
    if stopping is not None:
        said.append(stopped(stopping))
    elif np.isfinite(noise.detectable):
        one, of_many = (told.size(metric, metric.sign * size) for size in (noise.detectable, noise.in_family))
        many = (
            f", and one of {of_many} for a typical one of the {noise.tests} comparisons that count together"
            if noise.tests > 1 and np.isfinite(noise.in_family)
            else ""
        )
        said.append(
            f"With {noise.n} pairs of seeds, the fewest of any row, a difference of {one} to the baseline would have "
            f"been shown four times out of five if it were the only one tested{many}; to show one half as large "
            f"would take {noise.seeds_for_half:.0f} seeds. The smallest p that a test of the signs of {noise.n} pairs "
            f"can give is {noise.smallest_p:.2g}."
        )
    elif noise.reason:
        said.append(f"What could have been shown is not known: {NOT_KNOWN[noise.reason]}.")
    return [" ".join(said)]


def stopped(stopping: Mapping[str, Any]) -> str:
    """How seeds=auto came to its end."""
    found = stopping.get("look")
    how = "Seeds were added one by one until they were enough (seeds=auto)"
    rest = (
        "The intervals and verdicts of this page hold however often one looks, and are wider for it than those of a "
        "number of seeds that is fixed beforehand."
    )
    if "studies" in stopping:
        return f"{how} in one of these studies at least. {rest}"
    if found is None:
        return f"{how}, and that has not come to its end: more may be added. {rest}"
    decided, undecided = len(found["decided"]), list(found["undecided"])
    if not decided and not undecided:
        return f"{how}: it stopped at {found['seeds']}, because no comparison has a result. {rest}"
    if not undecided:
        which = (
            "the only comparison that has a result is"
            if decided == 1
            else f"all {decided} comparisons that have a result are"
        )
        return f"{how}: it stopped at {found['seeds']}, where {which} decided. {rest}"
    return (
        f"{how}: it stopped at {found['seeds']}, the most that was allowed (max_seeds={stopping['max_seeds']}), with "
        f"{decided} of {decided + len(undecided)} comparisons decided and {listed(undecided)} not. {rest}"
    )


def _pairing(noise: Noise) -> str:
    if noise.correlation > 0:
        return f"Comparing the same seeds removes {100 * noise.correlation:.0f} % of the variance of a difference."
    return "Comparing the same seeds gains nothing here: results of the same seed in two cells are not alike."
