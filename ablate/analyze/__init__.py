"""Results → what they say. Pure functions of tables; never imports torch."""

from ablate.analyze.comparison import compare, confounds, confounds_between, warnings_for
from ablate.analyze.components import component_effects, disagreements
from ablate.analyze.effects import VarianceShares, factor_effects, interactions, variance_shares
from ablate.analyze.noise import Noise, noise
from ablate.analyze.paired import (
    Difference,
    detectable,
    holm,
    meaningful,
    paired,
    ratio,
    seeds_for_half,
    seeds_needed,
    smallest_p,
    unpaired,
)
from ablate.analyze.pareto import front

__all__ = [
    "METHOD",
    "Difference",
    "Noise",
    "VarianceShares",
    "compare",
    "component_effects",
    "confounds",
    "confounds_between",
    "detectable",
    "disagreements",
    "factor_effects",
    "front",
    "holm",
    "interactions",
    "meaningful",
    "noise",
    "paired",
    "ratio",
    "seeds_for_half",
    "seeds_needed",
    "smallest_p",
    "unpaired",
    "variance_shares",
    "warnings_for",
]

METHOD = (
    "Every difference is taken seed by seed, between two models that saw the same text in the same order and began from "
    "the same numbers, and on the logarithm of perplexity, so that it reads as a percentage. The average over seeds "
    "then comes with a 95 % interval by Student's t: a rule for finding such intervals of which 95 in 100 hold the true "
    "effect. We checked that on 2,000 simulated studies whose true effect was known: with 3, 5 and 10 seeds and "
    "bell-shaped noise, 94 to 96 in 100 did, for differences between two cells, effects of a factor, Shapley values and "
    "the probability of being better alike. The bootstrap, which draws again and again from the seeds that were run, "
    "needs more of them than an ablation has: its percentile interval held the truth 76 times in 100 with 3 seeds, 83 "
    "with 5 and 90 with 10; its refinement BCa did no better; and bootstrap-t, close to 95 from 5 seeds on, gives an "
    "infinite interval with 3. Student's t pays for its promise with wide intervals where seeds are few. Testing many "
    "rows finds something by chance: where nothing had an effect, 1 table of six cells in 5 showed one at p < 0.05, and "
    "1 in 20 after Holm's correction, which the verdicts here use. The promise asks for noise that is about as often "
    "above as below its mean. Where the differences themselves were as skewed as an exponential distribution, the t "
    "interval held the truth 88 to 90 times in 100 and the tables found too much; the bootstrap was worse or no better, "
    "and the remedy is to look at every seed, and to run more of them."
)
