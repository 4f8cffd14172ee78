"""A user's own text: any UTF-8, one file or three, read in pieces so that size does not matter."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator
from pathlib import Path

from ablate.knobs import KnobError
from ablate.tasks.language_model.config import TextFiles
from ablate.tasks.language_model.data.corpus import END_OF_SENTENCE, Corpus
from ablate.tasks.language_model.data.encode import Interned, cached, keep_commonest

_PIECE_BYTES = 1 << 20
_LONGEST_WORD = 1 << 20


def load(data: TextFiles) -> Corpus:
    """The corpus of one file (its first 90 % train, the next 5 % valid, the last 5 % test) or of three.

    Words are separated by white space and every line ends in <eos>. Raises KnobError for a file that is missing,
    empty or not UTF-8 text.
    """
    knob_of = {"data.path": data.path, "data.valid": data.valid, "data.test": data.test}
    sources = {f"{knob}={path}": Path(path) for knob, path in knob_of.items() if path is not None}
    digests = [_digest(path, knob) for knob, path in sources.items()]
    key = hashlib.sha256("|".join([*digests, str(data.vocab_size), str(data.lower)]).encode()).hexdigest()[:32]

    def build() -> Corpus:
        corpus = _build(data, sources)
        for digest, (knob, path) in zip(digests, sources.items(), strict=True):
            if _digest(path, knob) != digest:
                raise KnobError(f"{knob}: has changed while it was read; start again when it is written")
        return corpus

    return cached(f"text-{key}", build)


def _build(data: TextFiles, sources: dict[str, Path]) -> Corpus:
    interned = Interned()
    ids = [interned.ids(read_words(path, knob, lower=data.lower)) for knob, path in sources.items()]
    if len(ids) == 1:
        tokens = ids[0].size
        cuts = [tokens * 90 // 100, tokens * 95 // 100]
        ids = [ids[0][: cuts[0]], ids[0][cuts[0] : cuts[1]], ids[0][cuts[1] :]]
    return keep_commonest("text", interned, ids, data.vocab_size)


def read_words(path: Path, knob: str, *, lower: bool = False) -> Iterator[list[str]]:
    """Yield the words of a UTF-8 file piece by piece, with <eos> for every line end.

    Only a line feed ends a line (a carriage return before it is white space, like U+2028 and U+0085); a byte order
    mark is dropped. Raises KnobError, with the offset, for bytes that are not UTF-8 and for NUL bytes.
    """
    started = False
    rest = last = ""
    for text in _decoded(path, knob):
        if not started:
            text = text.removeprefix("\ufeff")
            started = True
        text = rest + (text.lower() if lower else text).replace("\n", f" {END_OF_SENTENCE} ")
        words = text.split()
        # The last word may go on in the next piece.
        rest = "" if not words or text[-1].isspace() else words.pop()
        if len(rest) > _LONGEST_WORD:
            raise KnobError(f"{knob}: a word of over {_LONGEST_WORD} characters; words are separated by white space")
        last = words[-1] if words else last
        yield words
    if rest or last != END_OF_SENTENCE:  # the last line had no line feed
        yield [rest, END_OF_SENTENCE] if rest else [END_OF_SENTENCE]


def _decoded(path: Path, knob: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with path.open("rb") as file:
        while True:
            piece = file.read(_PIECE_BYTES)
            if (nul := piece.find(b"\0")) >= 0:
                raise KnobError(f"{knob}: byte {offset + nul} is NUL; this is not a text file")
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                raise KnobError(
                    f"{knob}: byte {offset - pending + error.start} is not UTF-8; convert the file, for example "
                    "with iconv -f LATIN1 -t UTF-8"
                ) from None
            offset += len(piece)
            if text:
                yield text
            if not piece:
                return


def _digest(path: Path, knob: str) -> str:
    try:
        if path.stat().st_size == 0:
            raise KnobError(f"{knob}: the file is empty; name a text of some thousand words")
        return sha256_of_file(path)
    except OSError as error:
        raise KnobError(f"{knob}: {error.strerror or error}; name a UTF-8 text file") from None


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
