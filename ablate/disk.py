"""Files that are whole on disk, or not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` at the end of the block; a reader sees the old one or the new one.

    What the block raises leaves the old one, and nothing beside it: a full disk is not made fuller.
    """
    new = path.with_name(f"{path.name}.tmp{uuid.uuid4().hex}")  # another machine's process may have the same number
    try:
        with new.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file's bytes on disk, or the names in a folder: without one, a file that is synced is lost in a crash."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
