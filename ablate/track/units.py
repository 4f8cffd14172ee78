"""Numbers as people read them."""

from __future__ import annotations

import math

_TIMES, _ABSURD = 10.0, 1e6
_NOISE = 1e-12


def duration(seconds: float) -> str:
    """Seconds as 45 s, 3 min 05 s or 2 h 07 min; n/a for NaN."""
    if math.isnan(seconds):
        return "n/a"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def percent(ratio: float, digits: int | None = None) -> str:
    """A ratio minus 1 as a signed percentage, from 10 on as a multiple.

    Args:
        digits: decimals; None: one, or two where one would say nothing.
    """
    ratio = without_rounding(ratio)
    if ratio >= _TIMES:
        return f"×{1 + ratio:,.0f}" if ratio < _ABSURD else f"over ×{_ABSURD:,.0f}"
    if digits is None:
        digits = 1 if abs(ratio) >= 0.001 or ratio == 0 else 2
    return f"{100 * ratio:+.{digits}f} %".replace("-", "−")


def without_rounding(value: float) -> float:
    """The same, and 0 in place of −0 and of what is left where two equal numbers are subtracted."""
    return 0.0 if abs(value) <= _NOISE else value


def how_many(count: int, noun: str) -> str:
    """1 cell, 12 cells."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def rounded(count: float) -> str:
    """A count to two significant digits, for what is known no better: 531,698 is 530,000."""
    return f"{float(f'{count:.2g}'):,.0f}"
