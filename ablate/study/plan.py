"""Cells → trials with their fingerprints: which are to be trained, which are done, and why."""

from __future__ import annotations

import hashlib
import inspect
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

import ablate
from ablate.config import Data, KnobError, Knobs, show
from ablate.registry import OPTIMIZERS, RECURRENT_LAYERS
from ablate.study.cells import Cell
from ablate.tasks.language_model.data import Corpus, Windows, check_fits, load_corpus
from ablate.tasks.language_model.engine import Trial
from ablate.tasks.language_model.model import RecurrentLM
from ablate.tasks.language_model.record import data_record
from ablate.tasks.language_model.schedule import budget_windows, validation_windows
from ablate.track.journal import JOURNAL, Event, Folder, last_attempt, read_events, status
from ablate.train.machine import settle

_DECIDING_PACKAGES = ("tasks/language_model", "train")
DONE = ("FINISHED", "DIVERGED")


@dataclass(frozen=True)
class Effort:
    """The arithmetic of a trial, in floating-point operations, and how often each part of it is done.

    Attributes:
        window, eval_window: operations of one window of training, of one of an evaluation.
        windows, eval_windows: how many there are; the latter in all validations and the test.
        evaluations: how many of those.
    """

    window: float
    windows: int
    eval_window: float
    eval_windows: int
    evaluations: int

    @property
    def total(self) -> float:
        """Operations of the whole trial."""
        return self.window * self.windows + self.eval_window * self.eval_windows


@dataclass(frozen=True)
class PlannedTrial:
    """One trial of a study.

    Attributes:
        sources: file → SHA-256 of the code that decides its result, as it is when the study starts.
        fingerprint: SHA-256 over what decides its result.
        data: what a record says of the data it was planned with, as `data_record` gives it.
        status: of its journal: FINISHED and DIVERGED are not trained again.
        why: what changed since the study's last launch had a result for this cell and seed; "" where there was none.
        effort: its arithmetic, for an estimate of the time it takes.
    """

    cell: Cell
    trial: Trial
    data: Mapping[str, Any]
    sources: Mapping[str, str]
    fingerprint: str
    folder: Path
    status: str
    why: str
    parameters: int
    effort: Effort

    @property
    def windows(self) -> int:
        """Its budget."""
        return self.effort.windows

    @property
    def work(self) -> float:
        """Floating-point operations of the whole trial."""
        return self.effort.total

    @property
    def is_done(self) -> bool:
        """Whether its result stands already."""
        return self.status in DONE and not self.trial.knobs.force


def make_plan(cells: Sequence[Cell], folder: Folder, study: str) -> list[PlannedTrial]:
    """Load every corpus once, check that every cell fits its corpus and this machine, and fingerprint the trials.

    Raises:
        KnobError: with what is wrong in any cell, each problem once.
    """
    problems: dict[str, None] = {}
    planned = []
    earlier = _last_launch(folder, study)
    for cell in cells:
        try:
            cell = replace(cell, knobs=settle(cell.knobs))
            corpus = corpus_of(cell.knobs)
            check_fits(cell.knobs, corpus)
        except KnobError as error:
            problems.update(dict.fromkeys(error.problems))
            continue
        planned += _trials(cell, corpus, folder, earlier)
    if problems:
        raise KnobError(*problems)
    return planned


def corpus_of(knobs: Knobs) -> Corpus:
    """The corpus that a cell trains on; each is loaded once a process. Raises KnobError when it cannot be."""
    return _sliced(knobs.data, knobs.train_tokens, knobs.vocabulary)


@cache
def _sliced(data: Data, train_tokens: int | None, vocabulary: str) -> Corpus:
    return _load(data).slice(train_tokens, vocabulary)


_load = cache(load_corpus)


def _trials(cell: Cell, corpus: Corpus, folder: Folder, earlier: Mapping[tuple[str, int], str]) -> list[PlannedTrial]:
    knobs = cell.knobs
    parameters, matrices = _size(
        len(corpus.words), knobs.rnn, knobs.depth, knobs.hidden, knobs.embedding, knobs.tie, knobs.residual,
        knobs.projection is not None,
    )  # fmt: skip
    effort = _effort(knobs, corpus, matrices)
    sources = source_digests(knobs)
    code = code_digest(sources)
    data = data_record(knobs, corpus)
    trials = []
    for seed in cell.seeds:
        print_ = fingerprint(knobs, seed, corpus.digest, code)
        place = folder.trial(print_)
        state = status(_attempt(place))
        former = earlier.get((cell.label, seed))
        why = ""
        if state not in DONE and former not in (None, print_):
            why = what_changed(_attempt(folder.trial(str(former))), knobs, sources, corpus.digest)
        trials.append(
            PlannedTrial(cell, Trial(knobs, seed), data, sources, print_, place, state, why, parameters, effort)
        )
    return trials


def _attempt(place: Path) -> list[Event]:
    return last_attempt(read_events(place / JOURNAL)[0])


def _last_launch(folder: Folder, study: str) -> dict[tuple[str, int], str]:
    """(label, seed) → fingerprint, as the study was launched before."""
    launches = [event for event in read_events(folder.study(study))[0] if event["event"] == "launched"]
    if not launches:
        return {}
    return {(c["label"], t["seed"]): t["fingerprint"] for c in launches[-1]["cells"] for t in c["trials"]}


def what_changed(former: list[Event], knobs: Knobs, sources: Mapping[str, str], data_digest: str) -> str:
    """What differs between a finished trial and one of the same name: code, data, or knobs; "" when it had no result.

    For example: "code changed (tasks/language_model/optim.py)".
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
    decides, before = knobs.deciding(), started["knobs"]
    for name, value in decides.items():
        if name not in before or before[name] != value:
            changes.append(f"{name} changed ({show(before.get(name))} → {show(value)})")
    return "; ".join(changes)


def fingerprint(knobs: Knobs, seed: int, data_digest: str, code: str) -> str:
    """SHA-256 of what decides a trial's result: knobs, seed, data, code (precision is a knob)."""
    what = {"knobs": knobs.deciding(), "seed": seed, "data": data_digest, "code": code}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def code_digest(sources: Mapping[str, str]) -> str:
    """One SHA-256 for all of `source_digests`."""
    return hashlib.sha256(json.dumps(dict(sources), sort_keys=True).encode()).hexdigest()


def source_digests(knobs: Knobs) -> dict[str, str]:
    """File → SHA-256, of the task and of train, and of the packages that a user's own parts come from."""
    return _source_digests(knobs.rnn, knobs.optimizer)


@cache
def _source_digests(rnn: str, optimizer: str) -> dict[str, str]:
    root = Path(ablate.__file__).parent
    files = {
        str(path.relative_to(root)): path for name in _DECIDING_PACKAGES for path in sorted((root / name).rglob("*.py"))
    }
    for part in (RECURRENT_LAYERS.load(rnn), OPTIMIZERS.load(optimizer)):
        own = Path(inspect.getfile(part))
        if root not in own.parents:
            # A part in a package brings the package; one in a module of its own, the module.
            above = own.parents[part.__module__.count(".") - 1] if "." in part.__module__ else own
            found = sorted(above.rglob("*.py")) if above.is_dir() else [own]
            files.update({str(path.relative_to(above.parent)): path for path in found})
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


@cache
def git_facts() -> dict[str, str]:
    """Commit and dirty flag of the checkout that the package runs from; empty where it is no checkout."""
    root = Path(ablate.__file__).parent.parent
    if not (root / ".git").exists():
        return {}
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *command], capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git_commit": commit, "git_dirty": str(bool(changes)).lower()}


@cache
def _size(
    vocabulary: int, rnn: str, depth: int, hidden: int, embedding: int, tie: bool, residual: bool, projection: bool
) -> tuple[int, int]:
    """Trained numbers of a model, and how many of its numbers multiply something at every token.

    Found without allocating it. The latter are the recurrent layers' matrices and the output's; of the embedding one
    row is looked up.
    """
    with torch.device("meta"):
        model = RecurrentLM(
            vocabulary=vocabulary, rnn=rnn, depth=depth, hidden=hidden, embedding=embedding, dropout=0.0, tie=tie,
            residual=residual, projection=0.0 if projection else None,
        )  # fmt: skip
    matrices = [p for p in model.layers.parameters() if p.dim() > 1] + [model.output.weight]
    if model.projection is not None:
        matrices.append(model.projection.weight)
    return model.parameter_count(), sum(matrix.numel() for matrix in matrices)


def _effort(knobs: Knobs, corpus: Corpus, matrices: int) -> Effort:
    """2 operations a token for every matrix element that it meets, forwards; 4 more backwards."""
    per_epoch = Windows(corpus.train, knobs.batch, knobs.window).per_epoch
    validations = len(validation_windows(knobs, per_epoch))
    valid = Windows(corpus.valid, knobs.eval_batch, knobs.eval_window).per_epoch
    # In windows of `eval_batch` streams, which a test of fewer takes longer for than this says.
    test = Windows(corpus.test, knobs.eval_batch, knobs.eval_window).per_epoch
    return Effort(
        window=6.0 * knobs.batch * knobs.window * matrices,
        windows=budget_windows(knobs, per_epoch),
        eval_window=2.0 * knobs.eval_batch * knobs.eval_window * matrices,
        eval_windows=validations * valid + test,
        evaluations=validations + 1,
    )
