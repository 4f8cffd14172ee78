"""Ablation experiments: which part of a model earns its keep, by how much, and how sure are we?"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from ablate.functions.arguments import arguments
    from ablate.functions.check import check
    from ablate.functions.digests import digest
    from ablate.functions.task import FunctionTask, task
    from ablate.metric import Metric
    from ablate.track.read import Results

__version__ = "0.1.0"
__all__ = ["Metric", "arguments", "check", "curves", "digest", "main", "results", "task"]

# Late: whoever imports ablate gets only what they use.
_LATE = {
    "Metric": "ablate.metric",
    "arguments": "ablate.functions.arguments",
    "check": "ablate.functions.check",
    "digest": "ablate.functions.digests",
    "task": "ablate.functions.task",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'ablate' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATE[name]), name)


def main(task: FunctionTask) -> None:
    """Run the study that the command line asks for, of a function in the script that is run.

    Raises:
        ablate.knobs.KnobError: where the script calls it while it is imported, without `if __name__ == "__main__":`.
    """
    from ablate.functions.load import refuse_while_loading

    refuse_while_loading()
    importlib.import_module("ablate.cli").main_of_task(task)


def results(*studies: str, runs: str | Path | None = None, store: str | None = None) -> pd.DataFrame:
    """The trials of a study, one row each, with their results and everything they were made of.

    Args:
        studies: names; none: the study launched last; several are read as one.
        runs: folder of the journals; None: `runs`, unless a store is named.
        store: address of an MLflow store instead: "sqlite:///runs/mlflow.db" or "http://127.0.0.1:5000".

    Raises:
        ablate.knobs.KnobError: (a ValueError) when there is no such study or its source cannot be read.
    """
    return _read(studies, runs, store).trials


def curves(*studies: str, runs: str | Path | None = None, store: str | None = None) -> pd.DataFrame:
    """The measurements of a study's trials, one row each, as `results` finds them."""
    return _read(studies, runs, store).curves


def _read(studies: tuple[str, ...], runs: str | Path | None, store: str | None) -> Results:
    # Late: whoever imports ablate to train needs no pandas.
    from ablate.track.read import open_source, read_studies

    return read_studies(open_source(runs, store), studies)
