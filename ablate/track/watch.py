"""Follows a study from its journals, on whatever machines it trains; it trains nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ablate.knobs import KnobError
from ablate.metric import Metric
from ablate.registry import suggest
from ablate.track.claims import TrialTail
from ablate.track.folder import Folder
from ablate.track.journal import DONE, Event, last_attempt, read_events, status
from ablate.track.lines import measured, result

_LOOK_SECONDS = 2.0  # between two readings of all journals


@dataclass
class _Followed:
    """A trial of the launch that is followed, and what its journal has said so far."""

    label: str
    seed: int
    tail: TrialTail
    attempt: list[Event] = field(default_factory=list)

    def read(self) -> list[Event]:
        """What is new."""
        if new := self.tail.read():
            self.attempt = last_attempt(self.attempt + new)
        return new

    def has_ended(self, since: str) -> bool:
        """Whether it is a result, or has an end that is not of a launch before `since`."""
        state = status(self.attempt)
        if state in DONE:
            return True
        return state not in ("UNFINISHED", "INTERRUPTED") and self.attempt[-1]["time"] >= since


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
        is_over = _is_over(folder, name)  # asked before the trials are read
        metric, step = Metric(**launch["metrics"][0]), launch["task"]["step"]
        trials = _trials(folder, launch, followed)
        for each in trials:
            for line in (_in_words(event, metric, step) for event in each.read()):
                if line:
                    say(f"{each.label} · seed {each.seed}: {line}")
        if is_over or all(each.has_ended(launch["time"]) for each in trials):
            break
        time.sleep(seconds)
    counts = Counter(status(each.attempt).lower() for each in trials)
    say(f"study {name}: {', '.join(f'{count} {state}' for state, count in counts.items())}")
    say(f"python -m ablate.report {name} writes the report, python -m ablate.track sync copies it to MLflow")


def _trials(folder: Folder, launch: Event, followed: dict[str, _Followed]) -> list[_Followed]:
    """The trials of a launch, some of which are followed already; with seeds=auto there are more of them later."""
    trials = [(cell["label"], trial) for cell in launch["cells"] for trial in cell["trials"]]
    for label, trial in trials:
        name = trial["fingerprint"]
        followed.setdefault(name, _Followed(label, trial["seed"], TrialTail(folder.trial(name))))
    return [followed[trial["fingerprint"]] for _, trial in trials]


def _is_over(folder: Folder, name: str) -> bool:
    """Whether the process that launched the study has said that it is over."""
    last = read_events(folder.study(name))[0][-1]
    return bool(last["event"] == "ended")


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
