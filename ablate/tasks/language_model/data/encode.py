"""Words → ids, in one pass over the text and in bounded memory, cached on disk by digest."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from ablate.tasks.language_model.data.corpus import SPLITS, UNKNOWN, Corpus, Ids

# Part of every cache key: raise it when the meaning of a stored encoding changes.
ENCODING = 1


class Interned(dict[str, int]):
    """word → id, given out in order of first appearance."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number

    def ids(self, chunks: Iterable[Iterable[str]]) -> Ids:
        """Intern a stream of chunks of words; 4 bytes a token, and the distinct words once."""
        out = array("i")
        for words in chunks:
            out.extend(map(self.__getitem__, words))
        return np.frombuffer(out, dtype=np.int32) if out else np.empty(0, dtype=np.int32)


def keep_commonest(name: str, interned: Interned, splits: Sequence[Ids], vocab_size: int | None) -> Corpus:
    """Keep the `vocab_size` words commonest in train (None: all of them) and <unk>; ids by first appearance.

    `splits`: interned ids of train, valid and test.
    """
    train, valid, test = splits
    counts = np.bincount(train, minlength=len(interned))
    commonest = np.argsort(-counts, kind="stable")[:vocab_size]
    kept = np.sort(commonest[counts[commonest] > 0])
    all_words = list(interned)
    words = [all_words[i] for i in kept]
    if UNKNOWN not in words:
        words.append(UNKNOWN)
    new_id = np.full(len(all_words), words.index(UNKNOWN), dtype=np.int32)
    new_id[kept] = np.arange(kept.size, dtype=np.int32)
    return Corpus(name, tuple(words), new_id[train], new_id[valid], new_id[test])


def cache_folder() -> Path:
    """Where downloads and encodings are kept: $ABLATE_CACHE_DIR, or the user's cache folder."""
    if chosen := os.environ.get("ABLATE_CACHE_DIR"):
        return Path(chosen)
    # Late: a machine that only trains may have torch and numpy alone.
    import platformdirs

    return Path(platformdirs.user_cache_dir("ablate", appauthor=False))


def cached(key: str, build: Callable[[], Corpus]) -> Corpus:
    """Return the corpus stored under `key`, or build and store it. A damaged entry is built again."""
    folder = cache_folder() / "corpora" / f"{key}-{ENCODING}"
    corpus = _read(folder)
    if corpus is None:
        corpus = build()
        # A cache that cannot be written (read-only home, full disk) costs time at the next start, nothing else.
        with contextlib.suppress(OSError):
            _write(folder, corpus)
    return corpus


def _read(folder: Path) -> Corpus | None:
    try:
        meta = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        train, valid, test = (np.load(folder / f"{split}.npy", mmap_mode="r") for split in SPLITS)
    except (OSError, ValueError, EOFError):
        return None
    corpus = Corpus(meta["name"], tuple(meta["words"]), train, valid, test, meta["floor_nll"])
    return corpus if corpus.digest == meta["digest"] else None


def _write(folder: Path, corpus: Corpus) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        for split in SPLITS:
            np.save(new / f"{split}.npy", getattr(corpus, split))
        meta = {
            "name": corpus.name,
            "words": corpus.words,
            "floor_nll": corpus.floor_nll,
            "digest": corpus.digest,
        }
        (new / "corpus.json").write_text(json.dumps(meta), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
