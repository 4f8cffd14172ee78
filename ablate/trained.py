"""What a trial has trained, from the weights that it left in the runs folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.find_task import load_task
from ablate.knobs import KnobError, nest, read
from ablate.track.claims import finished_in, read_trial
from ablate.track.folder import Folder
from ablate.track.journal import last_attempt, status


def load(trial: str | Mapping[str, Any], runs: str | Path = "runs") -> Any:
    """Load what a finished trial has trained, as it was when it validated best.

    Args:
        trial: its row in `ablate.results()`, or its fingerprint.
        runs: folder of the journals.

    Returns:
        Of the language model an `ablate.tasks.language_model.trained.TrainedModel`: `model`, `words`, `config`. Of a
        function an `ablate.functions.trained.Trained`: `config`, and `objects`: name → the `state_dict()` of what
        `run.keep_best` was given, or else of the models that `run.keep` was.

    Raises:
        KnobError: (a ValueError) for a trial that is not there or has not finished, or whose weights are gone.
    """
    from ablate.train.checkpoint import Checkpoints, Damaged

    fingerprint = trial if isinstance(trial, str) else trial.get("fingerprint") if hasattr(trial, "get") else None
    if not isinstance(fingerprint, str) or not re.fullmatch("[0-9a-f]{64}", fingerprint):
        what = f"{trial!r}" if isinstance(trial, str) else type(trial).__name__
        raise KnobError(f"{what}: ablate.load takes one row of ablate.results(), for example trials.iloc[0]")
    short, place = fingerprint[:12], Folder(runs).trial(fingerprint)
    attempt = last_attempt(read_trial(place))
    if not attempt:
        raise KnobError(f"trial {short}: not in {runs}; name the folder that has it, ablate.load(…, runs=FOLDER)")
    folder = finished_in(place)
    if status(attempt) != "FINISHED" or folder is None:
        raise KnobError(f"trial {short}: {status(attempt)}; only what has finished can be loaded")
    task = load_task(attempt[0]["task"])
    try:
        weights = Checkpoints(folder, fingerprint).newest_best()
    except Damaged as error:
        raise KnobError(f"trial {short}: {error}; force=true trains it again") from error
    knobs = {name: _of_environment(value) for name, value in attempt[0]["knobs"].items()}
    return task.load(read(task.Config, nest(knobs)), weights)


def _of_environment(value: Any) -> Any:
    """A value that was recorded by the name of an environment variable, with what that is here."""
    if not isinstance(value, str):
        return value

    def variable(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise KnobError(f"{found[1]}: this environment variable is asked for and not set; set it")
        return os.environ[found[1]]

    return re.sub(r"\$\{oc\.env:(\w+)\}", variable, value)
