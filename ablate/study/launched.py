"""What a launch asks for, as a line of its study's journal."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ablate.disk import replacing
from ablate.study.cells import Cell, Study
from ablate.study.naming import question
from ablate.study.plan import PlannedTrial
from ablate.study.records import task_record
from ablate.track.folder import Folder
from ablate.track.journal import SCHEMA, Event, Journal, now, read_events
from ablate.track.process import this_process

if TYPE_CHECKING:
    from ablate.analyze.stopping import Look


class LaunchRecord:
    """The record of one launch; with seeds=auto it is written anew as seeds are added, and the newest line counts.

    Args:
        folder: the runs folder.
        program, command: what the user typed.

    Attributes:
        id: of the launch.
        results_of: launches whose results stand; None: any does. With force=true it is this launch, and those before it
            that asked for the same by force and were stopped: what they have trained is not trained once more.
    """

    def __init__(self, folder: Folder, study: Study, program: str, command: str) -> None:
        self._folder = folder
        self._study = study
        self._program = program
        self.command = command
        self._began = now()
        self.id = uuid.uuid4().hex
        self.results_of = (self.id, *_stopped(folder, study.name)) if study.launch.force else None

    def write(self, trials: Sequence[PlannedTrial], look: Look | None = None) -> Event:
        """Append the line to the study's journal, and return it."""
        launched = self.event(trials, look)
        Journal(self._folder.study(self._study.name)).append("launched", **launched)
        with replacing(self._folder.latest()) as file:
            file.write(self._study.name.encode())
        return launched

    def end(self) -> None:
        """The launch has come to its end: all that it asked for has been trained, or has failed."""
        Journal(self._folder.study(self._study.name)).append("ended", id=self.id)

    def event(self, trials: Sequence[PlannedTrial], look: Look | None = None) -> Event:
        """The line.

        Args:
            trials: what is asked for.
            look: at the results of all of them, which was the last one; None: seeds are fixed, or may be added.
        """
        study, launch = self._study, self._study.launch
        names = launch.labels or {}
        stopping: Event = {}
        if launch.seeds == "auto":
            found = None if look is None else look.record()
            stopping = {
                "began": self._began,
                "stopping": {"seeds": "auto", "max_seeds": launch.most_seeds, "look": found},
            }
        return {
            "schema": SCHEMA,
            "id": self.id,
            "results_of": self.results_of,
            "time": now(),
            "study": study.name,
            "command": self.command,
            "process": this_process(),
            "design": study.record(),
            "question": question(study),
            "task": task_record(study.task, self._program),
            "metrics": [asdict(metric) for metric in study.task.metrics],
            "worth": launch.worth,
            "labels": {cell.label: names[cell.label] for cell in study.cells if cell.label in names},
            "reports": launch.reports,
            **stopping,
            "cells": _cells(trials),
        }


def _cells(trials: Sequence[PlannedTrial]) -> list[dict[str, object]]:
    found: dict[str, tuple[Cell, list[dict[str, object]]]] = {}
    for planned in trials:
        found.setdefault(planned.cell.label, (planned.cell, []))[1].append(
            {"seed": planned.trial.seed, "fingerprint": planned.fingerprint}
        )
    return [
        {"label": label, "levels": dict(cell.levels), "components": dict(cell.components), "trials": rows}
        for label, (cell, rows) in found.items()
    ]


def _stopped(folder: Folder, study: str) -> list[str]:
    """The launches by force that the next one goes on with: the last ones, none of which has ended."""
    events = read_events(folder.study(study))[0]
    if not events or events[-1]["event"] == "ended":
        return []
    return list(events[-1].get("results_of") or ())
