"""What a program prints while somebody reads it, and when nobody does any more."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def make_console() -> Console:
    """Where tables go: without a terminal there is no edge to wrap one at, and in Jupyter text is text."""
    from rich.console import Console

    console = Console(force_jupyter=False)
    return console if console.is_terminal else Console(width=_WIDTH, force_jupyter=False)


_WIDTH = 160  # where there is no terminal


class Patient:
    """A stream that drops what is written once it has lost its reader: a closed pipe or terminal stops nothing."""

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
