"""A hook of MkDocs: what the pages link to outside of docs/ is part of the site, and their links lead there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
_SHOWN = (
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "benchmarks/RESULTS.md",
    "deploy/*.*",
    "examples/**/*.py",
    "reports/examples/**/*.png",
    "reports/examples/**/index.html",
)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> None:
    """Anchors are those of GitHub, where the same pages are read."""
    config.mdx_configs["toc"] = {"slugify": _slug}


def _slug(heading: str, separator: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", separator)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add what is outside of docs/, each file under its own path."""
    for pattern in _SHOWN:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, _place(path), abs_src_path=str(path)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where their files are in the site; one to what it does not hold becomes its text."""
    place = page.file.src_uri
    here = (DOCS / place if (DOCS / place).is_file() else ROOT / place).parent

    def moved(link: re.Match[str]) -> str:
        picture, text, path, anchor = link.groups()
        target = _place(Path(os.path.normpath(here / path)))
        if files.get_file_from_path(target) is None and (ROOT / target).exists():
            return text
        return f"{picture}[{text}]({os.path.relpath(target, Path(place).parent)}{anchor or ''})"

    return _LINK.sub(moved, markdown)


def _place(path: Path) -> str:
    """The path of a file within the site, before it becomes a page."""
    return path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix()
