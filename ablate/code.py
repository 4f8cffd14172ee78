"""The code that decides a result: a file of a user's own, what it imports, and whole packages. Nothing heavy."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import EntryPoint, distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

ABLATE = Path(__file__).resolve().parent
_SUFFIXES = (".py", *EXTENSION_SUFFIXES)  # of what a module's own name may be followed by
_CODE = (".py", ".so", ".pyd")


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """Name → SHA-256 of files."""
    return {name: digest(path) for name, path in files.items()}


def digest(file: Path) -> str:
    """SHA-256 of a file; "" where there is none."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def code_digest(sources: Mapping[str, str]) -> str:
    """One SHA-256 for all sources."""
    return hashlib.sha256(json.dumps(dict(sources), sort_keys=True).encode()).hexdigest()


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Names of the sources that two places do not have alike, or that one of them lacks."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def by_name(files: set[Path], folder: Path) -> dict[str, Path]:
    """Files by their names as seen from a folder, the same on every machine."""
    return {Path(os.path.relpath(path, folder)).as_posix(): path for path in sorted(files)}


def package_files(folder: Path) -> list[Path]:
    """A package's modules, compiled ones too; no data files, and nothing in hidden folders."""
    return sorted(
        path.resolve()
        for path in folder.rglob("*")
        if path.suffix in _CODE and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def package_root(file: Path) -> Path:
    """The folder that a file's package lies in; its own, where it is in no package."""
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        folder = folder.parent
    return folder


def part_files(point: EntryPoint) -> dict[str, Path]:
    """The code of a part that a distribution registers, named from the folder that its package lies in.

    A distribution's own package counts by its files wherever it is installed: its version may stay while it is worked
    on. A part that is another's (`torch.optim:AdamW`) counts by that distribution's name and version.
    """
    file = _file_of(import_module(point.module))
    if file is None:  # comes with Python
        return {}
    root = package_root(file)
    if not is_own(file) and (metadata := _of_another(point, file.relative_to(root).parts[0])) is not None:
        return {f"{metadata.parent.name}/{metadata.name}": metadata}
    return by_name(closure(file), root)


def closure(file: Path) -> set[Path]:
    """A file with the package that it lies in, and all of the user's own that they import."""
    finder = _Closure(file.resolve())
    waiting, found = [*finder.own], set[Path]()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += finder.imported_by(path)
    return found


class _Closure:
    def __init__(self, file: Path) -> None:
        root = package_root(file)
        package = root / file.relative_to(root).parts[0]
        self.own = package_files(package) if package.is_dir() else [file]
        self._folders = list(dict.fromkeys([file.parent, root]))

    def imported_by(self, path: Path) -> list[Path]:
        """Files that one file imports, by any statement in it."""
        try:
            tree = ast.parse(path.read_bytes()) if path.suffix == ".py" else ast.Module([], [])
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
                return _in(folder, parts)
        elsewhere = _folder_of(parts[0])
        return [] if elsewhere is None else _in(elsewhere, parts)


def _in(folder: Path, parts: list[str]) -> list[Path]:
    package = folder / parts[0]
    return package_files(package) if (package / "__init__.py").is_file() else _along(folder, parts)


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
        found += [folder / f"{part}{suffix}" for suffix in _SUFFIXES]
        folder = folder / part
        found.append(folder / "__init__.py")
    return [path.resolve() for path in found if path.is_file()]


def _is_module(path: Path) -> bool:
    return path.is_dir() or any(path.with_name(f"{path.name}{suffix}").is_file() for suffix in _SUFFIXES)


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
    if not files or not all(map(is_own, files)):
        return None
    assert spec is not None, "it has places"
    return files[0].parent if spec.submodule_search_locations is None or files[0].is_dir() else files[0].parent.parent


def is_own(file: Path) -> bool:
    """Whether a file belongs neither to Python nor to an installed distribution."""
    return not {"site-packages", "dist-packages"} & {*file.parts} and not str(file).startswith(_of_python())


@cache
def _of_python() -> tuple[str, ...]:
    folders = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple(f"{folder}{os.sep}" for path in folders for folder in (path, Path(path).resolve()))


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file).resolve()


def _of_another(point: EntryPoint, package: str) -> Path | None:
    """The metadata of the distribution that an installed package is of; None: of the one that registers the part."""
    for name in packages_distributions().get(package.partition(".")[0], []):
        if point.dist is not None and name == point.dist.name:
            return None
        for file in distribution(name).files or []:
            if file.name == "METADATA":
                return Path(str(file.locate())).resolve()
    return None
