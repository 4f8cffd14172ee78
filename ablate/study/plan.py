"""Cells → trials with their fingerprints: which are to be trained, which are done, and why."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablate.code import code_digest
from ablate.engines.engine import Engine
from ablate.knobs import KnobError, deciding, knobs_of, show
from ablate.protocol import Facts, Trial
from ablate.study.cells import Cell, Study
from ablate.track.claims import read_trial
from ablate.track.folder import Folder
from ablate.track.journal import DONE, Event, last_attempt, stands, status


@dataclass(frozen=True)
class PlannedTrial:
    """One trial of a study, on the kind of device that its fingerprint names.

    Attributes:
        facts: what is known of it before it trains.
        sources: file → SHA-256 of the code that decides its result, as it is when the study starts.
        fingerprint: SHA-256 over what decides its result.
        status: of its journal: FINISHED and DIVERGED are not trained again.
        is_done: whether its result stands already.
        why: what changed since the study's last launch had a result for this cell and seed; "" where there was none.
    """

    cell: Cell
    trial: Trial
    facts: Facts
    sources: Mapping[str, str]
    fingerprint: str
    folder: Path
    status: str
    is_done: bool
    why: str

    @property
    def steps(self) -> int | None:
        """Its budget; None: known when it ends."""
        return self.facts.steps


def make_plan(
    study: Study, folder: Folder, engine: Engine, results_of: Sequence[str] | None = None
) -> list[PlannedTrial]:
    """Check that every cell fits its data and the machine that trains, and fingerprint the trials.

    Args:
        results_of: launches whose results stand; None: any does.

    Raises:
        KnobError: with what is wrong in any cell, each problem once.
    """
    settled = engine.settle([cell.config for cell in study.cells])  # first: who asks another machine asks it once
    device = engine.machine.device
    problems: dict[str, None] = {}
    planned = []
    earlier = _last_launch(folder, study.name)
    for cell, config in zip(study.cells, settled, strict=True):
        try:
            if isinstance(config, KnobError):
                raise config
            facts = study.task.describe(config)
        except KnobError as error:
            problems.update(dict.fromkeys(error.problems))
            continue
        planned += _trials(study, replace(cell, config=config), facts, device, folder, earlier, results_of)
    if problems:
        raise KnobError(*problems)
    return planned


def _trials(
    study: Study,
    cell: Cell,
    facts: Facts,
    device: str,
    folder: Folder,
    earlier: Mapping[tuple[str, int], str],
    results_of: Sequence[str] | None,
) -> list[PlannedTrial]:
    sources = dict(study.task.sources(cell.config))
    code = code_digest(sources)
    knobs = deciding(cell.config)
    kind: type = type(cell.config)
    trials = []
    for seed in cell.seeds:
        print_ = fingerprint(study.task.name, knobs, seed, facts.digest, code, device)
        place = folder.trial(print_)
        own = last_attempt(read_trial(place))
        state = status(own)
        former = earlier.get((cell.label, seed))
        why = ""
        if state not in DONE and former not in (None, print_):
            attempt = last_attempt(read_trial(folder.trial(str(former))))
            why = what_changed(attempt, knobs, sources, facts.digest, knobs_of(kind))
            other = "cpu" if device == "cuda" else "cuda"
            # Also where the former trial has only begun: it does not go on here.
            if attempt and former == fingerprint(study.task.name, knobs, seed, facts.digest, code, other):
                why = f"kind of device changed ({other} → {device})"
        trials.append(
            PlannedTrial(
                cell=cell,
                trial=Trial(cell.config, seed, device),
                facts=facts,
                sources=sources,
                fingerprint=print_,
                folder=place,
                status=state,
                is_done=stands(own, results_of),
                why=why,
            )
        )
    return trials


def _last_launch(folder: Folder, study: str) -> dict[tuple[str, int], str]:
    """(label, seed) → fingerprint, as the study was launched before."""
    launch = folder.launch(study)
    if launch is None:
        return {}
    return {(c["label"], t["seed"]): t["fingerprint"] for c in launch["cells"] for t in c["trials"]}


def what_changed(
    former: list[Event],
    knobs: Mapping[str, Any],
    sources: Mapping[str, str],
    data_digest: str,
    known: Collection[str],
) -> str:
    """What differs between a finished trial and one of the same name: code, data, or knobs; "" when it had no result.

    For example: "code changed (train/checkpoint.py)".

    Args:
        knobs: those that decide the result; known: the names of all that the task has.
    """
    if status(former) not in DONE:
        return ""
    started = former[0]
    changes = []
    files = {name: (started["sources"].get(name), sha) for name, sha in sources.items()}
    if changed := sorted(name for name, (before, now) in files.items() if before != now):
        changes.append(f"code changed ({', '.join(changed)})")
    if started["data"]["digest"] != data_digest:
        changes.append(f"data changed ({started['data']['digest'][:12]} → {data_digest[:12]})")
    before = started["knobs"]
    for name, value in knobs.items():
        if name not in before:
            changes.append(f"{name} is new ({show(value)})")
        elif before[name] != value:
            changes.append(f"{name} changed ({show(before[name])} → {show(value)})")
    changes += [f"{name} is gone ({show(value)})" for name, value in before.items() if name not in known]
    return "; ".join(changes)


def fingerprint(
    task: str, knobs: Mapping[str, Any], seed: int, data_digest: str, code: str, device: str = "cpu"
) -> str:
    """SHA-256 of what decides a trial's result: task, knobs, seed, data, code, kind of device."""
    what = {
        "task": task, "knobs": dict(knobs), "seed": seed, "data": data_digest, "code": code, "device": device
    }  # fmt: skip
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
