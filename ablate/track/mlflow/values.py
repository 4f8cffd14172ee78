"""What MLflow is given of a trial's events: parameters, the values of points, the dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ablate.knobs import show
from ablate.metric import Metric
from ablate.track.journal import Event

# What MLflow and its databases take of a text, in characters.
_NAME, _PARAM, _TAG = 250, 6000, 8000


def tags_of(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags of a run."""
    return {name: _acceptable(str(value), _TAG) for name, value in tags.items()}


def name_of(text: str) -> str:
    """The name of a run or a dataset."""
    return _acceptable(text, _NAME)


def params_of(started: Event) -> dict[str, str]:
    """Knobs, seed and number of parameters, as text that the reader turns back into values."""
    params = {name: value for name, value in started["knobs"].items() if name != "seeds"}
    params["seed"] = started["seed"]
    if started["parameters"] is not None:
        params["parameters"] = started["parameters"]
    return {name: _acceptable(show(value), _PARAM) for name, value in params.items()}


def curve_values(metrics: Sequence[Metric], values: Mapping[str, float]) -> dict[str, float]:
    """What was logged, and each metric beside what was recorded in its place."""
    found = {name: float(value) for name, value in values.items()}
    for metric in metrics:
        for split in ("train", "valid"):
            recorded = values.get(f"{split}_{metric.recorded}")
            if recorded is not None:
                found[f"{split}_{metric.name}"] = metric.value(recorded)
    return found


def final_values(metrics: Sequence[Metric], finished: Event) -> dict[str, float]:
    """The results of each metric, where the trial has them, and what training took."""
    found = {}
    for metric in metrics:
        for name, split in (("final_valid", "valid"), ("best_valid", "best_valid"), ("test", "test")):
            recorded = finished["values"].get(f"{split}_{metric.recorded}")
            if recorded is not None:
                found[f"{name}_{metric.name}"] = metric.value(recorded)
    return found | {"train_seconds": finished["train_seconds"]}


def dataset_profile(data: Mapping[str, Any]) -> dict[str, Any]:
    """What MLflow shows of a dataset besides its name."""
    return {**data["details"], "sizes": data["sizes"], "digest": data["digest"]}


def _acceptable(text: str, most: int) -> str:
    """A text as every store takes it: cut where it is too long, and U+FFFD for what no database holds."""
    text = re.sub("[\0\ud800-\udfff]", "\ufffd", text)
    return text if len(text) <= most else f"{text[: most - 1]}…"
