"""Finds a task by what `task=` says: the name of an entry point, or FILE.py:FUNCTION."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from ablate.imported import record_imports
from ablate.knobs import KnobError
from ablate.protocol import Task
from ablate.registry import suggest

record_imports()  # in the server too, from which workers have what it has imported

_GROUP = "ablate.task"
DEFAULT = "language_model"


def is_function(reference: str) -> bool:
    """Whether it names a file, and not an entry point."""
    return ":" in reference or reference.endswith(".py")


@cache
def load_task(reference: str) -> Task:
    """The task. Raises KnobError when there is none."""
    if is_function(reference):
        from ablate.functions.load import load_task as load_function

        function: Task = load_function(reference)
        return function
    points = {point.name: point for point in entry_points(group=_GROUP)}
    if reference not in points:
        file = f"; did you mean task={reference}.py?" if reference and Path(f"{reference}.py").is_file() else ""
        raise KnobError(
            f"task={reference}: no such task{file or suggest(reference, points)}; "
            f"installed are {', '.join(sorted(points))}, and a file of your own is task=my_file.py:train"
        )
    task: Task = points[reference].load()
    return task
