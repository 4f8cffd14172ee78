"""What a worker process does: claim a pack's trials, train them from where they stopped, write down how they ended."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

from ablate.code import code_digest
from ablate.engines.assignment import ALONE, BUSY, PREEMPTED, STANDS, TRAINED, Assignment
from ablate.engines.cores import threads_of
from ablate.engines.server import end_with_parent
from ablate.find_task import load_task
from ablate.imported import refuse_other_code
from ablate.knobs import KnobError, read
from ablate.protocol import Payload, Task, Trial
from ablate.track.alive import BEAT_SECONDS, Beat
from ablate.track.claims import Claim, Taken, attempt_folders, claimed, earlier_folders, read_bytes
from ablate.track.journal import DONE, LOG, SCHEMA, Event, last_attempt, logged, stands, status
from ablate.track.process import this_process
from ablate.train import Checkpoints, preemption
from ablate.train.machine import check_device, keep_memory, machine_facts, set_threads
from ablate.train.preemption import Preempted


def start_worker() -> None:
    """Prepare a fresh worker process; it ends with the process that started it, however that ends."""
    end_with_parent()
    keep_memory()
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, preemption.ask)


def train(pack: Sequence[Assignment]) -> list[str]:
    """Train a pack, whatever state its trials are in; what a trial raises is written down and stays its own.

    Returns:
        For each trial: TRAINED: it has an end, which may be a failure; STANDS: another study has finished it meanwhile;
        BUSY: another study is training it; ALONE: it is to be trained alone, because the pack failed or its trials have
        not come equally far; PREEMPTED: its machine was wanted back, and it goes on elsewhere from what it has saved.
    """
    results: dict[str, str] = {}
    free: dict[str, Claim] = {}
    # A user's code may change the working directory: neither this trial's folders nor the next trial may follow it.
    pack = [replace(each, folder=each.folder.absolute(), log=each.log or each.folder / LOG) for each in pack]
    with chdir(Path.cwd()), ExitStack() as claims:
        for each in sorted(pack, key=lambda each: each.fingerprint):  # two studies that share some claim in one order
            try:
                claim = claims.enter_context(claimed(each.folder, each.launch, each.silent))
            except Taken:
                results[each.fingerprint] = BUSY
                continue
            if stands(last_attempt(claim.events()), each.results_of):
                results[each.fingerprint] = STANDS
            else:
                free[each.fingerprint] = claim
        if free:
            to_train = [each for each in pack if each.fingerprint in free]
            own = [free[each.fingerprint] for each in to_train]
            with _output_to(to_train[0].folder / LOG), Beat(own, min(BEAT_SECONDS, to_train[0].lease / 8)):
                result = _train(to_train, own)
            results.update(dict.fromkeys(free, result))
    return [results[each.fingerprint] for each in pack]


def _train(pack: Sequence[Assignment], claims: Sequence[Claim]) -> str:
    try:
        check_device(pack[0].device)  # the plan has chosen it, and a worker chooses no other
        task = load_task(pack[0].task)
        trials = [Trial(read(task.Config, each.values), each.seed, each.device) for each in pack]
        begin = _begin(pack, claims, task, trials)
        if begin is None:
            return ALONE
        checkpoints, states = begin
        if (digest := task.describe(trials[0].config).digest) != pack[0].data["digest"]:
            name = pack[0].data["name"]
            raise KnobError(f"data={name}: has changed since the study was planned ({digest[:12]}); start it again")
        refuse_other_code(task, trials[0], pack[0].sources)
        outcomes = task.fit(trials, [claim.append for claim in claims], checkpoints, states)
        refuse_other_code(task, trials[0], pack[0].sources)  # what was imported meanwhile
        for claim, outcome, of_trial in zip(claims, outcomes, checkpoints, strict=True):
            claim.append("finished", **asdict(outcome))
            tidy(claim, of_trial)
    except Taken as error:
        print(error, flush=True)
        return BUSY if len(pack) == 1 else ALONE
    except Preempted as error:
        for claim in claims:
            claim.append("interrupted", reason=str(error))
        return PREEMPTED
    except BaseException as error:  # SystemExit too: a user's code ends its own trial, not the study
        with suppress(OSError):  # the log's disk may be the one that is full
            traceback.print_exc()
        if len(pack) > 1:
            return ALONE  # it may be the fault of one of them
        return _fail(claims[0], f"{type(error).__name__}: {error}".splitlines()[0], pack[0].log or pack[0].folder / LOG)
    return TRAINED


def _fail(claim: Claim, reason: str, log: Path) -> str:
    """Write down why a trial failed, unless its end is written already: that result stands."""
    if status(last_attempt(claim.events())) in DONE:
        return TRAINED
    try:
        claim.append("failed", reason=reason, log=str(log))
    except Taken:
        return BUSY
    return TRAINED


def tidy(claim: Claim, checkpoints: Checkpoints) -> None:
    """Once the result is written down: of all that was saved the best and the last weights stay."""
    checkpoints.finish()
    for folder in earlier_folders(claim):
        Checkpoints(folder, checkpoints.fingerprint).clear()


def _begin(
    pack: Sequence[Assignment], claims: Sequence[Claim], task: Task, trials: Sequence[Trial]
) -> tuple[list[Checkpoints], list[Payload] | None] | None:
    """Write down how the trials start, and return what they go on from; None: they have not come equally far."""
    attempts = [last_attempt(claim.events()) for claim in claims]
    begun = [bool(attempt) and status(attempt) not in DONE for attempt in attempts]
    were_alone = any("pack" not in attempt[0].get("facts", {}) for attempt in attempts if attempt)
    if any(begun) and (not all(begun) or (len(pack) > 1 and were_alone)):
        return None
    # Another number of threads adds in another order: it would not be the same trial.
    asked = pack[0].threads or threads_of(pack[0].device)
    set_threads((_threads_at_start(attempts[0]) if all(begun) else None) or asked)
    facts = machine_facts(pack[0].device) | ({"pack": str(len(pack))} if len(pack) > 1 else {})
    changed = (
        next((change for attempt in attempts if (change := _other_bits(attempt, facts))), "") if all(begun) else ""
    )
    if not all(begun) or changed:
        for each, trial, claim in zip(pack, trials, claims, strict=True):
            claim.append("started", **_description(each, task, trial, facts), **({"anew": changed} if changed else {}))
        return [Checkpoints(claim.folder, each.fingerprint) for each, claim in zip(pack, claims, strict=True)], None
    checkpoints = [
        Checkpoints(claim.folder, each.fingerprint, attempt_folders(claim.trial))
        for each, claim in zip(pack, claims, strict=True)
    ]
    journals = [read_bytes(claim.trial) for claim in claims]
    found, refused = _newest(checkpoints, [len(journal) for journal in journals])
    for reason in (reason for each in refused for reason in each):
        print(f"checkpoint not used: {reason}", flush=True)
    steps = [0 if state is None else int(state["window"]) for state in found]
    if len({*steps}) > 1:
        return None
    for claim, journal, step, state, reasons in zip(claims, journals, steps, found, refused, strict=True):
        kept = 0 if state is None else logged(journal, int(state["journal_bytes"]))
        claim.append("resumed", step=step, kept=kept, process=this_process(), refused=reasons, facts=facts)
    states = [state for state in found if state is not None]
    for of_trial, state in zip(checkpoints, states, strict=False):
        of_trial.take_over(state)
    return checkpoints, states or None


def _other_bits(attempt: Sequence[Event], facts: Mapping[str, str]) -> str:
    """What would compute other bits than it did when the attempt was started: "torch changed (2.12 → 2.13)"."""
    before = attempt[0].get("facts", {})
    for name in ("torch", "device", "pack"):
        if (then := before.get(name, "1")) != (now := facts.get(name, "1")):
            return f"{name} changed ({then} → {now})"
    return ""


def _threads_at_start(attempt: Sequence[Event]) -> int | None:
    threads = attempt[0].get("facts", {}).get("threads")
    return None if threads is None else int(threads)


def _newest(checkpoints: Sequence[Checkpoints], sizes: Sequence[int]) -> tuple[list[Payload | None], list[list[str]]]:
    """Each trial's newest state, or the one before it where a kill came before others of the pack were saved."""
    found, refused = zip(*(kept.newest(size) for kept, size in zip(checkpoints, sizes, strict=True)), strict=True)
    steps = [int(state["window"]) for state in found if state is not None]
    if len(steps) == len(found) and len({*steps}) > 1:
        found = tuple(kept.newest(size, min(steps))[0] for kept, size in zip(checkpoints, sizes, strict=True))
    return list(found), list(refused)


def _description(each: Assignment, task: Task, trial: Trial, facts: Mapping[str, str]) -> Event:
    return {
        "schema": SCHEMA,
        "launch": each.launch,
        "fingerprint": each.fingerprint,
        "seed": each.seed,
        "task": task.reference,
        "command": each.command,
        "process": this_process(),
        "knobs": dict(each.record),
        "facts": {
            "data": each.data["name"],
            "data_digest": each.data["digest"],
            "code": code_digest(each.sources),
            **_git_facts(task.folder),
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


@cache
def _git_facts(folder: Path) -> dict[str, str]:
    """Commit and dirty flag of the checkout that a task's code lies in; empty where it is in none."""
    try:
        tracked, commit, changes = (
            subprocess.run(
                ["git", "-C", str(folder), *command], capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for command in (["ls-files"], ["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    if not tracked:  # an environment inside of somebody's checkout
        return {}
    return {"git_commit": commit, "git_dirty": str(bool(changes)).lower()}
