"""What the numbers say, in sentences computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ablate.analyze.noise import Noise
from ablate.analyze.study import Analysis

_PREFERRED = ("shapley", "removal", "cumulative", "addition")
_SETTLED = ("helps", "hurts")
_WORTH_SAYING = 0.05


def findings(analysis: Analysis) -> list[str]:
    """The headline and what stands beside it, the most important first; never empty."""
    said = [_of_parts(analysis.components) or _of_factors(analysis.factors), _of_cells(analysis.comparison)]
    return [sentence for sentence in said if sentence]


def _of_parts(effects: pd.DataFrame) -> str:
    """What each component buys, by the fairest measure that the study allows."""
    kind = next((kind for kind in _PREFERRED if (effects["kind"] == kind).any()), None)
    if kind is None:
        return ""
    rows = effects[(effects["kind"] == kind) & effects["ratio"].notna()].to_dict("records")
    helping = sorted((row for row in rows if row["verdict"] == "helps"), key=lambda row: float(row["ratio"]))
    hurting = sorted((row for row in rows if row["verdict"] == "hurts"), key=lambda row: -float(row["ratio"]))
    unsure = [row for row in rows if row["verdict"] not in _SETTLED]
    said = []
    if helping:
        first, *others = helping
        said.append(f"{_capital(first['component'])} earns its keep the most: {_in_words(first)}.")
        if others:
            said.append(f"{_and([_short(row) for row in others])} {_verb(others, 'helps', 'help')} too.")
    if hurting:
        said.append(f"{_capital(_and([_short(row) for row in hurting]))} {_verb(hurting, 'hurts', 'hurt')} here.")
    if unsure:
        names = _and([row["component"] for row in unsure])
        why = "with one seed nothing can be said of chance" if unsure[0]["n"] < 2 else f"at {unsure[0]['n']} seeds"
        said.append(
            f"{_capital(names)}: {', '.join(_percent(row['ratio']) for row in unsure)}; {why}."
            if unsure[0]["n"] < 2
            else f"What {names} {_verb(unsure, 'does', 'do')} cannot be told {why}."
        )
    return " ".join(said)


def _in_words(row: Mapping[Any, Any]) -> str:
    if row["kind"] == "removal":
        # Taking a part away is the reciprocal of having it.
        change, low, high = (1 / (1 + row[name]) - 1 for name in ("ratio", "high", "low"))
        return f"without it test perplexity is {_percent(change)}{_sure(low, high, row['n'])}"
    how = {"shapley": "averaged over all orders, having it changes", "addition": "added to the plainest model it changes"}
    start = how.get(row["kind"], "added in its turn it changes")
    return f"{start} test perplexity by {_percent(row['ratio'])}{_sure(row['low'], row['high'], row['n'])}"


def _of_factors(factors: pd.DataFrame) -> str:
    """Which factor of a grid moves perplexity the most."""
    marginal = factors[(factors["at"] == "") & factors["ratio"].notna()]
    if marginal["factor"].nunique() < 2:
        return ""
    settled = marginal[marginal["verdict"].isin(_SETTLED)]
    if settled.empty and (marginal["n"] > 1).any():
        return f"None of {_and(list(dict.fromkeys(marginal['factor'])))} makes a difference that these seeds can show."
    pool = marginal if settled.empty else settled
    row = pool.loc[np.log1p(pool["ratio"].astype(float)).abs().idxmax()]
    sure = _sure(row["low"], row["high"], row["n"]) if row["n"] > 1 else ", one seed: this may be chance"
    return (
        f"{_capital(row['factor'])} matters most: {row['factor']}={row['level']} instead of {row['reference']} changes "
        f"test perplexity by {_percent(row['ratio'])} on average over the rest of the grid{sure}."
    )


def _of_cells(comparison: pd.DataFrame) -> str:
    """The best cell beside the baseline."""
    done = comparison[comparison["n"] > 0]
    if done.empty:
        return "No trial has finished yet."
    best = done.sort_values("test_mean", kind="stable").iloc[0]
    base = comparison[comparison["verdict"] == "baseline"]
    value = f"{best['test_mean']:,.1f}"
    if len(done) == 1:
        return f"{best['cell']} reaches a test perplexity of {value} (n = {best['n']})."
    if base.empty or best["cell"] == base.iloc[0]["cell"] or pd.isna(best["difference"]):
        return f"{best['cell']} has the lowest test perplexity: {value} (n = {best['n']})."
    low, high = -best["difference_high"], -best["difference_low"]
    sure = (
        "; with one seed this may be chance"
        if pd.isna(low)
        else f" (95 % interval {low:.1%} to {high:.1%}, {best['pairs']} seeds)"
    )
    first = base.iloc[0]["cell"]
    named = "the first row" if first == comparison.iloc[0]["cell"] else "the baseline"
    return f"{best['cell']} has the lowest test perplexity, {value}: {-best['difference']:.1%} below {first}, {named}{sure}."


def certainty(noise: Noise) -> list[str]:
    """How far seeds alone move a result, and what this many could have shown."""
    if np.isnan(noise.sd) or noise.sd == 0:
        return [f"How far seeds alone move these results is not known: {noise.reason}."]
    low, middle, high = (f"{np.expm1(sd):.2%}".replace("%", " %") for sd in (noise.sd_low, noise.sd, noise.sd_high))
    said = [f"Seeds alone move test perplexity by {middle} (standard deviation within a cell; 95 % interval {low} to {high})."]
    if noise.correlation > _WORTH_SAYING:
        said.append(
            f"Every cell was run on the same seeds: that removed {noise.correlation:.0%} of the variance of a difference."
        )
    if np.isfinite(noise.detectable):
        said.append(
            f"With {noise.n} seeds, a single difference of {noise.detectable:.1%} to the baseline would have been shown "
            f"four times out of five; to show one half as large would take {noise.seeds_for_half:.0f} seeds."
        )
        said.append(f"The smallest p that a test of the signs of {noise.n} pairs can give is {noise.smallest_p:.2g}.")
    elif noise.reason:
        said.append(f"What could have been shown is not known: {noise.reason}.")
    return [" ".join(said)]


def _sure(low: float, high: float, n: int) -> str:
    return f" (95 % interval {_percent(low)} to {_percent(high)}, {n} seeds)" if n > 1 and np.isfinite(low) else ""


def _percent(ratio: float) -> str:
    return f"{ratio:+.1%}".replace("-", "−").replace("%", " %")


def _short(row: Mapping[Any, Any]) -> str:
    return f"{row['component']} ({_percent(row['ratio'])})"


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _verb(rows: list[Any], one: str, many: str) -> str:
    return one if len(rows) == 1 else many


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
