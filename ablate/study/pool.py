"""Packs → an engine: who trains what, what is waited for, and what is written down for those that died."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from ablate.engines.assignment import ALONE, BUSY, PREEMPTED, STANDS, Assignment
from ablate.engines.engine import Engine, Lost, Submitted
from ablate.knobs import plain
from ablate.study.cells import Study
from ablate.study.launched import LaunchRecord
from ablate.study.packs import demand_of
from ablate.study.plan import PlannedTrial
from ablate.study.view import View
from ablate.track.alive import Silence
from ablate.track.claims import Taken, TrialTail, claimed, holder, written_under
from ablate.track.journal import FINAL_EVENTS, LOG, last_attempt, stands

_POLL_SECONDS = 0.2
_WATCH_SHARE = 4.0  # the time until trials are looked at again, in times of how long that took
_START_SECONDS = 60.0  # that a process may take until it has claimed its trials: it imports torch
_BUSY_SECONDS = 2.0  # between two looks at a trial that another study is training
_MOST_LOSSES = 4  # machines that may be lost with a trial, before it counts as what they die of


@dataclass(eq=False)
class _Running:
    """A pack that is with the engine."""

    submitted: Submitted
    planned: Sequence[PlannedTrial]
    tails: Sequence[TrialTail]
    silences: Sequence[Silence]


@dataclass
class _Waiting:
    """A pack that is to be trained; alone in it, a trial may be another study's for now.

    Attributes:
        silent: fingerprint → the number of the claim that counts as over.
    """

    planned: Sequence[PlannedTrial]
    silence: Silence | None = None
    silent: Mapping[str, int] = field(default_factory=dict)
    looked: float = field(default_factory=time.monotonic)


class Pool:
    """Trains packs, as many at a time as the engine has room for.

    Args:
        study: whose they are.
        launch: on whose behalf.
        view: told of everything as it happens.
    """

    def __init__(self, study: Study, engine: Engine, launch: LaunchRecord, view: View) -> None:
        self._study = study
        self._engine = engine
        self._launch = launch
        self._view = view
        self._running: list[_Running] = []
        self._losses: Counter[str] = Counter()  # by fingerprint
        self._not_before = 0.0
        self._launches = {launch.id}  # whose packs these are: an engine may have some of earlier launches

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is under way; it goes on at the next launch. An engine's that outlives launches is left alone."""
        if self._engine.outlives_launch:
            if isinstance(error, KeyboardInterrupt) and self._running:
                self._view.note(self._engine.parting([running.submitted for running in self._running]))
            return
        for running in self._running:
            running.submitted.kill()
        for planned in (planned for running in self._running for planned in running.planned):
            # Nothing depends on this line: it tells a reader why.
            self._write_end(planned, "interrupted", reason=_why_stopped(error))

    def run(self, packs: Sequence[Sequence[PlannedTrial]]) -> None:
        """Train all; a trial that another study is training is waited for, after all others."""
        self._engine.begin(demand_of(packs, self._study))
        self._train(deque(_Waiting(planned) for planned in packs))

    def _train(self, waiting: deque[_Waiting]) -> None:
        while waiting or self._running:
            most = self._engine.room(len(waiting) + len(self._running))
            for _ in range(len(waiting)):
                if len(self._running) >= most:
                    break
                pack = waiting.popleft()
                if self._is_due(pack):
                    self._start(pack)
                else:
                    waiting.append(pack)
            self._engine.wait([running.submitted for running in self._running], _POLL_SECONDS)
            for running in [running for running in self._running if running.submitted.has_ended]:
                self._running.remove(running)
                waiting.extend(self._settle(running))
            for running in self._watch():
                waiting.extend(self._end(running))

    def _is_due(self, pack: _Waiting) -> bool:
        """Whether it can be tried now: nobody else trains it, as far as can be seen from here."""
        if pack.silence is None:
            return True
        if time.monotonic() - pack.looked < _BUSY_SECONDS:
            return False
        pack.looked = time.monotonic()
        (planned,) = pack.planned
        found = holder(planned.folder)
        if found is None or found.is_over:
            return True
        if pack.silence.look() > self._study.launch.lease:
            pack.silent = {planned.fingerprint: found.number}
            self._view.note(
                f"{planned.cell.label} seed {planned.trial.seed}: {found.process} has given no sign of life for "
                f"{self._study.launch.lease:g} s; its trial is taken over"
            )
            return True
        return False

    def _start(self, pack: _Waiting) -> None:
        tails = [TrialTail(each.folder) for each in pack.planned]
        for tail in tails:
            tail.read()  # what earlier launches wrote
        silences = [Silence(each.folder, _START_SECONDS) for each in pack.planned]
        assignments = [
            assign(each, self._study, self._launch, pack.silent.get(each.fingerprint)) for each in pack.planned
        ]
        submitted = self._engine.submit(assignments)
        if submitted.launch != self._launch.id:
            self._view.note(f"{_names(pack.planned)}: {submitted.where} of an earlier launch has it")
            for tail in tails:
                tail.rewind()  # what it wrote, nobody has been told
        self._launches.add(submitted.launch)
        self._running.append(_Running(submitted, pack.planned, tails, silences))

    def _settle(self, running: _Running) -> list[_Waiting]:
        """How a pack ended; returns what is to be trained again."""
        try:
            results = running.submitted.result()
        except Lost as error:
            return self._lost(running, str(error))
        except Exception as error:  # it died; or before or after training, the trial's folder cannot be written
            return self._failed(running, str(error))
        self._show(running)
        again = []
        for planned, result in zip(running.planned, results, strict=True):
            if result == BUSY:
                self._view.busy(planned)
                again.append(_Waiting([planned], Silence(planned.folder)))
            elif result == STANDS:
                self._view.skipped(planned)
            elif result in (ALONE, PREEMPTED):
                again.append(_Waiting([planned]))
        return again

    def _watch(self) -> list[_Running]:
        """Show what running trials have written; returns those whose process is stopped, or keeps Python's lock.

        Takes a fifth of the time at most: a thousand journals on a file server take seconds to look at.
        """
        if (began := time.monotonic()) < self._not_before:
            return []
        for running in self._running:
            self._show(running)
        lease = self._study.launch.lease
        started = [running for running in self._running if running.submitted.is_running]
        silent = [running for running in started if min([each.look() for each in running.silences]) > lease]
        self._not_before = time.monotonic() + _WATCH_SHARE * (time.monotonic() - began)
        return silent

    def _end(self, running: _Running) -> list[_Waiting]:
        """End a process that gives no sign of life, and write down that it was."""
        lease = self._study.launch.lease
        self._running.remove(running)
        running.submitted.kill()
        reason = f"its process gave no sign of life for {lease:g} s (lease={lease:g}) and was ended"
        return self._failed(running, reason)

    def _lost(self, running: _Running, reason: str) -> list[_Waiting]:
        """A machine is gone, and with it nobody's fault: its pack goes on elsewhere from its last checkpoint.

        What the machine writes if it comes back counts for nothing: the next process claims the trials.
        """
        self._show(running)
        self._losses.update(planned.fingerprint for planned in running.planned)
        if max(self._losses[planned.fingerprint] for planned in running.planned) > _MOST_LOSSES:
            return self._failed(running, f"{reason}, as {_MOST_LOSSES} machines before it")
        self._view.note(f"{_names(running.planned)}: {reason}; goes on elsewhere")
        holders = {planned.fingerprint: holder(planned.folder) for planned in running.planned}
        own = {name: found.number for name, found in holders.items() if found and found.launch in self._launches}
        return [_Waiting(running.planned, silent=own)]

    def _failed(self, running: _Running, reason: str) -> list[_Waiting]:
        """A death is written down here, for the dead cannot; of a pack nobody knows whose fault it was."""
        self._show(running)
        if len(running.planned) > 1:
            return [_Waiting([planned]) for planned in running.planned]
        (planned,) = running.planned
        if self._write_end(planned, "failed", reason=reason, log=str(planned.folder / LOG)):
            self._view.event(planned, {"event": "failed", "reason": reason})
            return []
        return [_Waiting([planned], Silence(planned.folder))]  # it has an end, or another study has it

    def _write_end(self, planned: PlannedTrial, event: str, **values: object) -> bool:
        """Write for a worker that is dead how its trial ended, unless that is known, or another study has it."""
        found = holder(planned.folder)
        own = found.number if found is not None and found.launch in self._launches else None
        with contextlib.suppress(OSError, Taken), claimed(planned.folder, self._launch.id, own) as claim:
            has_ended = own is not None and any(e["event"] in FINAL_EVENTS for e in written_under(planned.folder, own))
            if has_ended or stands(last_attempt(claim.events()), self._launch.results_of):
                return False
            claim.append(event, **values)
            return True
        return found is None or own is not None  # the disk is full: it is told on the terminal alone

    def _show(self, running: _Running) -> None:
        for planned, tail in zip(running.planned, running.tails, strict=True):
            for event in tail.read():
                self._view.event(planned, event)


def _why_stopped(error: BaseException | None) -> str:
    is_users = error is None or isinstance(error, KeyboardInterrupt)
    return "stopped by the user" if is_users else f"the study was stopped: {type(error).__name__}: {error}"


def _names(trials: Sequence[PlannedTrial]) -> str:
    return ", ".join(f"{planned.cell.label} seed {planned.trial.seed}" for planned in trials)


def assign(planned: PlannedTrial, study: Study, launch: LaunchRecord, silent: int | None) -> Assignment:
    """What a worker has to know of a trial; `silent`: as `Assignment` has it."""
    return Assignment(
        task=study.task.reference,
        values=plain(planned.trial.config),
        seed=planned.trial.seed,
        device=planned.trial.device,
        threads=study.launch.threads,
        fingerprint=planned.fingerprint,
        folder=planned.folder,
        record=planned.cell.record(),
        sources=planned.sources,
        data=planned.facts.record(),
        parameters=planned.facts.parameters,
        command=launch.command,
        launch=launch.id,
        results_of=launch.results_of,
        lease=study.launch.lease,
        silent=silent,
    )
