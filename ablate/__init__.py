"""Ablation experiments: which part of a model earns its keep, by how much, and how sure are we?"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
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
    from ablate.trained import load

    Folders = str | Path | Sequence[str | Path]
    Stores = str | Sequence[str]

__version__ = "0.1.0"
__all__ = ["Metric", "arguments", "check", "curves", "digest", "load", "main", "results", "run", "task"]

# Late: whoever imports ablate gets only what they use.
_LATE = {
    "Metric": "ablate.metric",
    "arguments": "ablate.functions.arguments",
    "check": "ablate.functions.check",
    "digest": "ablate.functions.digests",
    "load": "ablate.trained",
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


def run(*arguments: str, task: str | FunctionTask | None = None, config_dir: str | Path | None = None) -> pd.DataFrame:
    """Run a study from Python, and return its trials as `results` does.

    `ablate.run("+study=three_models", "seeds=3")` does what `python -m ablate -m +study=three_models seeds=3` does, and
    prints the same; a trial that fails is a row without a result. In a script it belongs below
    `if __name__ == "__main__":`, for every worker process imports the script.

    Args:
        arguments: as on the command line; plan=true trains nothing.
        task: what is trained: a name, "my_file.py:train" or that function; None: the language model.
        config_dir: a folder of presets of one's own, as `--config-dir` names it.

    Raises:
        ablate.knobs.KnobError: (a ValueError) before anything is trained, with everything that is wrong.
    """
    from ablate.find_task import DEFAULT, load_task
    from ablate.functions.load import refuse_while_loading
    from ablate.session import run as run_study
    from ablate.track.folder import Folder
    from ablate.track.read import read_study
    from ablate.track.typed import typed

    refuse_while_loading()
    found = load_task(task or DEFAULT) if task is None or isinstance(task, str) else task
    ended = run_study(found, arguments, None if config_dir is None else Path(config_dir))
    return typed(read_study(Folder(ended.runs), launch=ended.launched).trials)


def results(*studies: str, runs: Folders | None = None, store: Stores | None = None) -> pd.DataFrame:
    """The trials of a study, one row each, with their results and everything they were made of.

    Columns are `cell`, `seed`, `status`, `test_<metric>`, …, `knob.<name>` with numbers as numbers, and `factor.<name>`
    with the levels as an ordered categorical.

    Args:
        studies: names; none: the study launched last; several are read as one.
        runs: folder of the journals, or several; None: `runs`, unless a store is named.
        store: address of an MLflow store, or several: "sqlite:///runs/mlflow.db" or "http://127.0.0.1:5000".

    Raises:
        ablate.knobs.KnobError: (a ValueError) when there is no such study, or two places have it, or it cannot be read.
    """
    from ablate.track.typed import typed

    return typed(_read(studies, runs, store).trials)


def curves(*studies: str, runs: Folders | None = None, store: Stores | None = None) -> pd.DataFrame:
    """The measurements of a study's trials, one row each, as `results` finds them."""
    return _read(studies, runs, store).curves


def _read(studies: tuple[str, ...], runs: Folders | None, store: Stores | None) -> Results:
    # Late: whoever imports ablate to train needs no pandas.
    from ablate.knobs import KnobError
    from ablate.track.read import read_studies
    from ablate.track.sources import open_source

    if odd := [study for study in studies if not isinstance(study, str)]:
        raise KnobError(f"{odd[0]!r}: a study is named by a text, several by one text each: results('one', 'two')")
    return read_studies(open_source(runs, store), studies)
