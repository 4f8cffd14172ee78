"""What a worker process does: take a pack's locks, train it from where it stopped, write down how it ended."""

from __future__ import annotations

import faulthandler
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from ablate.config import KnobError
from ablate.study.plan import DONE, PlannedTrial, code_digest, corpus_of, git_facts
from ablate.study.server import end_with_parent
from ablate.tasks.language_model.engine import fit, text_start
from ablate.track.journal import JOURNAL, LOG, Event, Journal, last_attempt, read_events, status
from ablate.track.process import this_process
from ablate.train import Checkpoints
from ablate.train.checkpoint import Payload
from ablate.train.machine import keep_memory, machine_facts, prepare, set_default_threads

TRAINED, STANDS, BUSY, ALONE = "trained", "stands", "busy", "alone"


def start_worker(threads: int) -> None:
    """Prepare a fresh worker process; it ends with the process that started it, however that ends."""
    end_with_parent()
    set_default_threads(threads)
    keep_memory()


def train(pack: Sequence[PlannedTrial], command: str) -> list[str]:
    """Train a pack, whatever state its trials are in; what a trial raises is written down and stays its own.

    Returns:
        For each trial: TRAINED: it has an end, which may be a failure; STANDS: another study has finished it meanwhile;
        BUSY: another study is training it; ALONE: it is to be trained alone, because the pack failed or its trials have
        not come equally far.
    """
    results: dict[str, str] = {}
    free: dict[str, list[Event]] = {}  # the newest attempt of those that are to be trained
    with ExitStack() as locks:
        for planned in pack:
            planned.folder.mkdir(parents=True, exist_ok=True)
            try:
                # The lock is the kernel's: it is free again as soon as its owner is dead, however it died.
                locks.enter_context(FileLock(planned.folder / "lock", timeout=0))
            except Timeout:
                results[planned.fingerprint] = BUSY
                continue
            attempt = last_attempt(read_events(planned.folder / JOURNAL)[0])
            if status(attempt) in DONE and not planned.trial.knobs.force:
                results[planned.fingerprint] = STANDS
            else:
                free[planned.fingerprint] = attempt
        if free:
            to_train = [planned for planned in pack if planned.fingerprint in free]
            with _output_to(to_train[0].folder / LOG):
                result = _train(to_train, list(free.values()), command)
            results.update(dict.fromkeys(free, result))
    return [results[planned.fingerprint] for planned in pack]


def _train(pack: Sequence[PlannedTrial], attempts: Sequence[list[Event]], command: str) -> str:
    knobs = pack[0].trial.knobs
    journals = [Journal(planned.folder / JOURNAL) for planned in pack]
    checkpoints = [Checkpoints(planned.folder, planned.fingerprint) for planned in pack]
    try:
        prepare(knobs)  # before the machine's facts are written down: threads are one of them
        facts = machine_facts(knobs) | ({"pack": str(len(pack))} if len(pack) > 1 else {})
        states = None
        begun = [bool(attempt) and status(attempt) not in DONE for attempt in attempts]
        if all(begun):
            found, refused = _newest(checkpoints, journals)
            for reason in (reason for each in refused for reason in each):
                print(f"checkpoint not used: {reason}", flush=True)
            steps = [0 if state is None else int(state["window"]) for state in found]
            if len({*steps}) > 1:
                return ALONE
            for journal, step, reasons in zip(journals, steps, refused, strict=True):
                journal.append("resumed", step=step, process=this_process(), refused=reasons, facts=facts)
            states = [state for state in found if state is not None] or None
        elif any(begun):
            return ALONE
        else:
            for planned, journal in zip(pack, journals, strict=True):
                journal.append("started", **_description(planned, command, facts))
        corpus = corpus_of(knobs)
        if corpus.digest != pack[0].data["digest"]:
            raise KnobError(f"data={corpus.name}: the text has changed since the study was planned; start it again")
        sinks = [journal.append for journal in journals]
        outcomes = fit([planned.trial for planned in pack], corpus, sinks, checkpoints, states)
        for journal, outcome, kept in zip(journals, outcomes, checkpoints, strict=True):
            journal.append("finished", **asdict(outcome))
            kept.finish()
    except BaseException as error:  # SystemExit too: a user's layer ends its own trial, not the study
        with suppress(OSError):  # the log's disk may be the one that is full
            traceback.print_exc()
        if len(pack) > 1:
            return ALONE  # it may be the fault of one of them
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        journals[0].append("failed", reason=reason, log=str(pack[0].folder / LOG))
    return TRAINED


def _newest(
    checkpoints: Sequence[Checkpoints], journals: Sequence[Journal]
) -> tuple[list[Payload | None], list[list[str]]]:
    """Each trial's newest state, or the one before it where a kill came before others of the pack were saved."""
    sizes = [journal.size() for journal in journals]
    found, refused = zip(*(kept.newest(size) for kept, size in zip(checkpoints, sizes, strict=True)), strict=True)
    steps = [int(state["window"]) for state in found if state is not None]
    if len(steps) == len(found) and len({*steps}) > 1:
        found = tuple(kept.newest(size, min(steps))[0] for kept, size in zip(checkpoints, sizes, strict=True))
    return list(found), list(refused)


def _description(planned: PlannedTrial, command: str, facts: Mapping[str, str]) -> Event:
    return {
        "fingerprint": planned.fingerprint,
        "seed": planned.trial.seed,
        "command": command,
        "process": this_process(),
        "knobs": planned.cell.record(),
        "facts": {
            "data": planned.data["name"],
            "data_digest": planned.data["digest"],
            "code": code_digest(planned.sources),
            "text_start": str(
                text_start(planned.trial.knobs, planned.trial.seed, corpus_of(planned.trial.knobs).train)
            ),
            **git_facts(),
            **facts,
        },
        "sources": planned.sources,
        "parameters": planned.parameters,
        "data": planned.data,
    }


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Everything printed goes to the trial's log, from C code and of a crash too: the terminal belongs to the view."""
    with log.open("a", encoding="utf-8") as file:
        kept = [os.dup(fd) for fd in (1, 2)]
        faulthandler.enable(file)
        try:
            for fd in (1, 2):
                os.dup2(file.fileno(), fd)
            with redirect_stdout(file), redirect_stderr(file):
                yield
        finally:
            with suppress(OSError):
                file.flush()
            faulthandler.disable()
            for fd, original in zip((1, 2), kept, strict=True):
                os.dup2(original, fd)
                os.close(original)
