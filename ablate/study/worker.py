"""What a worker process does: take a pack's locks, train it from where it stopped, write down how it ended."""

from __future__ import annotations

import faulthandler
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ablate.imported import refuse_other_code
from ablate.knobs import KnobError, plain, read
from ablate.protocol import Payload, Task, Trial
from ablate.study.cells import Study
from ablate.study.plan import DONE, PlannedTrial, code_digest, git_facts
from ablate.study.server import end_with_parent
from ablate.study.tasks import load_task
from ablate.track.journal import JOURNAL, LOG, Event, Journal, last_attempt, logged, read_events, status
from ablate.track.process import this_process
from ablate.train import Checkpoints
from ablate.train.machine import check_device, keep_memory, machine_facts, set_threads

TRAINED, STANDS, BUSY, ALONE = "trained", "stands", "busy", "alone"
_threads = 1  # of this process, where `threads` does not say


@dataclass(frozen=True)
class Assignment:
    """A trial as plain values, which any process can read whatever its task is made of.

    Attributes:
        task: what `load_task` finds it by.
        values: of its configuration; record: the same as it may be written down.
        data: what its journal says of its data.
        force: train it again where it is finished.
    """

    task: str
    values: Mapping[str, Any]
    seed: int
    device: str
    threads: int | None
    fingerprint: str
    folder: Path
    record: Mapping[str, Any]
    sources: Mapping[str, str]
    data: Mapping[str, Any]
    parameters: int | None
    command: str
    force: bool


def assign(planned: PlannedTrial, study: Study, command: str) -> Assignment:
    """What a worker has to know of a trial."""
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
        command=command,
        force=study.launch.force,
    )


def start_worker(threads: int) -> None:
    """Prepare a fresh worker process; it ends with the process that started it, however that ends."""
    global _threads
    end_with_parent()
    _threads = threads
    keep_memory()


def train(pack: Sequence[Assignment]) -> list[str]:
    """Train a pack, whatever state its trials are in; what a trial raises is written down and stays its own.

    Returns:
        For each trial: TRAINED: it has an end, which may be a failure; STANDS: another study has finished it meanwhile;
        BUSY: another study is training it; ALONE: it is to be trained alone, because the pack failed or its trials have
        not come equally far.
    """
    results: dict[str, str] = {}
    free: dict[str, list[Event]] = {}  # the newest attempt of those that are to be trained
    with ExitStack() as locks:
        for each in pack:
            each.folder.mkdir(parents=True, exist_ok=True)
            try:
                # The lock is the kernel's: it is free again as soon as its owner is dead, however it died.
                locks.enter_context(FileLock(each.folder / "lock", timeout=0))
            except Timeout:
                results[each.fingerprint] = BUSY
                continue
            attempt = last_attempt(read_events(each.folder / JOURNAL)[0])
            if status(attempt) in DONE and not each.force:
                results[each.fingerprint] = STANDS
            else:
                free[each.fingerprint] = attempt
        if free:
            to_train = [each for each in pack if each.fingerprint in free]
            with _output_to(to_train[0].folder / LOG):
                result = _train(to_train, list(free.values()))
            results.update(dict.fromkeys(free, result))
    return [results[each.fingerprint] for each in pack]


def _train(pack: Sequence[Assignment], attempts: Sequence[list[Event]]) -> str:
    journals = [Journal(each.folder / JOURNAL) for each in pack]
    checkpoints = [Checkpoints(each.folder, each.fingerprint) for each in pack]
    try:
        check_device(pack[0].device)  # the plan has chosen it, and a worker chooses no other
        task = load_task(pack[0].task)
        trials = [Trial(read(task.Config, each.values), each.seed, each.device) for each in pack]
        begun = [bool(attempt) and status(attempt) not in DONE for attempt in attempts]
        if any(begun) and not all(begun):
            return ALONE
        states = None
        if all(begun):
            found, refused = _newest(checkpoints, journals)
            for reason in (reason for each in refused for reason in each):
                print(f"checkpoint not used: {reason}", flush=True)
            steps = [0 if state is None else int(state["window"]) for state in found]
            if len({*steps}) > 1:
                return ALONE
            states = [state for state in found if state is not None] or None
            # Another number of threads adds in another order: it would not be the same trial.
            set_threads(_threads_at_start(attempts[0]) or pack[0].threads or _threads)
            facts = machine_facts(pack[0].device)
            for journal, step, state, reasons in zip(journals, steps, found, refused, strict=True):
                kept = 0 if state is None else logged(journal.path, int(state["journal_bytes"]))
                journal.append("resumed", step=step, kept=kept, process=this_process(), refused=reasons, facts=facts)
        else:
            set_threads(pack[0].threads or _threads)
            together = {"pack": str(len(pack))} if len(pack) > 1 else {}
            for each, trial, journal in zip(pack, trials, journals, strict=True):
                journal.append("started", **_description(each, task, trial, machine_facts(each.device) | together))
        if (digest := task.describe(trials[0].config).digest) != pack[0].data["digest"]:
            name = pack[0].data["name"]
            raise KnobError(f"data={name}: has changed since the study was planned ({digest[:12]}); start it again")
        refuse_other_code(task, trials[0], pack[0].sources)
        outcomes = task.fit(trials, [journal.append for journal in journals], checkpoints, states)
        for journal, outcome, of_trial in zip(journals, outcomes, checkpoints, strict=True):
            journal.append("finished", **asdict(outcome))
            of_trial.finish()
    except BaseException as error:  # SystemExit too: a user's code ends its own trial, not the study
        with suppress(OSError):  # the log's disk may be the one that is full
            traceback.print_exc()
        if len(pack) > 1:
            return ALONE  # it may be the fault of one of them
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        journals[0].append("failed", reason=reason, log=str(pack[0].folder / LOG))
    return TRAINED


def _threads_at_start(attempt: Sequence[Event]) -> int | None:
    threads = attempt[0].get("facts", {}).get("threads")
    return None if threads is None else int(threads)


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


def _description(each: Assignment, task: Task, trial: Trial, facts: Mapping[str, str]) -> Event:
    return {
        "fingerprint": each.fingerprint,
        "seed": each.seed,
        "command": each.command,
        "process": this_process(),
        "knobs": dict(each.record),
        "facts": {
            "data": each.data["name"],
            "data_digest": each.data["digest"],
            "code": code_digest(each.sources),
            **git_facts(task.folder),
            **task.trial_facts(trial),
            **facts,
        },
        "sources": dict(each.sources),
        "parameters": each.parameters,
        "data": dict(each.data),
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
