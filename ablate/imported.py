"""What a process has imported, held against the code that a study was planned with."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from ablate.code import ABLATE, digest, is_own, package_root
from ablate.knobs import KnobError

if TYPE_CHECKING:
    from ablate.protocol import Task, Trial

_as_imported: dict[Path, str] = {}  # file → SHA-256 of what was made a module
_as_found: dict[Path, str] = {}  # of a file that was not imported yet when it was first asked for
_of_others: set[str] = set()  # modules that are neither the user's nor ablate's: a forked process leaves them untouched


def record_imports() -> None:
    """From now on keep the digest of each of the user's modules, and of ablate's, as it is imported."""
    if _Finder not in sys.meta_path:
        note_imported()
        sys.meta_path.insert(sys.meta_path.index(PathFinder), _Finder)


def refuse_other_code(task: Task, trial: Trial, sources: Mapping[str, str]) -> None:
    """Refuse a trial whose process has imported other code than its fingerprint names.

    Called when a task is loaded, and again when a trial has been trained, for what was imported meanwhile. A file that
    was edited after its import changes nothing.

    Args:
        sources: as the study was planned with.

    Raises:
        KnobError: with the file.
    """
    files = task.files(trial.config)
    modules = note_imported()
    changed = [name for name, path in files.items() if _digest(path) != sources.get(name)]
    if changed := changed or sorted(sources.keys() - files.keys()):
        raise KnobError(
            f"{task.name}: its code has changed since the study was planned ({', '.join(changed)}); start it again"
        )
    for path in _strangers(modules, {*files.values()}):
        raise KnobError(
            f"{task.name}: {path} was imported, and its fingerprint does not hold it, for no import statement leads "
            f"there; write import {modules[path]} into the file that needs it (where another file has that name, "
            "rename it), and start again"
        )


def _digest(path: Path) -> str:
    if path in _as_imported:
        return _as_imported[path]
    if path not in _as_found:
        _as_found[path] = digest(path)
    return _as_found[path]


def _strangers(modules: Mapping[Path, str], files: set[Path]) -> Iterable[Path]:
    """Modules from the folders of these files, or named as one of them, that are none of them."""
    own = {path for path in files if ABLATE not in path.parents}
    program = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
    if program.suffix == ".py" and is_own(program) and program.resolve() not in own:
        return []  # a script that starts studies: what it imports for itself trains nothing
    folders = {package_root(path) for path in own}
    names = {path.relative_to(package_root(path)).parts[0].partition(".")[0] for path in own}
    return [
        path
        for path, name in modules.items()
        if path not in files
        and ABLATE not in path.parents
        and not _is_of_installed(name)
        and (name.partition(".")[0] in names or any(_is_in(path, folder) for folder in folders))
    ]


def _is_of_installed(name: str) -> bool:
    """Whether a module is part of an installed package, as is what torch compiles and names "torch._inductor.…"."""
    file = getattr(sys.modules.get(name.partition(".")[0]), "__file__", None)
    return isinstance(file, str) and not is_own(Path(file))


def _is_in(path: Path, folder: Path) -> bool:
    """Whether it lies in a folder, and there in no hidden one, which holds tools."""
    return folder in path.parents and not any(part.startswith(".") for part in path.relative_to(folder).parts)


def note_imported() -> dict[Path, str]:
    """File → name of every module of the user's and of ablate's in this process.

    A compiled module, and one that another import hook has found, is digested here: as it lies there now.
    """
    found = {}
    for name in sorted(sys.modules.keys() - _of_others):
        file = getattr(sys.modules.get(name), "__file__", None)
        path = _that_counts(file) if isinstance(file, str) else None
        if path is None:
            _of_others.add(name)
            continue
        found[path] = name
        if path not in _as_imported:
            _as_imported[path] = digest(path)
    return found


@cache
def _that_counts(file: str) -> Path | None:
    """The path of a file of the user's or of ablate; None of another's."""
    path = Path(file)
    # Some modules only say that they have a file: torch.ops is "_ops.py".
    counts = path.is_absolute() and (is_own(path) or ABLATE in path.parents)
    return path.resolve() if counts else None


class FromSource(SourceFileLoader):
    """Compiles a module from its source, and keeps the source's digest.

    Python tells what it keeps compiled by the source's size and second, which an edited file may share.
    """

    def get_code(self, fullname: str) -> CodeType:
        """See `importlib`."""
        source = self.get_data(self.path)
        _as_imported[Path(self.path).resolve()] = hashlib.sha256(source).hexdigest()
        _of_others.discard(fullname)  # its name may have been that of another's module
        code: CodeType = self.source_to_code(source, self.path)
        return code


class _Finder(PathFinder):
    """Finds modules as Python does."""

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = super().find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader and _that_counts(spec.loader.path):
            spec.loader = FromSource(fullname, spec.loader.path)
        return spec
