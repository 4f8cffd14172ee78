"""Words → ids, in one pass over the text and in bounded memory, cached on disk by digest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ablate.disk import replacing
from ablate.tasks.language_model.data.corpus import SPLITS, UNKNOWN, Corpus, Ids

# Part of every cache key: raise it when the meaning of a stored encoding changes.
ENCODING = 2


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


def cache_folders() -> list[Path]:
    """Where downloads and encodings are kept: $ABLATE_CACHE_DIR, then the user's own folder, the last resort."""
    chosen = [Path(folder)] if (folder := os.environ.get("ABLATE_CACHE_DIR")) else []
    if chosen and find_spec("platformdirs") is None:  # a machine that only trains may have torch and numpy alone
        return chosen
    import platformdirs

    return list(dict.fromkeys([*chosen, Path(platformdirs.user_cache_dir("ablate", appauthor=False))]))


def keep(folder: str, files: Mapping[str, Callable[[BinaryIO], object]]) -> Path:
    """Write files into the first cache that takes them; the path of their folder there.

    A file that is there already is replaced, and stays what it was for a process that has mapped it. Who may read them
    is as the umask says, not the owner alone.

    Args:
        folder: relative to the cache.
        files: name → what writes it.

    Raises:
        OSError: where no cache takes them.
    """
    *others, last = [cache / folder for cache in cache_folders()]
    for place in others:
        with contextlib.suppress(OSError):
            return _written(place, files)
    return _written(last, files)


def _written(folder: Path, files: Mapping[str, Callable[[BinaryIO], object]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in files.items():
        with replacing(folder / name) as file:
            write(file)
    return folder


def cached(key: str, build: Callable[[], Corpus]) -> Corpus:
    """Return the corpus stored under `key`, or build and store it. A damaged entry is built again."""
    entry = f"corpora/{key}-{ENCODING}"
    for folder in cache_folders():
        if (stored := _read(folder / entry)) is not None:
            return stored
    corpus = build()
    # A cache that cannot be written (read-only home, full disk) costs time at the next start, nothing else.
    with contextlib.suppress(OSError):
        _write(entry, corpus)
    return corpus


def _read(folder: Path) -> Corpus | None:
    try:
        meta = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        if meta.pop("sha256") != _digest(meta):
            return None
        train, valid, test = (np.lib.format.open_memmap(folder / f"{split}.npy", mode="r") for split in SPLITS)
    except (OSError, ValueError, EOFError, LookupError, TypeError, AttributeError):  # whatever damage reads as
        return None
    if any(ids.dtype != np.int32 or ids.ndim != 1 for ids in (train, valid, test)):
        return None
    corpus = Corpus(meta["name"], tuple(meta["words"]), train, valid, test, meta["floor_nll"])
    return corpus if corpus.digest == meta["digest"] else None


def _write(entry: str, corpus: Corpus) -> None:
    meta = {"name": corpus.name, "words": corpus.words, "floor_nll": corpus.floor_nll, "digest": corpus.digest}
    text = json.dumps({**meta, "sha256": _digest(meta)})
    splits = {f"{split}.npy": partial(np.save, arr=getattr(corpus, split)) for split in SPLITS}
    keep(entry, {**splits, "corpus.json": lambda file: file.write(text.encode())})


def _digest(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
