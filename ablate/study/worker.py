"""What a worker process does: take a trial's lock, train it from where it stopped, write down how it ended."""

from __future__ import annotations

import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from ablate.config import KnobError
from ablate.study.plan import DONE, PlannedTrial, code_digest, corpus_of, git_facts
from ablate.track.journal import JOURNAL, LOG, Event, Journal, last_attempt, read_events, status
from ablate.track.process import this_process
from ablate.train import Checkpoints, fit
from ablate.train.machine import keep_memory, machine_facts, prepare, set_default_threads

TRAINED, STANDS, BUSY = "trained", "stands", "busy"


def start_worker(threads: int | None) -> None:
    """Prepare a fresh worker process; it ends with the process that started it, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a worker"
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    set_default_threads(threads)
    keep_memory()


def _end_with(parent: int) -> None:
    multiprocessing.connection.wait([parent])
    os._exit(1)  # nothing to tidy up: what is on disk is whole at any instant


def train(planned: PlannedTrial, command: str) -> str:
    """Train one trial, whatever state it is in; what it raises is written down and stays its own.

    Returns:
        TRAINED: it has an end, which may be a failure; STANDS: another study has finished it meanwhile; BUSY: another
        study is training it.
    """
    planned.folder.mkdir(parents=True, exist_ok=True)
    try:
        # The lock is the kernel's: it is free again as soon as its owner is dead, however it died.
        with FileLock(planned.folder / "lock", timeout=0):
            attempt = last_attempt(read_events(planned.folder / JOURNAL)[0])
            if status(attempt) in DONE and not planned.trial.knobs.force:
                return STANDS
            with _output_to(planned.folder / LOG):
                _train(planned, attempt, command)
            return TRAINED
    except Timeout:
        return BUSY


def _train(planned: PlannedTrial, attempt: list[Event], command: str) -> None:
    journal = Journal(planned.folder / JOURNAL)
    checkpoints = Checkpoints(planned.folder, planned.fingerprint)
    try:
        prepare(planned.trial.knobs)  # before the machine's facts are written down: threads are one of them
        state = None
        if attempt and status(attempt) not in DONE:
            state, refused = checkpoints.newest(journal.size())
            for reason in refused:
                print(f"checkpoint not used: {reason}", flush=True)
            window = 0 if state is None else state["window"]
            facts = machine_facts(planned.trial.knobs)
            journal.append("resumed", window=window, process=this_process(), refused=refused, facts=facts)
        else:
            journal.append("started", **_description(planned, command))
        corpus = corpus_of(planned.trial.knobs)
        if corpus.digest != planned.data["digest"]:
            raise KnobError(f"data={corpus.name}: the text has changed since the study was planned; start it again")
        outcome = fit(planned.trial, corpus, journal.append, checkpoints, state)
        journal.append("finished", **asdict(outcome))
        checkpoints.finish()
    except BaseException as error:  # SystemExit too: a user's layer ends its own trial, not the study
        with suppress(OSError):  # the log's disk may be the one that is full
            traceback.print_exc()
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        journal.append("failed", reason=reason, log=str(planned.folder / LOG))


def _description(planned: PlannedTrial, command: str) -> Event:
    knobs = planned.trial.knobs
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
            **git_facts(),
            **machine_facts(knobs),
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
