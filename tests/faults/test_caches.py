"""A cache that users and processes share: read by those who may, checked by digest, never changed under a reader."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from program import ROOT
from test_data import source, text

from ablate.knobs import KnobError
from ablate.tasks.language_model.data import Corpus, load_corpus
from ablate.tasks.language_model.data import text as text_module
from ablate.tasks.language_model.data.encode import cached

_AS_USER = """
import mmap, os, sys
import numpy as np, platformdirs.unix
from ablate.tasks.language_model.data import encode
from ablate.tasks.language_model.data.corpus import Corpus
uid, umask, cache = int(sys.argv[1]), int(sys.argv[2], 8), sys.argv[3]
os.setgid(uid); os.setuid(uid); os.umask(umask)
os.environ.update(ABLATE_CACHE_DIR=cache, XDG_CACHE_HOME=f"{cache}-of-{uid}")
def build():
    print("built")
    ids = np.arange(5, dtype=np.int32)
    return Corpus("x", ("a", "b", "c", "d", "e"), ids, ids[:2], ids[:3])
print(encode.cached("key", build).digest)
"""
_ALICE, _BOB = 4711, 4712


@pytest.fixture
def shared():
    """A folder that everybody may write, for another user may not enter those of the tests."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def as_user(uid, umask, cache):
    """Lines that a user's program prints; "built" where the cache had nothing for them."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _AS_USER, str(uid), umask, str(cache)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


as_root = pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can be another user")


@as_root
def test_what_one_user_has_encoded_another_reads(shared):
    ((_, digest), again) = (as_user(uid, "022", shared / "cache") for uid in (_ALICE, _BOB))
    assert again == [digest]


@as_root
def test_a_user_who_may_not_read_the_shared_cache_makes_one_of_their_own(shared):
    (shared / f"cache-of-{_BOB}").mkdir()
    os.chown(shared / f"cache-of-{_BOB}", _BOB, _BOB)
    (_, digest) = as_user(_ALICE, "077", shared / "cache")
    assert as_user(_BOB, "077", shared / "cache") == ["built", digest]
    assert as_user(_BOB, "077", shared / "cache") == [digest]


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """What is in the cache, and a function that reads it again, or makes it again where it is damaged."""
    for name in ("ABLATE_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    built = []

    def build() -> Corpus:
        built.append(1)
        ids = np.arange(5, dtype=np.int32)
        return Corpus("x", ("a", "b", "c", "d", "e"), ids, ids[:2], ids[:3], floor_nll=1.5)

    def read():
        """Whether it was made again."""
        built.clear()
        corpus = cached("key", build)
        assert (corpus.digest, corpus.floor_nll, corpus.train.dtype) == (first.digest, 1.5, np.int32)
        return bool(built)

    first = cached("key", build)
    return next(tmp_path.rglob("corpus.json")).parent, read


def edited(file, before, after):
    content = file.read_bytes()
    assert before in content
    file.write_bytes(content.replace(before, after))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "corpus.json").write_text("[]"),
        lambda folder: (folder / "corpus.json").write_text(json.dumps({"name": "x"})),
        lambda folder: edited(folder / "corpus.json", b"1.5", b"1.4"),
        lambda folder: (folder / "train.npy").write_bytes((folder / "train.npy").read_bytes()[:-3]),
        lambda folder: (folder / "train.npy").write_bytes(b""),
        lambda folder: edited(folder / "train.npy", b"<i4", b"<u4"),
        lambda folder: (folder / "valid.npy").unlink(),
    ],
)
def test_an_entry_that_is_damaged_anywhere_is_made_again(entry, damage):
    folder, read = entry
    assert not read()
    damage(folder)
    assert read()
    assert not read()
    assert {path.name for path in folder.iterdir()} == {"train.npy", "valid.npy", "test.npy", "corpus.json"}


def test_what_a_process_has_mapped_stays_in_its_folder_and_as_it_was(entry):
    folder, read = entry
    mapped = np.load(folder / "train.npy", mmap_mode="r")
    (folder / "corpus.json").write_text("")
    with (folder / "valid.npy").open("rb"):
        listed = folder.stat().st_ino
        assert read()
    assert folder.stat().st_ino == listed, "the folder was never away: another process may be about to open a file"
    assert mapped.tolist() == [0, 1, 2, 3, 4]


def test_a_kill_while_an_entry_is_written_leaves_one_that_is_made_again(tmp_path, monkeypatch):
    for name in ("ABLATE_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    code = """
        import os, signal, sys
        sys.path.insert(0, "tests")
        import numpy as np
        save = np.save
        def killed(file, arr):
            save(file, arr[:-1])
            file.flush()
            if arr.size == 2000:
                os.kill(os.getpid(), signal.SIGKILL)
        np.save = killed
        from test_data import source
        from ablate.tasks.language_model.data import load_corpus
        load_corpus(source(30, 3, 1, 4000, 2000, 0))
    """
    command = [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())]
    assert subprocess.run(command, cwd=ROOT, timeout=100).returncode == -signal.SIGKILL
    assert load_corpus(source(30, 3, 1, 4000, 2000, 0)).counts() == {"train": 4000, "valid": 2000, "test": 2000}


def test_processes_that_encode_the_same_at_once_all_have_it(entry):
    folder, _ = entry
    (folder / "corpus.json").write_text("")
    digests = []

    def build():
        ids = np.arange(5, dtype=np.int32)
        return Corpus("x", ("a", "b", "c", "d", "e"), ids, ids[:2], ids[:3])

    threads = [threading.Thread(target=lambda: digests.append(cached("key", build).digest)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 8
    assert len(set(digests)) == 1


def test_a_text_that_is_written_while_it_is_read_is_refused_and_not_kept(tmp_path, monkeypatch):
    file = tmp_path / "t.txt"
    file.write_text("the cat sat\n" * 90)
    read = text_module.read_words

    def meanwhile(*arguments, **more):
        yield from read(*arguments, **more)
        with file.open("a") as being_written:
            being_written.write("on the mat\n")

    with monkeypatch.context() as patched:
        patched.setattr(text_module, "read_words", meanwhile)
        with pytest.raises(KnobError, match=r"t\.txt: has changed while it was read; start again when it is written"):
            load_corpus(text(file))
    assert sum(load_corpus(text(file)).counts().values()) == 90 * 4 + 4
