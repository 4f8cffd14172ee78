"""Digests of data: files, folders and arrays, by their bytes."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from ablate.knobs import KnobError

Data = str | Path | Sequence[str | Path] | Callable[[Any], str] | None

_beside: ContextVar[Path | None] = ContextVar("beside", default=None)
_known: dict[tuple[str, int, int], str] = {}  # path, bytes, time → digest


def digest(*parts: Any) -> str:
    """SHA-256 of files, folders (names and bytes, sorted), arrays, tensors and bytes, in this order.

    A file that was read is read again only when its size or its time has changed. A relative path is looked up beside
    the script when a task's `data` function asks.

    Raises:
        KnobError: where there is no such file or folder.
    """
    total = hashlib.sha256()
    for part in parts:
        total.update(bytes.fromhex(_of_path(_absolute(part)) if isinstance(part, (str, Path)) else _of_value(part)))
    return total.hexdigest()


def digest_of(data: Data, config: Any, folder: Path) -> str:
    """The digest of what a task declares as its data; "" where it declares none.

    Args:
        folder: of the script; paths are relative to it.

    Raises:
        KnobError: for a path that is missing, or a function that fails or returns no digest.
    """
    if data is None:
        return ""
    with _beside_of(folder):
        if not callable(data):
            return digest(*paths_of(data))
        found = _called(data, config)
    if not isinstance(found, str) or not found:
        raise KnobError(
            f"data: the function returned {found!r}, and has to return a digest; return ablate.digest(path) or "
            "ablate.digest(array)"
        )
    return found


def _called(data: Callable[[Any], str], config: Any) -> Any:
    try:
        return data(config)
    except KnobError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise KnobError(
            f"data: the function failed in {Path(last.filename).name}, line {last.lineno}: {type(error).__name__}: "
            f"{error}; it takes the configuration and returns a digest"
        ) from error


def paths_of(data: str | Path | Sequence[str | Path]) -> list[str | Path]:
    """One path or several as a list."""
    return [data] if isinstance(data, (str, Path)) else list(data)


@contextmanager
def _beside_of(folder: Path) -> Iterator[None]:
    token = _beside.set(folder)
    try:
        yield
    finally:
        _beside.reset(token)


def _absolute(path: str | Path) -> Path:
    return (_beside.get() or Path.cwd()) / Path(path).expanduser()


def _of_path(path: Path) -> str:
    if path.is_dir():
        total = hashlib.sha256()
        for each in sorted(path.rglob("*"), key=lambda each: each.relative_to(path).as_posix()):
            if each.is_file():
                total.update(f"{each.relative_to(path).as_posix()}\0{_of_file(each)}\n".encode())
        return total.hexdigest()
    if not path.is_file():
        raise KnobError(f"data: {path} does not exist; paths are relative to the script")
    return _of_file(path)


def _of_file(path: Path) -> str:
    found = path.stat()
    key = (str(path), found.st_size, found.st_mtime_ns)
    if key not in _known:
        with path.open("rb") as file:
            _known[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _known[key]


def _of_value(value: Any) -> str:
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.numpy() if str(value.dtype) != "torch.bfloat16" else value.float().numpy()
    array = np.ascontiguousarray(value)
    if array.dtype.hasobject:
        raise KnobError(f"digest: a {type(value).__name__} has no bytes of its own; give a path, an array or bytes")
    total = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    total.update(array.tobytes())
    return total.hexdigest()
