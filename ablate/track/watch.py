"""Follows a study from its journals, on whatever machines it trains; it trains nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ablate.knobs import KnobError
from ablate.metric import Metric
from ablate.registry import suggest
from ablate.track.claims import TrialTail, read_trial
from ablate.track.folder import Folder
from ablate.track.journal import DONE, Event, last_attempt, read_events, status
from ablate.track.lines import measured, result

_LOOK_SECONDS = 2.0  # between two readings of all journals


@dataclass(frozen=True)
class _Followed:
    """A trial of the launch that is followed."""

    label: str
    seed: int
    tail: TrialTail


def watch(folder: Folder, study: str | None, say: Callable[[str], None], seconds: float = _LOOK_SECONDS) -> None:
    """Say what happens to the trials of a study's newest launch, until all of them have an end.

    Args:
        study: its name; None: the study launched last.
        seconds: between two looks.

    Raises:
        KnobError: there is no such study.
    """
    name = study or folder.newest_study()
    if name is None or name not in folder.studies():
        known = folder.studies()
        there = f"there are {', '.join(known)}{suggest(name or '', known)}" if known else "there is none"
        raise KnobError(f"{name}: no such study in {folder}; {there}")
    followed: dict[str, _Followed] = {}
    while True:
        launch = folder.launch(name)
        assert launch is not None, "a study is there once it was launched"
        is_over = _is_over(folder, name, launch)  # asked before the last reading
        metric, step = Metric(**launch["metrics"][0]), launch["task"]["step"]
        _take_in(followed, folder, launch)
        for each in followed.values():
            for line in (_in_words(event, metric, step) for event in each.tail.read()):
                if line:
                    say(f"{each.label} · seed {each.seed}: {line}")
        if is_over:
            break
        time.sleep(seconds)
    counts = Counter(status(attempt).lower() for attempt in folder.attempts(name, launch))
    say(f"study {name}: {', '.join(f'{count} {state}' for state, count in counts.items())}")
    say(f"python -m ablate.report {name} writes the report, python -m ablate.track sync copies it to MLflow")


def _take_in(followed: dict[str, _Followed], folder: Folder, launch: Event) -> None:
    """With seeds=auto there are more of them later."""
    for cell in launch["cells"]:
        for trial in cell["trials"]:
            if (name := trial["fingerprint"]) not in followed:
                followed[name] = _Followed(cell["label"], trial["seed"], TrialTail(folder.trial(name)))


def _is_over(folder: Folder, name: str, launch: Event) -> bool:
    """Whether nothing more will happen: each trial has an end that is newer than the launch, or is a result."""
    last = read_events(folder.study(name))[0][-1]
    if last["event"] == "ended":
        return True
    for cell in launch["cells"]:
        for trial in cell["trials"]:
            attempt = last_attempt(read_trial(folder.trial(trial["fingerprint"])))
            state = status(attempt)
            if state in ("UNFINISHED", "INTERRUPTED") or (state not in DONE and attempt[-1]["time"] < launch["time"]):
                return False
    return True


def _in_words(event: Event, metric: Metric, step: str) -> str:
    kind = event["event"]
    if kind == "started":
        return "started"
    if kind == "resumed":
        return f"goes on at {step} {event['step']}"
    if kind == "log":
        split, text = measured(event["values"], metric)
        where = f"{step} {event['step']}, " if event["step"] else ""
        return f"{where}{text}" if split == "valid" else ""
    if kind == "finished":
        return result(event, metric, step)
    return f"{kind}, {event['reason']}" if "reason" in event else ""
