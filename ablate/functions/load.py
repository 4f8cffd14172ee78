"""A task from its reference, "FILE.py:NAME": the file is imported as any module is, in every process under one name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ablate.code import package_root
from ablate.imported import FromSource
from ablate.knobs import KnobError
from ablate.registry import suggest

if TYPE_CHECKING:
    from ablate.functions.task import FunctionTask

_DECORATOR = "@ablate.task(Config, metric=ablate.Metric(…))"
_loading: list[Path] = []


def load_task(reference: str) -> FunctionTask:
    """The task that a reference names; without ":NAME", the only one of its file.

    The file's folder comes onto `sys.path`, as when Python runs it.

    Raises:
        KnobError: where there is no such file or task, and where importing it fails.
    """
    from ablate.functions.task import FunctionTask

    file, name = _parts(reference)
    if not file.is_file():
        near = suggest(file.name, [path.name for path in file.parent.glob("*.py")]) if file.parent.is_dir() else ""
        raise KnobError(f"task={reference}: there is no file {file}{near}")
    module = _import(file, reference)
    tasks = {key: each for key, each in vars(module).items() if isinstance(each, FunctionTask)}
    if name is None:
        return _only(tasks, file, reference)
    if name in tasks:
        return tasks[name]
    if callable(getattr(module, name, None)):
        raise KnobError(f"task={reference}: {name} is a plain function; write {_DECORATOR} above it")
    known = f"; its tasks are {', '.join(tasks)}" if tasks else ", nor any other task"
    raise KnobError(f"task={reference}: {file.name} has no {name}{suggest(name, tasks)}{known}")


def refuse_while_loading() -> None:
    """Raise KnobError when a file that is imported for its task starts a study."""
    if _loading or sys._getframe(2).f_globals.get("__name__") == "__mp_main__":
        file = _loading[-1].name if _loading else "the script"
        raise KnobError(
            f"{file}: a study is started (ablate.main, ablate.run) while the file is imported, as every worker does; "
            'put it below a guard, if __name__ == "__main__":'
        )


def _parts(reference: str) -> tuple[Path, str | None]:
    text, colon, name = reference.rpartition(":")
    if colon and name.isidentifier():
        return Path(text).expanduser().resolve(), name
    return Path(reference).expanduser().resolve(), None


def _only(tasks: dict[str, FunctionTask], file: Path, reference: str) -> FunctionTask:
    own = {key: each for key, each in tasks.items() if each.file == file} or tasks
    if not own:
        raise KnobError(f"task={reference}: {file.name} has no task; write {_DECORATOR} above a function")
    if len(own) > 1:
        names = ", ".join(own)
        raise KnobError(
            f"task={reference}: {file.name} has several tasks, {names}; for example {file.name}:{next(iter(own))}"
        )
    return next(iter(own.values()))


def _import(file: Path, reference: str) -> ModuleType:
    name = module_name(file)
    known = sys.modules.get(name)
    if known is not None and _file_of(known) == file:
        return known
    for folder in dict.fromkeys([package_root(file), file.parent]):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    try:
        return _execute(file, name)
    except KnobError as error:
        raise KnobError(*(f"task={reference}: {problem}" for problem in error.problems)) from error
    except SystemExit as error:
        raise KnobError(
            f"task={reference}: {file.name} calls exit while it is imported; put what parses arguments or runs "
            'anything below a guard, if __name__ == "__main__":'
        ) from error
    except Exception as error:
        raise KnobError(
            f"task={reference}: importing {file.name} failed{_line(error, file)}: {type(error).__name__}: {error}"
        ) from error


def module_name(file: Path) -> str:
    """The name a file is imported by: that by which its folder's other files, and what they pickle, find it.

    One of its own where that name is another module's already.
    """
    parts = file.with_suffix("").relative_to(package_root(file)).parts
    name = ".".join(parts)
    known = sys.modules.get(name)
    is_free = known is None or _file_of(known) == file
    is_usable = not any("." in part for part in parts) and parts[0] not in sys.stdlib_module_names
    if is_free and is_usable:
        return name
    return f"ablate_task_{sha256(str(file).encode()).hexdigest()[:12]}"


def _execute(file: Path, name: str) -> ModuleType:
    if "." in name:
        importlib.import_module(name.rpartition(".")[0])
    if file.suffix != ".py":
        raise KnobError(f"{file.name} is no Python file; give a file that ends in .py")
    loader = FromSource(name, str(file))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None, "a loader of files gives one"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _marked(file):
        try:
            loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name, None)
            raise
    return module


@contextmanager
def _marked(file: Path) -> Iterator[None]:
    """While a file is imported its command line is empty: ours is not for it."""
    arguments, sys.argv = sys.argv, [str(file)]
    _loading.append(file)
    try:
        yield
    finally:
        _loading.pop()
        sys.argv = arguments


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file).resolve()


def _line(error: BaseException, file: Path) -> str:
    """ " in line 3" of the file, where an exception passed through it."""
    found, trace = "", error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == file:
            found = f" in line {trace.tb_lineno}"
        trace = trace.tb_next
    return found
