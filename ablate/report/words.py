"""What the numbers say, in sentences computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from ablate.analyze.by_budget import Change
from ablate.analyze.components import widest_kind
from ablate.analyze.differs import Task
from ablate.analyze.noise import Noise
from ablate.analyze.study import Analysis
from ablate.metric import Metric
from ablate.report import told
from ablate.report.names import NOT_KNOWN, named_by_budget, part_of
from ablate.report.noise import noise_told
from ablate.track.units import rounded

Row = Mapping[Any, Any]

_SETTLED = ("helps", "hurts")
_WHERE = {
    "removal": "in the full model",
    "addition": "in the plainest model",
    "cumulative": "on its step of the ladder",
}
_WORTH_SAYING = 0.05
_NAMED = 6  # more names than that are no sentence


def findings(analysis: Analysis) -> list[str]:
    """The headline and what stands beside it, the most important first; never empty."""
    metric = analysis.metric
    if of_noise := noise_told(metric, analysis.sources):
        return of_noise
    of_parts, of_factors = _of_parts(metric, analysis.components), _of_factors(metric, analysis.factors)
    first = of_parts or of_factors if analysis.designed else of_factors or of_parts
    if len(analysis.by_budget):
        first = " ".join(by_budget(analysis))
    return [sentence for sentence in (first, _of_cells(metric, analysis.comparison)) if sentence]


def by_budget(analysis: Analysis) -> list[str]:
    """What each part does at every budget that has a result, and where its mean effect changes sign."""
    said, metric, task = [], analysis.metric, analysis.task
    for name, part in named_by_budget(analysis).groupby("name", sort=False):
        rows: Sequence[Row] = part.to_dict("records")
        alike = [list(group) for _, group in groupby(rows, key=_does)]
        parts = [_at_budgets(metric, task, group, first=i == 0) for i, group in enumerate(alike)]
        where = _crossings(task, [change for change in analysis.changes if part_of(change.before) == name])
        said.append(f"{_capital(str(name))} {_and(parts)}{where}.")
    if len(said) > _NAMED:
        said = [*said[:_NAMED], f"{len(said) - _NAMED} more parts are in the table by budget."]
    return said


def _crossings(task: Task, changes: Sequence[Change]) -> str:
    if not changes:
        return ""
    if pd.isna([change.seen for change in changes]).any():
        where = f"{task['budget'][0]}={_and([f'{change.budget:.2g}' for change in changes])}"
    else:
        where = f"{_and([rounded(change.seen) for change in changes])} {told.unit(task)} of training"
    return f"; its mean effect changes sign near {where}"


def _at_budgets(metric: Metric, task: Task, rows: Sequence[Row], first: bool) -> str:
    """Neighbouring budgets of one verdict, with the effect at the one next to the others."""
    row = rows[-1] if first else rows[0]
    budgets = [f"{each['budget']:g}" for each in rows]
    at = f"at {row['budget']:g}: " if len(rows) > 1 else ""
    effect = f"{at}{told.change(metric, row['effect'])}{_signed_interval(metric, row)}"
    return f"{_does(row)} at {task['budget'][0]}={_and(budgets)} ({effect})"


def _does(row: Row) -> str:
    return str(row["verdict"]) if row["verdict"] in _SETTLED else "cannot be told from chance"


def _signed_interval(metric: Metric, row: Row) -> str:
    if not np.isfinite(row["low"]):
        return ", one seed" if row["n"] == 1 else f", {row['n']} seeds"
    return f", 95 % interval {told.span(metric, row['low'], row['high'])}, {row['n']} seeds"


def _of_parts(metric: Metric, effects: pd.DataFrame) -> str:
    """What each component buys, by the measure that tells of the most of them."""
    if effects.empty:
        return ""
    rows: Sequence[Row] = effects[(effects["kind"] == widest_kind(effects)) & effects["effect"].notna()].to_dict(
        "records"
    )
    helping = sorted((row for row in rows if row["verdict"] == "helps"), key=lambda row: float(row["effect"]))
    hurting = sorted((row for row in rows if row["verdict"] == "hurts"), key=lambda row: -float(row["effect"]))
    said = []
    if helping:
        most = "has the largest mean benefit" if len(helping) > 1 else "earns its keep"
        said.append(f"{_capital(_name(helping[0]))} {most}: {_phrase(metric, helping[0])}.")
    if helping[1:]:
        said.append(f"{_capital(_list(metric, helping[1:]))} {_verb(helping[1:], 'helps', 'help')} too.")
    if hurting:
        said.append(f"{_capital(_name(hurting[0]))} hurts here: {_phrase(metric, hurting[0])}.")
    if hurting[1:]:
        said.append(f"So {_verb(hurting[1:], 'does', 'do')} {_list(metric, hurting[1:])}.")
    for n in sorted({int(row["n"]) for row in rows if row["verdict"] not in _SETTLED}, reverse=True):
        unsure = [row for row in rows if row["verdict"] not in _SETTLED and row["n"] == n]
        why = f"{n} seeds cannot tell" if n > 1 else "one seed cannot tell, it may be chance"
        said.append(f"Whether {_list(metric, unsure)} {_verb(unsure, 'helps', 'help')}: {why}.")
    return " ".join(said)


def _phrase(metric: Metric, row: Row) -> str:
    """An effect in words, with its interval."""
    how = {
        "removal": "without it test {} is",
        "shapley": "averaged over all orders, having it makes test {}",
        "addition": "added to the plainest model it makes test {}",
        "cumulative": "added in its turn it makes test {}",
    }[row["kind"]].format(metric.name)
    effect, low, high = _as_told(row)
    what = f"{how} {told.size(metric, effect)} {told.direction(metric, effect)}"
    return what + _interval(metric, low, high, f"{row['n']} seeds")


def _as_told(row: Row) -> tuple[float, float, float]:
    """Effect, low and high as they are told: of taking a part away for a removal, else of having it."""
    if row["kind"] == "removal":
        return -float(row["effect"]), -float(row["high"]), -float(row["low"])
    return float(row["effect"]), float(row["low"]), float(row["high"])


def _name(row: Row) -> str:
    return f"{row['component']} at {row['at']}" if row["at"] else str(row["component"])


def _list(metric: Metric, rows: Sequence[Row]) -> str:
    """Names with their effects."""
    shown = [
        f"{_name(row)} ({'without it ' if row['kind'] == 'removal' else ''}{told.change(metric, _as_told(row)[0])})"
        for row in rows
    ]
    return _and(shown)


def _of_factors(metric: Metric, factors: pd.DataFrame) -> str:
    """Which factor of a grid moves the metric the most."""
    marginal = factors[(factors["at"] == "") & factors["effect"].notna()]
    if marginal["factor"].nunique() < 2:
        return ""
    settled = marginal[marginal["verdict"].isin(_SETTLED)]
    if settled.empty and (marginal["n"] > 1).any():
        return f"None of {_and(list(dict.fromkeys(marginal['factor'])))} makes a difference that these seeds can show."
    pool = marginal if settled.empty else settled
    row = max(pool.to_dict("records"), key=lambda row: abs(float(row["effect"])))
    seeds = f"{row['n']} seeds"
    sure = _interval(metric, row["low"], row["high"], seeds) if row["n"] > 1 else ", one seed: this may be chance"
    over = f" on average over {row['contexts']} settings of the rest" if row["contexts"] > 1 else ""
    return (
        f"{_capital(row['factor'])} matters most, by the mean: {row['factor']}={row['level']} instead of "
        f"{row['reference']} changes test {metric.name} by {told.change(metric, row['effect'])}{over}{sure}."
    )


def _of_cells(metric: Metric, comparison: pd.DataFrame) -> str:
    """The best cell beside the baseline, of those that can be compared with it."""
    done = comparison[(comparison["n"] > 0) & (comparison["verdict"] != "not comparable")]
    if done.empty:
        done = comparison[comparison["n"] > 0]
    if done.empty:
        return "No trial has finished yet."
    best = done.sort_values("test_mean", ascending=metric.better == "lower", kind="stable").iloc[0].to_dict()
    base = comparison[comparison["verdict"] == "baseline"].iloc[0].to_dict()
    value, most = told.value(metric, best["test_mean"]), f"the {told.best(metric)} test {metric.name}"
    if len(done) == 1:
        return f"{best['cell']} reaches a test {metric.name} of {value} (n = {best['n']})."
    if best["cell"] == base["cell"] or pd.isna(best["effect"]):
        return f"{best['cell']} has {most}: {value} (n = {best['n']})."
    role = "the first row" if base["cell"] == comparison["cell"].iloc[0] else "the baseline"
    beside = _beside(metric, best, f"{base['cell']}, {role}")
    return f"{best['cell']} has {most}, {value}: {beside}."


def _beside(metric: Metric, best: Row, other: str) -> str:
    """How the row with the best mean stands beside the baseline, which its own seeds need not confirm."""
    seeds = f"{best['pairs']} seeds" if best["difference_kind"] == "paired" else "no seed in common"
    where = {"lower": "below", "higher": "above"}[told.direction(metric, best["effect"])]
    apart = f"{told.size(metric, best['effect'])} {where} {other}"
    if best["verdict"] == "better":
        return apart + _interval(metric, best["low"], best["high"], seeds)
    if best["verdict"] == "one seed":
        return f"{apart}; with one seed this may be chance"
    if best["verdict"] == "worse":  # on the seeds that both have; the mean is over all
        return f"but on the seeds that both have it is {apart}"
    return f"{told.change(metric, best['effect'])} beside {other}, which {seeds} cannot tell from chance"


def certainty(metric: Metric, noise: Noise) -> list[str]:
    """How far seeds alone move a result, and what this many could have shown."""
    if np.isnan(noise.sd) or noise.sd == 0:
        return [f"How far seeds alone move these results is not known: {NOT_KNOWN[noise.reason]}."]
    low, middle, high = (told.spread(metric, sd) for sd in (noise.sd_low, noise.sd, noise.sd_high))
    spread = f"standard deviation within a cell; 95 % interval {low} to {high}"
    said = [f"Seeds alone move test {metric.name} by {middle} ({spread})."]
    if noise.correlation > _WORTH_SAYING:
        said.append(
            f"Comparing the same seeds removes {100 * noise.correlation:.0f} % of the variance of a difference."
        )
    if np.isfinite(noise.detectable):
        shown = told.size(metric, metric.sign * noise.detectable)
        said.append(
            f"With {noise.n} pairs of seeds, the fewest of any row, a single difference of {shown} "
            "to the baseline would have been shown four times out of five; to show one half as large would take "
            f"{noise.seeds_for_half:.0f} seeds. The smallest p that a test of the signs of {noise.n} pairs can give is "
            f"{noise.smallest_p:.2g}."
        )
    elif noise.reason:
        said.append(f"What could have been shown is not known: {NOT_KNOWN[noise.reason]}.")
    return [" ".join(said)]


def _interval(metric: Metric, low: float, high: float, seeds: str) -> str:
    """In brackets, without signs where both ends lie on the same side, as the direction has been said."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return f" ({seeds})"
    if low * high > 0:
        near, far = sorted((low, high), key=abs)
        return f" (95 % interval {told.size(metric, near)} to {told.size(metric, far)}, {seeds})"
    return f" (95 % interval {told.span(metric, low, high)}, {seeds})"


def disagreement(metric: Metric, row: Row) -> str:
    """What two ways of measuring a component say of it, and what that means."""
    effects = [
        f"{told.change(metric, row[f'{which}_effect'])} ({row[f'{which}_verdict']}) {_WHERE[row[which]]}"
        for which in ("first", "second")
    ]
    where = f" at {row['at']}" if row["at"] else ""
    verdicts = {row["first_verdict"], row["second_verdict"]}
    if verdicts == {*_SETTLED}:
        why = "what it does depends on the parts around it."
    elif verdicts & {*_SETTLED}:
        why = "only one of the two can be told from no effect, which does not yet show that they differ."
    else:
        why = "neither can be told from no effect, so that the signs may be chance."
    return f"{row['component']}{where} changes {metric.name} by {effects[0]} and by {effects[1]}: {why}"


def _and(names: Sequence[str]) -> str:
    if len(names) > _NAMED:
        names = [*names[: _NAMED - 1], f"{len(names) - _NAMED + 1} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _verb(rows: Sequence[object], one: str, many: str) -> str:
    return one if len(rows) == 1 else many


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
