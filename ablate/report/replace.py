"""A folder that is replaced whole: a reader finds the old one or the new one, and no half of either."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ablate.disk import sync


@contextmanager
def replaced(folder: Path, ours: Collection[str]) -> Iterator[Path]:
    """A scratch folder that takes the place of `folder` when the block has ended; where it fails, the old one stays.

    One process at a time. What a process that was killed has left behind is tidied up by the next one.

    Args:
        ours: names of the files that a folder of this kind may have; what else the old one holds is a user's, and is
            moved into the new one.
    """
    folder = folder.resolve()  # where it is a link, it stays one
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
    new, old = (folder.with_name(f".{folder.name}.{which}") for which in ("new", "old"))
    _tidy(folder, new, old, ours)
    try:
        new.mkdir()
        yield new
        _sync(new)
        _swap(folder, new, old)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)  # a full disk is not made fuller
        raise
    _tidy(folder, new, old, ours)


def _tidy(folder: Path, new: Path, old: Path, ours: Collection[str]) -> None:
    """End what was begun, or undo it: afterwards there is the folder alone, or nothing."""
    if new.exists():
        shutil.rmtree(new)
    if not old.exists():
        return
    if not folder.exists():  # a kill came between the two renames
        os.rename(old, folder)
        return
    for path in old.iterdir():
        if path.name not in ours and not (folder / path.name).exists():
            os.rename(path, folder / path.name)
    shutil.rmtree(old)


def _swap(folder: Path, new: Path, old: Path) -> None:
    """Two renames, for a folder is not renamed over another.

    Between them there is none, for some microseconds. Moving file after file over the old ones would show a page beside
    figures of other results for longer, and what then fails would leave it so.
    """
    there = folder.exists()
    if there:
        os.rename(folder, old)
    try:
        os.rename(new, folder)
    except BaseException:
        if there:
            os.rename(old, folder)
        raise
    sync(folder.parent)


def _sync(folder: Path) -> None:
    """Files first: a rename may reach the disk before what was written ahead of it."""
    for path in (*folder.iterdir(), folder):
        sync(path)
