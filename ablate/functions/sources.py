"""The code that decides a function's result: its file and what that imports, outside of what is installed."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_OF_ABLATE = ("functions", "train")
_DECIDES_NOTHING = ("arguments", "causes", "check", "declared", "fresh", "load", "observe", "sources", "watch")


@cache
def sources(script: Path) -> dict[str, str]:
    """File → SHA-256 of a script, of the modules and packages that it imports, and of what they import.

    Names are relative to the script's folder. Left out are the standard library, installed packages, and of ablate what
    trains nothing. A file is read once a process.
    """
    root = Path(__file__).parents[1]
    found = {
        f"ablate/{path.relative_to(root).as_posix()}": path
        for name in _OF_ABLATE
        for path in sorted((root / name).rglob("*.py"))
        if name != "functions" or path.stem not in _DECIDES_NOTHING
    }
    found |= {Path(os.path.relpath(path, script.parent)).as_posix(): path for path in sorted(closure(script))}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}


def closure(script: Path) -> set[Path]:
    """A script and all files of the user's own that it imports."""
    finder = _Finder(script.resolve())
    waiting, found = [script.resolve()], set[Path]()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += finder.imported_by(path)
    return found


class _Finder:
    def __init__(self, script: Path) -> None:
        self._root = package_root(script)
        self._package = self._root / script.relative_to(self._root).parts[0]  # the script itself, where there is none
        self._folders = list(dict.fromkeys([script.parent, self._root]))

    def imported_by(self, path: Path) -> list[Path]:
        """Files that one file imports, by any statement in it."""
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            return []
        return [file for level, name in _imports(tree) for file in self._files(path, level, name)]

    def _files(self, path: Path, level: int, name: str) -> list[Path]:
        parts = name.split(".") if name else []
        if level:
            folder = path.parents[level - 1]
            return [*_along(folder, []), *_along(folder, parts)]
        if parts[0] == "ablate":
            return []
        for folder in self._folders:
            if _is_module(folder / parts[0]):
                return self._in(folder, parts)
        elsewhere = _folder_of(parts[0])
        return [] if elsewhere is None else self._in(elsewhere, parts)

    def _in(self, folder: Path, parts: list[str]) -> list[Path]:
        package = folder / parts[0]
        is_own = package == self._package  # the script's: what it does not import may be another script
        if (package / "__init__.py").is_file() and not is_own:
            return sorted(package.rglob("*.py"))
        return _along(folder, parts)


def package_root(script: Path) -> Path:
    """The folder that a script's package lies in; its own, where it is in no package."""
    folder = script.parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        folder = folder.parent
    return folder


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Level and dotted name of everything imported; of `from a import b`, a.b too, for b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if base:
                yield node.level, base
            for alias in node.names:
                yield node.level, f"{base}.{alias.name}".lstrip(".")
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__") and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and name.value.strip("."):
                yield len(name.value) - len(name.value.lstrip(".")), name.value.lstrip(".")


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def _along(folder: Path, parts: list[str]) -> list[Path]:
    """The files that importing a.b.c runs: a/__init__.py, a/b/__init__.py, a/b/c.py."""
    found = [folder / "__init__.py"] if not parts else []
    for part in parts:
        found.append(folder / f"{part}.py")
        folder = folder / part
        found.append(folder / "__init__.py")
    return [path.resolve() for path in found if path.is_file()]


def _is_module(path: Path) -> bool:
    return path.with_name(f"{path.name}.py").is_file() or path.is_dir()


def _folder_of(name: str) -> Path | None:
    """The folder in which a module that is neither standard nor installed was found; None: it is one of those."""
    if name in sys.stdlib_module_names or name == "__main__":
        return None
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or [])]
    files = [Path(place).resolve() for place in places if place and place not in ("built-in", "frozen")]
    if not files or any(_is_installed(file) for file in files):
        return None
    assert spec is not None, "it has places"
    return files[0].parent if spec.submodule_search_locations is None or files[0].is_dir() else files[0].parent.parent


def _is_installed(file: Path) -> bool:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {Path(sysconfig.get_path(name)).resolve() for name in names}
    return bool({"site-packages", "dist-packages"} & set(file.parts)) or any(
        folder in file.parents for folder in folders
    )
