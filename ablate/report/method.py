"""How intervals are made, and what was found out about them."""

from __future__ import annotations

from ablate.metric import Metric

_CALIBRATION = (
    "The average over "
    "seeds comes with a 95 % interval by Student's t: a rule whose intervals hold the true effect 95 times in 100. "
    "That was checked on 2,000 simulated studies whose truth was known: with 3, 5 and 10 seeds and bell-shaped "
    "noise it held 94 to 96 times in 100, for differences between two cells, effects of a factor, Shapley values "
    "and the probability of being better alike. The bootstrap, which draws again and again from the seeds that were "
    "run, needs more of them than an ablation has: its percentile interval held the truth 76 times in 100 with 3 "
    "seeds, 83 with 5 and 90 with 10; its refinement BCa did no better; bootstrap-t, close to 95 from 5 seeds on, "
    "gives infinite intervals with 3. Student's t keeps its word by wide intervals where seeds are few. Testing "
    "many rows finds something by chance: where nothing had an effect, one table of six cells in five showed a row "
    "with p < 0.05, but fewer than one in twenty after Holm's correction, which the verdicts use. All this asks for "
    "noise that is not lopsided. Where the differences were as skewed as an exponential distribution, the t "
    "interval of a difference held the truth 88 to 90 times in 100, that of the probability of being better 74 to "
    "85 times, and 15 to 20 tables in 100 found what was not there; the percentile bootstrap and BCa still held it "
    "less often, bootstrap-t more often from 5 seeds on. So look at every seed, and run more of them before you "
    "rely on a narrow verdict."
)


def method(metric: Metric) -> str:
    """A paragraph for the page's end."""
    taken = (
        f"and on the logarithm of {metric.name}, so that it reads as a percentage"
        if metric.scale == "log"
        else f"as a difference of {metric.name}"
    )
    return (
        "Every difference is taken seed by seed, between two models that saw the same data in the same order and began "
        f"from the same numbers, {taken}. {_CALIBRATION}"
    )
