"""How intervals are made, and what was found out about them."""

from __future__ import annotations

from ablate.analyze.study import Analysis

_CALIBRATION = (
    "The average over seeds comes with a 95 % interval by Student's t: a rule whose intervals hold the true effect 95"
    " times in 100. That was checked on 2,000 simulated studies whose truth was known: with 3, 5 and 10 seeds and "
    "bell-shaped noise it held 94 to 96 times in 100, for differences between two cells, effects of a factor and "
    "Shapley values alike. The bootstrap, which draws again and again from the seeds that were run, needs more of "
    "them than an ablation has: its percentile interval held the truth 76 times in 100 with 3 seeds, 83 with 5 and 90"
    " with 10. The interval over test data too takes seeds and blocks of test examples for two crossed samples. All "
    "this asks for noise that is not lopsided: where the differences were as skewed as an exponential distribution, "
    "the t interval held the truth 88 to 90 times in 100. So look at every seed, and run more of them before you rely"
    " on a narrow verdict."
)
_AT_EVERY_LOOK = (
    "Seeds were added one by one, with a look at the results after each: Student's t, looked at so often, would find "
    "something in more than a quarter of the studies in which nothing is there. The 95 % intervals and the p-values of "
    "this page are those of a t test with a normal prior on the effect (Lai 1976; Wang & Ramdas 2023). They hold at "
    "all looks at once, and are wider: in simulated studies without any effect it found one in 2.2 to 2.4 % of them. "
    "Two pairs of seeds, and rows without pairs, have no such interval. All this asks for noise that is not lopsided: "
    "look at every seed before you rely on a narrow verdict."
)
_VERDICTS = (
    "Testing many rows finds something by chance. So what the study was made for is one family, whose p-values are "
    "corrected (Holm), and everything else is marked as exploratory. A comparison that stands in several tables is "
    "tested once. A difference is told from none at a corrected p below 0.05; it is called equivalent where {} lies "
    "within what was said to be worth a difference, which comes before its sign. Where trials diverge, that is told "
    "first, and the side that lost more of them, in the settings that are compared, is never called better."
)


def method(analysis: Analysis) -> str:
    """A paragraph for the page's end."""
    metric = analysis.metric
    looked = analysis.stopping is not None  # seeds were added until they were enough
    taken = (
        f"and on the logarithm of {metric.name}, so that it reads as a percentage"
        if metric.scale == "log"
        else f"as a difference of {metric.name}"
    )
    within = "its interval" if looked else "its 90 % interval (two one-sided tests at 5 %)"
    return (
        "Every difference is taken seed by seed, between two models that saw the same data in the same order and began "
        f"from the same numbers where their tensors have the same name and shape, {taken}. "
        f"{_AT_EVERY_LOOK if looked else _CALIBRATION} {_VERDICTS.format(within)}"
    )
