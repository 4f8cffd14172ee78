"""README and the pages of docs/ as a reader has them: links, anchors, commands, messages, files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from program import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
LINKED = (*PAGES, *(ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "benchmarks/RESULTS.md")))

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.S | re.M)
_NAMED = re.compile(r"`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", re.S | re.M)  # a file, and below it what it holds
_STARTS = ("python -m ablate", "python examples/", "python deploy/", "python my_task.py")


@dataclass(frozen=True)
class Command:
    """One command of a page; `says`: the lines that the page shows below it, None where it shows none."""

    page: Path
    text: str
    says: tuple[str, ...] | None = None

    @property
    def arguments(self) -> list[str]:
        """What stands behind the last `&&`: "python", "-m", "ablate", …"""
        words = shlex.split(self.text, comments=True)
        while "&&" in words:
            words = words[words.index("&&") + 1 :]
        return words[next(place for place, word in enumerate(words) if word == "python") :]

    @property
    def tried(self) -> tuple[str, ...]:
        """The same for commands that are tried alike; those of a page that shows files of its own are for these."""
        own = [str(self.page)] if files_of(self.page) else []
        return (*own, *(word for word in self.arguments if word != "plan=true"))

    @property
    def environment(self) -> dict[str, str]:
        """What stands before it: `NAME=VALUE python …`."""
        return dict(re.findall(r"\b([A-Z][A-Z_]+)=(\S+)", self.text.partition("python")[0]))


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language, "" for those of none."""
    return [block for of, block in _FENCE.findall(text_of(page)) if of == language]


def files_of(page: Path) -> dict[str, str]:
    """The files that a page shows, by the path that it gives each: "`mine/study/x.yaml`:", and a block below."""
    return dict(_NAMED.findall(text_of(page)))


def commands(page: Path) -> Iterator[Command]:
    """Every command of ablate's that a page has, in blocks and in its sentences."""
    for block in blocks(page, ""):
        lines = block.replace("\\\n", " ").splitlines()
        for place, line in enumerate(lines):
            if not line.startswith("$ "):
                yield from _command(page, line)
                continue
            after = lines[place + 1 :]
            says = after[: next((n for n, each in enumerate(after) if each.startswith("$ ")), len(after))]
            yield from _command(page, line[2:], tuple(each for each in says if each))
    for inline in re.findall(r"`(python (?:-m ablate|examples/)[^`]*)`", _FENCE.sub("", text_of(page))):
        yield from _command(page, " ".join(inline.split()))


def _command(page: Path, line: str, says: tuple[str, ...] | None = None) -> Iterator[Command]:
    if any(start in line for start in _STARTS) and not line.startswith(("ablate", "#")) and "…" not in line:
        yield Command(page, line.strip(), says)


def links(page: Path) -> list[str]:
    """The relative links of a page and its pictures, as written."""
    found = re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", text_of(page)))
    return [target for target in found if not re.match(r"\w+:", target)]


@cache
def anchors(page: Path) -> frozenset[str]:
    """What a link can name of a page: its headings, as GitHub and MkDocs spell them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text_of(page)), re.M)
    return frozenset(re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings)
