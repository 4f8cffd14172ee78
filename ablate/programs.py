"""How each of ablate's programs runs and ends."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import NoReturn

from ablate.address import without_secrets
from ablate.knobs import KnobError
from ablate.output import Patient

_USER_ERROR = 2  # the exit code of argparse too


@contextmanager
def as_program(name: str) -> Iterator[None]:
    """In this block a program runs and ends as a user of it expects.

    What a user got wrong, and a file or folder that cannot be read or written, end it in a line each, which begin with
    `name`, and exit code 2 (HYDRA_FULL_ERROR=1: with Python's traceback). Output that has lost its reader is dropped.
    And the process ends at once: to look for what could be freed in all that it has imported takes half a second.
    """
    traced = shows_trace()
    atexit.register(gc.freeze)
    with redirect_stdout(Patient(sys.stdout)), redirect_stderr(Patient(sys.stderr)):
        try:
            yield
        except (KnobError, OSError) as error:
            if traced:
                raise
            end_in_a_line(name, error)


def shows_trace() -> bool:
    """Whether a user asked for Python's traceback of a mistake."""
    return os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")


def end_in_a_line(name: str, error: Exception) -> NoReturn:
    """End the program `name` with what a user got wrong, a line each, and exit code 2."""
    for problem in error.problems if isinstance(error, KnobError) else [str(error)]:
        print(f"{name}: {without_secrets(problem)}", file=sys.stderr)
    sys.exit(_USER_ERROR)
