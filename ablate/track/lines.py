"""A trial's events in words, for whoever follows it."""

from __future__ import annotations

from collections.abc import Mapping

from ablate.metric import Metric
from ablate.track.journal import Event
from ablate.track.units import duration


def measured(values: Mapping[str, float | None], metric: Metric) -> tuple[str, str]:
    """The split and the text of a point of a curve; ("", "") where the metric was not measured."""
    for split in ("valid", "train"):
        logged = values.get(f"{split}_{metric.recorded}")
        if logged is not None:
            return split, f"{split} {metric.name} {metric.text(metric.value(logged))}"
    return "", ""


def result(finished: Event, metric: Metric, step: str) -> str:
    """What a trial came to."""
    if finished["status"] != "FINISHED":
        why = finished.get("reason") or "the loss is not a finite number"
        return f"{finished['status']} at {step} {finished['diverged_at']}: {why}"
    values = finished["values"]
    logged = {split: values.get(f"{split}_{metric.recorded}") for split in ("valid", "test")}
    parts = [f"{split} {metric.text(metric.value(value))}" for split, value in logged.items() if value is not None]
    return " · ".join([*parts, duration(finished["seconds"])])
