"""What a program prints while somebody reads it, and when nobody does any more; how it ends."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def as_program() -> Iterator[None]:
    """In this block output that has lost its reader is dropped: a closed pipe or terminal stops nothing.

    And the process ends at once: to look for what could be freed in all that it has imported takes half a second.
    """
    atexit.register(gc.freeze)
    with redirect_stdout(_Patient(sys.stdout)), redirect_stderr(_Patient(sys.stderr)):
        yield


def make_console() -> Console:
    """Where tables go: without a terminal there is no edge to wrap one at, and in Jupyter text is text."""
    from rich.console import Console

    console = Console(force_jupyter=False)
    return console if console.is_terminal else Console(width=_WIDTH, force_jupyter=False)


_WIDTH = 160  # where there is no terminal


class _Patient:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            # Whatever is still in buffers, and what is printed from now on, goes where nothing fails.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
