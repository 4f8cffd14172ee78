"""A corpus: three streams of token ids and the words they stand for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.knobs import KnobError
from ablate.tasks.language_model.config import CORPORA, Config, Data

UNKNOWN = "<unk>"
END_OF_SENTENCE = "<eos>"
SPLITS = ("train", "valid", "test")

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Corpus:
    """Three continuous streams of token ids.

    Attributes:
        name: as in `data=`.
        words: id → word.
        train, valid, test: ids, shape [tokens].
        floor_nll: nats a token of the test stream under its true source, where that is known.
    """

    name: str
    words: tuple[str, ...]
    train: Ids
    valid: Ids
    test: Ids
    floor_nll: float | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the words and of the three streams, in little-endian int32."""
        return self._digest_of(self.train, self.valid, self.test)

    @cached_property
    def evaluated(self) -> str:
        """SHA-256 of the words, the valid and the test stream: the same for every slice of train with these words."""
        return self._digest_of(self.valid, self.test)

    def _digest_of(self, *streams: Ids) -> str:
        sha = hashlib.sha256(json.dumps(self.words).encode())
        for ids in streams:
            sha.update(ids.size.to_bytes(8, "little"))
            sha.update(np.ascontiguousarray(ids, dtype="<i4").data)
        return sha.hexdigest()

    def counts(self) -> dict[str, int]:
        """Tokens of each split."""
        return {split: int(getattr(self, split).size) for split in SPLITS}

    def slice(self, train_tokens: int | None, vocabulary: str) -> Corpus:
        """The corpus with the first `train_tokens` of train (None: all).

        With vocabulary="slice" only the words seen there keep an id; the others count as <unk> everywhere.
        Raises KnobError when train is shorter than that.
        """
        if train_tokens is None:
            return _only_seen_words(self) if vocabulary == "slice" else self
        if train_tokens > self.train.size:
            raise KnobError(
                f"train_tokens={train_tokens}: data={self.name} has {self.train.size} train tokens; "
                f"use at most that, or train_tokens=null for all"
            )
        sliced = replace(self, train=self.train[:train_tokens])
        return _only_seen_words(sliced) if vocabulary == "slice" else sliced


def _only_seen_words(corpus: Corpus) -> Corpus:
    seen = np.unique(corpus.train)
    words = [corpus.words[i] for i in seen]
    if UNKNOWN not in words:
        words.append(UNKNOWN)
    new_id = np.full(len(corpus.words), words.index(UNKNOWN), dtype=np.int32)
    new_id[seen] = np.arange(seen.size, dtype=np.int32)
    return replace(
        corpus,
        words=tuple(words),
        train=new_id[corpus.train],
        valid=new_id[corpus.valid],
        test=new_id[corpus.test],
        floor_nll=None,
    )


def load_corpus(data: Data) -> Corpus:
    """The corpus that `data=` names. Raises KnobError when its text is missing or unusable."""
    load: Any = CORPORA.load(data.name)
    corpus: Corpus = load(data)
    return corpus


def check_fits(knobs: Config, corpus: Corpus) -> None:
    """Raise KnobError when a split is too short for one window of the batch, naming the largest batch that works."""
    problems = [*_too_short("batch", "window", knobs.batch, knobs.window, corpus, "train")]
    problems += _too_short("eval_batch", "eval_window", knobs.eval_batch, knobs.eval_window, corpus, "valid")
    name, streams = ("eval_batch", knobs.eval_batch) if knobs.test_batch is None else ("test_batch", knobs.test_batch)
    problems += _too_short(name, "eval_window", streams, knobs.eval_window, corpus, "test")
    if problems:
        raise KnobError(*problems)


def _too_short(batch_knob: str, window_knob: str, batch: int, window: int, corpus: Corpus, split: str) -> Iterator[str]:
    tokens = int(getattr(corpus, split).size)
    if tokens - 1 >= batch * window:
        return
    largest = (tokens - 1) // window
    remedy = (
        f"the largest {batch_knob} that works is {largest}"
        if largest >= 1
        else f"even {batch_knob}=1 is too much, the largest {window_knob} that works with it is {tokens - 1}"
        if tokens > 1
        else "nothing can be predicted from so short a text"
    )
    yield (
        f"{batch_knob}={batch} {window_knob}={window}: {split} of data={corpus.name} has {tokens} tokens, "
        f"one window needs {batch_knob} × {window_knob} + 1 = {batch * window + 1}; {remedy}"
    )
