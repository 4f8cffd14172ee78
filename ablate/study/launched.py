"""What a launch asks for, as a line of its study's journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ablate.study.cells import Cell, Study
from ablate.study.plan import PlannedTrial
from ablate.study.records import task_record
from ablate.track.journal import Event, Folder, Journal, now, replace_text

if TYPE_CHECKING:
    from ablate.analyze.stopping import Look


class LaunchRecord:
    """The record of one launch; with seeds=auto it is written anew as seeds are added, and the newest line counts.

    Args:
        folder: the runs folder.
        program, command: what the user typed.
    """

    def __init__(self, folder: Folder, study: Study, program: str, command: str) -> None:
        self._folder = folder
        self._study = study
        self._program = program
        self._command = command
        self._began = now()

    def write(self, trials: Sequence[PlannedTrial], look: Look | None = None) -> Event:
        """Append the line to the study's journal, and return it."""
        launched = self.event(trials, look)
        Journal(self._folder.study(self._study.name)).append("launched", **launched)
        replace_text(self._folder.latest(), self._study.name)
        return launched

    def event(self, trials: Sequence[PlannedTrial], look: Look | None = None) -> Event:
        """The line.

        Args:
            trials: what is asked for.
            look: at the results of all of them, which was the last one; None: seeds are fixed, or may be added.
        """
        study, launch = self._study, self._study.launch
        stopping: Event = {}
        if launch.seeds == "auto":
            found = None if look is None else look.record()
            stopping = {
                "began": self._began,
                "stopping": {"seeds": "auto", "max_seeds": launch.most_seeds, "look": found},
            }
        return {
            "time": now(),
            "study": study.name,
            "command": self._command,
            "design": study.record(),
            "task": task_record(study.task, self._program),
            "metrics": [asdict(metric) for metric in study.task.metrics],
            "worth": launch.worth,
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
