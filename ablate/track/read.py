"""The one reader of results: a study's journals → tidy tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ablate.config import KnobError
from ablate.registry import suggest
from ablate.track.journal import JOURNAL, Event, Folder, last_attempt, read_events, status
from ablate.track.units import perplexity


@dataclass(frozen=True)
class Results:
    """What a study's last launch asked for, as far as it has come.

    Attributes:
        trials: one row a trial, in the order of the study: `cell`, `seed`, `status`, `reason`, the outcome
            (`valid_nll`, `test_nll`, `valid_perplexity`, `test_perplexity`, `windows`, `tokens`, `seconds`, …), what
            it ran on (`data`, `data_digest`, `code`, `torch`, `device`, …) and every knob as `knob.<name>`.
        curves: one row a measurement: `cell`, `seed`, `split` (train, valid), `step`, `tokens`, `seconds`, `nll`,
            `perplexity`.
        samples: cell → text written by its first finished seed.
    """

    name: str
    command: str
    launched: str
    trials: pd.DataFrame
    curves: pd.DataFrame
    samples: dict[str, str]


def read_study(folder: Folder, name: str | None = None) -> Results:
    """Read a study (None: the one launched last).

    Raises:
        KnobError: when there is no such study.
    """
    known = folder.studies()
    chosen = folder.newest_study() if name is None else name
    if chosen is None or chosen not in known:
        asked = "no study" if chosen is None else f"no study {chosen!r}{suggest(chosen, known)}"
        there = f"there are {', '.join(known)}" if known else "start one with python -m ablate"
        raise KnobError(f"{asked} in {folder.root}; {there}")
    launches = [e for e in read_events(folder.study(chosen))[0] if e["event"] == "launched"]
    if not launches:
        raise KnobError(f"the study {chosen!r} in {folder.root} was never launched; start it again")
    launch = launches[-1]
    attempts = [
        (cell["label"], cell["levels"], trial, _attempt(folder.trial(trial["fingerprint"])))
        for cell in launch["cells"]
        for trial in cell["trials"]
    ]
    return Results(
        name=chosen,
        command=launch["command"],
        launched=launch["time"],
        trials=pd.DataFrame([_row(*attempt) for attempt in attempts]),
        curves=_curves([(label, trial["seed"], events) for label, _, trial, events in attempts]),
        samples=_samples([(label, events) for label, _, _, events in attempts]),
    )


def _attempt(place: Path) -> list[Event]:
    return last_attempt(read_events(place / JOURNAL)[0])


def _row(label: str, levels: dict[str, str], trial: dict[str, Any], events: list[Event]) -> dict[str, Any]:
    started: Event = events[0] if events else {}
    final: Event = events[-1] if events else {}
    outcome = final if final.get("event") == "finished" else {}
    data = started.get("data", {})
    row = {
        "cell": label,
        "seed": trial["seed"],
        "status": status(events),
        "reason": _reason(final),
        "log": final.get("log", ""),
        "fingerprint": trial["fingerprint"],
        "parameters": started.get("parameters"),
        "vocabulary_size": data.get("vocabulary"),
        "floor_nll": data.get("floor_nll"),
    }
    for name in (
        "windows", "tokens", "seconds", "train_seconds", "best_window", "best_valid_nll", "valid_nll", "test_nll",
    ):  # fmt: skip
        row[name] = outcome.get(name)
    for split in ("valid", "test"):
        nll = outcome.get(f"{split}_nll")
        row[f"{split}_perplexity"] = None if nll is None else perplexity(nll)
    row.update(started.get("facts", {}))
    row.update({f"factor.{name}": value for name, value in levels.items()})
    row.update({f"knob.{name}": value for name, value in started.get("knobs", {}).items()})
    return row


def _reason(final: Event) -> str:
    if final.get("status") == "DIVERGED":
        return f"the loss was no finite number at window {final['diverged_at']}"
    return str(final.get("reason", ""))


def _curves(attempts: list[tuple[str, int, list[Event]]]) -> pd.DataFrame:
    rows = [
        {
            "cell": label,
            "seed": seed,
            "split": event["event"],
            "step": event["step"],
            "tokens": event["tokens"],
            "seconds": event["seconds"],
            "nll": event[f"{event['event']}_nll"],
            "perplexity": perplexity(event[f"{event['event']}_nll"]),
        }
        for label, seed, events in attempts
        for event in events
        if event["event"] in ("train", "valid")
    ]
    columns = ["cell", "seed", "split", "step", "tokens", "seconds", "nll", "perplexity"]
    return pd.DataFrame(rows, columns=columns)


def _samples(attempts: list[tuple[str, list[Event]]]) -> dict[str, str]:
    samples: dict[str, str] = {}
    for label, events in attempts:
        text = events[-1].get("sample") if events else None
        if text:
            samples.setdefault(label, text)
    return samples
