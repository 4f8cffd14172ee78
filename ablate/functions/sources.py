"""The code that decides a function's result: its file and what that imports, outside of what is installed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ablate.code import ABLATE, by_name, closure, digests

_OF_ABLATE = ("functions", "train")
_DECIDES_NOTHING = (
    "arguments", "causes", "check", "declared", "fresh", "load", "observe", "sources", "trained", "watch",
)  # fmt: skip


@cache
def files(script: Path) -> dict[str, Path]:
    """Name → path of a script with its package, of what they import, and of what that imports.

    Names are relative to the script's folder. Left out are the standard library, installed packages, and of ablate what
    trains nothing.
    """
    of_ablate = {
        path
        for name in _OF_ABLATE
        for path in (ABLATE / name).rglob("*.py")
        if name != "functions" or path.stem not in _DECIDES_NOTHING
    }
    return by_name(of_ablate, ABLATE.parent) | by_name(closure(script), script.parent)


@cache
def sources(script: Path) -> dict[str, str]:
    """Name → SHA-256 of these files; each is read once a process."""
    return digests(files(script))
