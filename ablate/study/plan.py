"""Cells → trials with their corpus and fingerprint: which are to be trained, which are done, and why."""

from __future__ import annotations

import hashlib
import inspect
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ablate
from ablate.config import Data, KnobError, Knobs
from ablate.data import Corpus, Windows, check_fits, load_corpus
from ablate.registry import RECURRENT_LAYERS
from ablate.study.cells import Cell
from ablate.track.journal import JOURNAL, Folder, last_attempt, read_events, status
from ablate.train import Trial
from ablate.train.engine import budget
from ablate.train.machine import check_machine

_DECIDING_PACKAGES = ("data", "model", "train")


@dataclass(frozen=True)
class PlannedTrial:
    """One trial of a study.

    Attributes:
        fingerprint: SHA-256 over what decides its result.
        status: of its journal: FINISHED and DIVERGED are not trained again.
        windows: its budget.
        work: floating-point operations of its training, for an estimate of the time left.
    """

    cell: Cell
    trial: Trial
    corpus: Corpus
    fingerprint: str
    folder: Path
    status: str
    parameters: int
    windows: int
    work: float

    @property
    def is_done(self) -> bool:
        """Whether its result stands already."""
        return self.status in ("FINISHED", "DIVERGED") and not self.trial.knobs.force


def make_plan(cells: Sequence[Cell], folder: Folder) -> list[PlannedTrial]:
    """Load every corpus once, check that every cell fits its corpus and this machine, and fingerprint the trials.

    Raises:
        KnobError: with what is wrong in any cell, each problem once.
    """
    corpora: dict[tuple[Data, int | None, str], Corpus] = {}
    problems: dict[str, None] = {}
    planned = []
    for cell in cells:
        knobs = cell.knobs
        key = (knobs.data, knobs.train_tokens, knobs.vocabulary)
        try:
            check_machine(knobs)
            if key not in corpora:
                corpora[key] = _load(knobs.data).slice(knobs.train_tokens, knobs.vocabulary)
            check_fits(knobs, corpora[key])
        except KnobError as error:
            problems.update(dict.fromkeys(error.problems))
            continue
        planned += _trials(cell, corpora[key], folder)
    if problems:
        raise KnobError(*problems)
    return planned


_load = cache(load_corpus)


def _trials(cell: Cell, corpus: Corpus, folder: Folder) -> list[PlannedTrial]:
    knobs = cell.knobs
    parameters = count_parameters(knobs, len(corpus.words))
    code = code_digest(knobs.rnn)
    windows = budget(knobs, Windows(corpus.train, knobs.batch, knobs.window).per_epoch)
    trials = []
    for seed in cell.seeds:
        print_ = fingerprint(knobs, seed, corpus.digest, code)
        place = folder.trial(print_)
        events, _ = read_events(place / JOURNAL)
        trials.append(
            PlannedTrial(
                cell,
                Trial(knobs, seed),
                corpus,
                print_,
                place,
                status(last_attempt(events)),
                parameters,
                windows,
                _work(knobs, len(corpus.words), windows),
            )
        )
    return trials


def fingerprint(knobs: Knobs, seed: int, data_digest: str, code: str) -> str:
    """SHA-256 of what decides a trial's result: knobs, seed, data, code (precision is a knob)."""
    what = {"knobs": knobs.deciding(), "seed": seed, "data": data_digest, "code": code}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


@cache
def code_digest(rnn: str) -> str:
    """SHA-256 of the sources that decide a result: data, model, train, and the recurrent layer's own file."""
    root = Path(ablate.__file__).parent
    files = [path for name in _DECIDING_PACKAGES for path in sorted((root / name).rglob("*.py"))]
    layer = Path(inspect.getfile(RECURRENT_LAYERS.load(rnn)))
    if layer not in files:
        files.append(layer)
    sha = hashlib.sha256()
    for path in files:
        sha.update(path.name.encode())
        sha.update(path.read_bytes())
    return sha.hexdigest()


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


def count_parameters(knobs: Knobs, vocabulary: int) -> int:
    """Trained numbers of the model, found without allocating it."""
    import torch

    from ablate.train.engine import make_model

    with torch.device("meta"):
        return make_model(knobs, vocabulary).parameter_count()


def _work(knobs: Knobs, vocabulary: int, windows: int) -> float:
    """6 operations a token for every matrix parameter that it touches; the embedding is only looked up."""
    gates = 4 if knobs.rnn == "lstm" else 1
    recurrent = gates * knobs.hidden * (knobs.embedding + knobs.hidden + 2 * knobs.hidden * (knobs.depth - 1))
    return 6.0 * windows * knobs.batch * knobs.window * (recurrent + knobs.hidden * vocabulary)
