"""What the numbers say, in sentences computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ablate.analyze.noise import Noise
from ablate.analyze.study import Analysis
from ablate.track.units import percent

_PREFERRED = ("shapley", "removal", "cumulative", "addition")
_SETTLED = ("helps", "hurts")
_WORTH_SAYING = 0.05


def findings(analysis: Analysis) -> list[str]:
    """The headline and what stands beside it, the most important first; never empty."""
    of_parts, of_factors = _of_parts(analysis.components), _of_factors(analysis.factors)
    first = of_parts or of_factors if analysis.designed else of_factors or of_parts
    said = [first, _of_cells(analysis.comparison)]
    return [sentence for sentence in said if sentence]


def _of_parts(effects: pd.DataFrame) -> str:
    """What each component buys, by the fairest measure that the study allows."""
    if effects.empty:
        return ""
    covered = effects.groupby("kind")["component"].nunique()
    kind = max((kind for kind in _PREFERRED if kind in covered), key=lambda kind: covered[kind])
    rows = effects[(effects["kind"] == kind) & effects["ratio"].notna()].to_dict("records")
    helping = sorted((row for row in rows if row["verdict"] == "helps"), key=lambda row: float(row["ratio"]))
    hurting = sorted((row for row in rows if row["verdict"] == "hurts"), key=lambda row: -float(row["ratio"]))
    unsure = [row for row in rows if row["verdict"] not in _SETTLED]
    said = []
    if helping:
        said.append(f"{_capital(helping[0]['component'])} earns its keep the most: {_phrase(helping[0])}.")
    if helping[1:]:
        others = _and([_short(row) for row in helping[1:]])
        said.append(f"{_capital(others)} {_verb(helping[1:], 'helps', 'help')} too.")
    if hurting:
        said.append(f"{_capital(hurting[0]['component'])} hurts here: {_phrase(hurting[0])}.")
    if hurting[1:]:
        said.append(f"So {_verb(hurting[1:], 'does', 'do')} {_and([_short(row) for row in hurting[1:]])}.")
    if unsure:
        names = _and([_short(row) for row in unsure])
        few = max(row["n"] for row in unsure)
        why = "with one seed all of this may be chance" if few < 2 else f"{few} seeds cannot tell"
        said.append(f"Whether {names} {_verb(unsure, 'helps', 'help')}: {why}.")
    return " ".join(said)


def _phrase(row: Mapping[Any, Any]) -> str:
    """An effect in words, with its interval."""
    change, low, high = _change(row)
    how = {
        "removal": "without it test perplexity is",
        "shapley": "averaged over all orders, having it makes test perplexity",
        "addition": "added to the plainest model it makes test perplexity",
        "cumulative": "added in its turn it makes test perplexity",
    }[row["kind"]]
    sure = f" (95 % interval {percent(low)} to {percent(high)}, {row['n']} seeds)" if np.isfinite(low) else ""
    return f"{how} {_more(change)}{sure}"


def _change(row: Mapping[Any, Any]) -> tuple[float, float, float]:
    """Change, low and high as they are told: of taking a part away, the reciprocal of having it, for a removal."""
    if row["kind"] == "removal":
        return 1 / (1 + row["ratio"]) - 1, 1 / (1 + row["high"]) - 1, 1 / (1 + row["low"]) - 1
    return row["ratio"], row["low"], row["high"]


def _short(row: Mapping[Any, Any]) -> str:
    return f"{row['component']} ({'without it ' if row['kind'] == 'removal' else ''}{percent(_change(row)[0])})"


def _more(ratio: float) -> str:
    return f"{_share(abs(ratio))} {'higher' if ratio > 0 else 'lower'}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


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
    sure = _sure(row["low"], row["high"], row["n"]) if row["n"] > 1 else ", one seed: this may be chance"
    return (
        f"{_capital(row['factor'])} matters most: {row['factor']}={row['level']} instead of {row['reference']} changes "
        f"test perplexity by {percent(row['ratio'])} on average over the rest of the grid{sure}."
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
        else f" (95 % interval {_share(low)} to {_share(high)}, {best['pairs']} seeds)"
    )
    first = base.iloc[0]["cell"]
    named = "the first row" if first == comparison.iloc[0]["cell"] else "the baseline"
    gain = _share(-best["difference"])
    return f"{best['cell']} has the lowest test perplexity, {value}: {gain} below {first}, {named}{sure}."


def certainty(noise: Noise) -> list[str]:
    """How far seeds alone move a result, and what this many could have shown."""
    if np.isnan(noise.sd) or noise.sd == 0:
        return [f"How far seeds alone move these results is not known: {noise.reason}."]
    low, middle, high = (f"{100 * np.expm1(sd):.2f} %" for sd in (noise.sd_low, noise.sd, noise.sd_high))
    spread = f"standard deviation within a cell; 95 % interval {low} to {high}"
    said = [f"Seeds alone move test perplexity by {middle} ({spread})."]
    if noise.correlation > _WORTH_SAYING:
        gained = f"{100 * noise.correlation:.0f} %"
        said.append(f"Every cell was run on the same seeds: that removed {gained} of the variance of a difference.")
    if np.isfinite(noise.detectable):
        said.append(
            f"With {noise.n} seeds, a single difference of {_share(noise.detectable)} to the baseline would have been "
            f"shown four times out of five; to show one half as large would take {noise.seeds_for_half:.0f} seeds."
        )
        said.append(f"The smallest p that a test of the signs of {noise.n} pairs can give is {noise.smallest_p:.2g}.")
    elif noise.reason:
        said.append(f"What could have been shown is not known: {noise.reason}.")
    return [" ".join(said)]


def _sure(low: float, high: float, n: int) -> str:
    return f" (95 % interval {percent(low)} to {percent(high)}, {n} seeds)" if n > 1 and np.isfinite(low) else ""


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _verb(rows: list[Any], one: str, many: str) -> str:
    return one if len(rows) == 1 else many


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
