"""What the numbers say, in sentences computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ablate.analyze.by_budget import Change
from ablate.analyze.noise import Noise
from ablate.analyze.paired import undone
from ablate.analyze.study import Analysis
from ablate.track.units import percent, rounded

Row = Mapping[Any, Any]

_PREFERRED = ("shapley", "removal", "cumulative", "addition")
_SETTLED = ("helps", "hurts")
_WORTH_SAYING = 0.05
_NAMED = 6  # more names than that are no sentence


def findings(analysis: Analysis) -> list[str]:
    """The headline and what stands beside it, the most important first; never empty."""
    of_parts, of_factors = _of_parts(analysis.components), _of_factors(analysis.factors)
    first = of_parts or of_factors if analysis.designed else of_factors or of_parts
    if len(analysis.by_budget):
        first = " ".join(by_budget(analysis))
    return [sentence for sentence in (first, _of_cells(analysis.comparison)) if sentence]


def by_budget(analysis: Analysis) -> list[str]:
    """Whether each part helps at every budget, or from which on; a sentence a part."""
    said = []
    changes = {change.name: change for change in analysis.changes}
    for name, part in analysis.by_budget.groupby("name", sort=False):
        rows: Sequence[Row] = part.to_dict("records")
        change = changes.get(str(name))
        said.append(_one_sign(str(name), rows) if change is None else _sign_change(change, rows))
    return said[:_NAMED]


def _one_sign(name: str, rows: Sequence[Row]) -> str:
    settled = {str(row["verdict"]) for row in rows} & {*_SETTLED}
    ends = f"{_at_budget(rows[0])}, {_at_budget(rows[-1])}"
    if len(settled) == 1:
        every = (
            "at every budget" if all(row["verdict"] in _SETTLED for row in rows) else "or cannot be told from chance"
        )
        return f"{_capital(name)} {settled.pop()} {every}: {ends}."
    return f"{_capital(name)} keeps its sign at every budget, but these seeds cannot tell it from chance: {ends}."


def _sign_change(change: Change, rows: Sequence[Row]) -> str:
    """For example: Dropout: 0 → 0.5 hurts at budget=0.1 (+12 %, …) and helps at budget=1 (−5 %, …): …"""
    helps_late = change.after["ratio"] < 0
    early, late = ("hurts", "helps") if helps_late else ("helps", "hurts")
    settled_early = [row for row in rows if row["budget"] <= change.before["budget"] and row["verdict"] == early]
    settled_late = [row for row in rows if row["budget"] >= change.after["budget"] and row["verdict"] == late]
    where = f"its mean effect changes sign near {rounded(change.tokens)} tokens of training"
    if settled_early and settled_late:
        return (
            f"{_capital(change.name)} {early} up to {_at_budget(settled_early[-1])} and {late} from "
            f"{_at_budget(settled_late[0])} on; {where}."
        )
    chance = "where these seeds cannot tell it from chance"
    if settled_early:
        return (
            f"{_capital(change.name)} {early} up to {_at_budget(settled_early[-1])}; {where}, and it is of the other "
            f"sign at {_at_budget(change.after)}, {chance}."
        )
    if settled_late:
        return (
            f"{_capital(change.name)} {late} from {_at_budget(settled_late[0])} on; {where}, and it is of the other "
            f"sign at {_at_budget(change.before)}, {chance}."
        )
    return (
        f"{_capital(change.name)}: {where}, between {_at_budget(change.before)} and {_at_budget(change.after)}; these "
        "seeds cannot tell on which side of zero it is on both sides."
    )


def _at_budget(row: Row) -> str:
    return f"budget={row['budget']:g} ({percent(row['ratio'])}{_signed_interval(row)})"


def _signed_interval(row: Row) -> str:
    if not np.isfinite(row["low"]):
        return ", one seed" if row["n"] == 1 else f", {row['n']} seeds"
    return f", 95 % interval {percent(row['low'])} to {percent(row['high'])}, {row['n']} seeds"


def _of_parts(effects: pd.DataFrame) -> str:
    """What each component buys, by the measure that tells of the most of them."""
    if effects.empty:
        return ""
    covered = effects.groupby("kind")["component"].nunique()
    kind = max((kind for kind in _PREFERRED if kind in covered), key=lambda kind: covered[kind])
    rows: Sequence[Row] = effects[(effects["kind"] == kind) & effects["ratio"].notna()].to_dict("records")
    helping = sorted((row for row in rows if row["verdict"] == "helps"), key=lambda row: float(row["ratio"]))
    hurting = sorted((row for row in rows if row["verdict"] == "hurts"), key=lambda row: -float(row["ratio"]))
    said = []
    if helping:
        most = "has the largest mean benefit" if len(helping) > 1 else "earns its keep"
        said.append(f"{_capital(_name(helping[0]))} {most}: {_phrase(helping[0])}.")
    if helping[1:]:
        said.append(f"{_capital(_list(helping[1:]))} {_verb(helping[1:], 'helps', 'help')} too.")
    if hurting:
        said.append(f"{_capital(_name(hurting[0]))} hurts here: {_phrase(hurting[0])}.")
    if hurting[1:]:
        said.append(f"So {_verb(hurting[1:], 'does', 'do')} {_list(hurting[1:])}.")
    for n in sorted({int(row["n"]) for row in rows if row["verdict"] not in _SETTLED}, reverse=True):
        unsure = [row for row in rows if row["verdict"] not in _SETTLED and row["n"] == n]
        why = f"{n} seeds cannot tell" if n > 1 else "one seed cannot tell, it may be chance"
        said.append(f"Whether {_list(unsure)} {_verb(unsure, 'helps', 'help')}: {why}.")
    return " ".join(said)


def _phrase(row: Row) -> str:
    """An effect in words, with its interval."""
    how = {
        "removal": "without it test perplexity is",
        "shapley": "averaged over all orders, having it makes test perplexity",
        "addition": "added to the plainest model it makes test perplexity",
        "cumulative": "added in its turn it makes test perplexity",
    }[row["kind"]]
    change, low, high = _change(row)
    direction = "higher" if change > 0 else "lower"
    return f"{how} {_size(change)} {direction}" + _interval(low, high, f"{row['n']} seeds")


def _change(row: Row) -> tuple[float, float, float]:
    """Change, low and high as they are told: of taking a part away for a removal, else of having it."""
    if row["kind"] == "removal":
        return undone(row["ratio"]), undone(row["high"]), undone(row["low"])
    return float(row["ratio"]), float(row["low"]), float(row["high"])


def _name(row: Row) -> str:
    return f"{row['component']} at {row['at']}" if row["at"] else str(row["component"])


def _list(rows: Sequence[Row]) -> str:
    """Names with their effects."""
    shown = [
        f"{_name(row)} ({'without it ' if row['kind'] == 'removal' else ''}{percent(_change(row)[0])})" for row in rows
    ]
    return _and(shown)


def _of_factors(factors: pd.DataFrame) -> str:
    """Which factor of a grid moves perplexity the most."""
    marginal = factors[(factors["at"] == "") & factors["ratio"].notna()]
    if marginal["factor"].nunique() < 2:
        return ""
    settled = marginal[marginal["verdict"].isin(_SETTLED)]
    if settled.empty and (marginal["n"] > 1).any():
        return f"None of {_and(list(dict.fromkeys(marginal['factor'])))} makes a difference that these seeds can show."
    pool = marginal if settled.empty else settled
    row = max(pool.to_dict("records"), key=lambda row: abs(float(np.log1p(row["ratio"]))))
    sure = _interval(row["low"], row["high"], f"{row['n']} seeds") if row["n"] > 1 else ", one seed: this may be chance"
    over = f" on average over {row['contexts']} settings of the rest" if row["contexts"] > 1 else ""
    return (
        f"{_capital(row['factor'])} matters most, by the mean: {row['factor']}={row['level']} instead of "
        f"{row['reference']} changes test perplexity by {percent(row['ratio'])}{over}{sure}."
    )


def _of_cells(comparison: pd.DataFrame) -> str:
    """The best cell beside the baseline, of those that can be compared with it."""
    done = comparison[(comparison["n"] > 0) & (comparison["verdict"] != "not comparable")]
    if done.empty:
        done = comparison[comparison["n"] > 0]
    if done.empty:
        return "No trial has finished yet."
    best = done.sort_values("test_mean", kind="stable").iloc[0].to_dict()
    base = comparison[comparison["verdict"] == "baseline"].iloc[0].to_dict()
    value = f"{best['test_mean']:,.1f}" if best["test_mean"] < 1e6 else "over 1,000,000"
    if len(done) == 1:
        return f"{best['cell']} reaches a test perplexity of {value} (n = {best['n']})."
    if best["cell"] == base["cell"] or pd.isna(best["difference"]):
        return f"{best['cell']} has the lowest test perplexity: {value} (n = {best['n']})."
    role = "the first row" if base["cell"] == comparison["cell"].iloc[0] else "the baseline"
    beside = _beside(best, f"{base['cell']}, {role}")
    return f"{best['cell']} has the lowest test perplexity, {value}: {beside}."


def _beside(best: Row, other: str) -> str:
    """How the row with the lowest mean stands beside the baseline, which its own seeds need not confirm."""
    seeds = f"{best['pairs']} seeds" if best["difference_kind"] == "paired" else "no seed in common"
    if best["verdict"] == "better":
        sure = _interval(best["difference_low"], best["difference_high"], seeds)
        return f"{_size(best['difference'])} below {other}{sure}"
    if best["verdict"] == "one seed":
        below = f"{_size(best['difference'])} {'below' if best['difference'] < 0 else 'above'} {other}"
        return f"{below}; with one seed this may be chance"
    if best["verdict"] == "worse":  # on the seeds that both have; the mean is over all
        return f"but on the seeds that both have it is {_size(best['difference'])} above {other}"
    return f"{percent(best['difference'])} beside {other}, which {seeds} cannot tell from chance"


def certainty(noise: Noise) -> list[str]:
    """How far seeds alone move a result, and what this many could have shown."""
    if np.isnan(noise.sd) or noise.sd == 0:
        return [f"How far seeds alone move these results is not known: {noise.reason}."]
    low, middle, high = (f"{100 * np.expm1(sd):.2f} %" for sd in (noise.sd_low, noise.sd, noise.sd_high))
    spread = f"standard deviation within a cell; 95 % interval {low} to {high}"
    said = [f"Seeds alone move test perplexity by {middle} ({spread})."]
    if noise.correlation > _WORTH_SAYING:
        said.append(
            f"Comparing the same seeds removes {100 * noise.correlation:.0f} % of the variance of a difference."
        )
    if np.isfinite(noise.detectable):
        said.append(
            f"With {noise.n} pairs of seeds, the fewest of any row, a single difference of {_size(noise.detectable)} "
            "to the baseline would have been shown four times out of five; to show one half as large would take "
            f"{noise.seeds_for_half:.0f} seeds. The smallest p that a test of the signs of {noise.n} pairs can give is "
            f"{noise.smallest_p:.2g}."
        )
    elif noise.reason:
        said.append(f"What could have been shown is not known: {noise.reason}.")
    return [" ".join(said)]


def _interval(low: float, high: float, seeds: str) -> str:
    """In brackets, without signs where both ends lie on the same side, as the direction has been said."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return f" ({seeds})"
    if low * high > 0:
        ends = sorted((abs(low), abs(high)))
        return f" (95 % interval {_size(ends[0])} to {_size(ends[1])}, {seeds})"
    return f" (95 % interval {percent(low)} to {percent(high)}, {seeds})"


def _size(ratio: float) -> str:
    """A change without its sign."""
    return percent(abs(ratio)).removeprefix("+")


def _and(names: Sequence[str]) -> str:
    if len(names) > _NAMED:
        names = [*names[: _NAMED - 1], f"{len(names) - _NAMED + 1} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _verb(rows: Sequence[object], one: str, many: str) -> str:
    return one if len(rows) == 1 else many


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
