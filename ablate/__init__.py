"""Ablation experiments on language models: which part earns its keep, by how much, and how sure are we?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from ablate.track.read import Results

__version__ = "0.1.0"
__all__ = ["curves", "results"]


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
