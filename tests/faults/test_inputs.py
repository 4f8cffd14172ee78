"""Every knob and every file is checked at the door: refused in a line, or trained without a warning."""

from __future__ import annotations

import http.server
import math
import os
import shutil
import subprocess
import sys
import threading
import warnings
from hashlib import sha256
from pathlib import Path

import pytest
from conftest import TINY, knobs_of, make_plan, study_of, train_in_process
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from program import ROOT, inside

from ablate.knobs import KnobError
from ablate.tasks.language_model.data import load_corpus, ptb
from ablate.track.claims import read_trial
from ablate.track.folder import Folder
from ablate.track.journal import last_attempt, status

THREE_WINDOWS = [*TINY, "windows=3", "valid_every=3", "tracking=off", "report=false"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["depth=0"], "depth=0: must be a whole number at least 1"),
        (["depth=-1"], "depth=-1: must be a whole number at least 1"),
        (["depth=1.5"], "depth=1.5: must be a whole number at least 1"),
        (["hidden=0"], "hidden=0: must be a whole number at least 1"),
        (["dropout=1.0"], "dropout=1.0: must be a finite number at least 0 and below 1"),
        (["dropout=-0.1"], "dropout=-0.1: must be a finite number at least 0 and below 1"),
        (["dropout=nan"], "dropout=nan: must be a finite number at least 0 and below 1"),
        (["lr=nan"], "lr=nan: must be a finite number above 0"),
        (["lr=-1"], "lr=-1: must be a finite number above 0"),
        (["deppth=2"], "deppth=2: unknown knob 'deppth'; did you mean 'depth'?"),
        (["depth="], "depth=: must be a whole number"),
        (["depth=[]"], "depth=[]: must be a whole number"),
        (["batch=4000"], "the largest batch that works is"),
    ],
)
def test_a_bad_value_is_one_line_and_trains_nothing(overrides, message, tmp_path):
    code, out, err = inside("-m", *TINY, *overrides, folder=tmp_path)
    assert (code, out) == (2, "")
    (line,) = err.strip().splitlines()
    assert line.startswith("ablate: ")
    assert message in line
    assert not list(tmp_path.glob("runs/trials/*"))


def test_cells_given_twice_are_trained_once(tmp_path):
    code, out, _ = inside("-m", *THREE_WINDOWS, "depth=1,1,1", "model=lstm,lstm", folder=tmp_path)
    assert code == 0
    assert "1 cell, 1 trial" in out
    assert len(list(tmp_path.glob("runs/trials/*"))) == 1


GOOD_LINE = "the quick brown fox jumps over the lazy dog again and again\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"word", "nothing can be predicted"),
        (b"ok " * 50 + b"\0", "is NUL; this is not a text file"),
        (b"caf\xe9 " * 200, "byte 3 is not UTF-8"),
        (b"a b c\n" * 20, "the largest eval_window that works"),
        (GOOD_LINE.encode() * 60, None),
        (GOOD_LINE.replace("\n", "\r\n").encode() * 60, None),
        (b"\xef\xbb\xbf" + GOOD_LINE.encode() * 60, None),
        (GOOD_LINE.replace(" ", "\u2028").encode() * 60, None),
    ],
    ids=["empty", "one word", "NUL", "latin-1", "too short", "good", "CRLF", "BOM", "U+2028"],
)
def test_a_text_file_is_refused_in_a_line_or_trained(content, message, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    arguments = [*(t for t in THREE_WINDOWS if not t.startswith("data")), "data=text", f"data.path={path}"]
    if message is None:
        ((state, words),) = {trained(arguments, tmp_path)}
        assert state == "FINISHED"
        assert words == ("<eos>", *sorted(set(GOOD_LINE.split())), "<unk>")
    else:
        with pytest.raises(KnobError) as refused:
            plan_of(arguments, tmp_path)
        assert all(line.startswith(("data.path=", "batch=", "eval_batch=")) for line in refused.value.problems)
        assert message in str(refused.value)


PEAK_OF_LOADING = """
import re, sys
from pathlib import Path
from ablate.tasks.language_model.config import TextFiles
from ablate.tasks.language_model.data import load_corpus
corpus = load_corpus(TextFiles(name="text", path=sys.argv[1], valid=None, test=None, vocab_size=100, lower=False))
# Not getrusage: its peak is inherited from the process that started this one.
print(len(corpus.train), int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) >> 10)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process its peak memory")
def test_a_hundred_megabytes_on_one_line_load_in_bounded_memory(tmp_path):
    file = tmp_path / "big.txt"
    with file.open("wb") as out:
        for _ in range(100):
            out.write(b"abcdefg hijklmn opqrstu vwxyzab " * (1 << 15))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ABLATE_CACHE_DIR": str(tmp_path / "cache")}
    loading = [sys.executable, "-c", PEAK_OF_LOADING, str(file)]
    ended = subprocess.run(loading, env=environment, capture_output=True, text=True, timeout=120, check=True)
    tokens, peak_mib = map(int, ended.stdout.split())
    assert tokens == (100 * 4 * (1 << 15) + 1) * 90 // 100
    assert peak_mib < 400


def plan_of(overrides, folder):
    return make_plan(study_of(*overrides), Folder(folder / "runs"))


def plan_or_problems(overrides, folder):
    try:
        return plan_of(overrides, folder), []
    except KnobError as refused:
        return [], refused.problems


def trained(overrides, folder):
    """How the trial ends, and the words it knows."""
    (planned,) = plan_of(overrides, folder)
    train_in_process([planned])
    events = last_attempt(read_trial(planned.folder))
    words = load_corpus(planned.trial.config.data).words
    return status(events), tuple(sorted(words, key=lambda word: (word == "<unk>", word)))


@st.composite
def configurations(draw):
    """Overrides of any knobs, in and out of their ranges, small enough to train in a blink."""
    numbers = {
        "depth": st.integers(-1, 4), "hidden": st.integers(-1, 9), "dropout": st.floats(-0.2, 1.2),
        "lr": st.one_of(st.floats(1e-6, 10), st.sampled_from([math.nan, math.inf, -1.0, 1e9])),
        "batch": st.integers(0, 6), "window": st.integers(0, 6), "clip": st.sampled_from(["null", 0, 0.25, 1e-9]),
        "decay": st.sampled_from(["null", 1, 4]), "embedding": st.integers(0, 9), "seed": st.integers(-1, 3),
        "embedding_std": st.sampled_from([0, 0.01, 1, 1e3]), "train_tokens": st.sampled_from(["null", 1, 30, 200]),
        "eval_batch": st.integers(0, 3), "eval_window": st.integers(0, 7), "valid_every": st.sampled_from([0, 1, 2]),
    }  # fmt: skip
    choices = {
        "model": ["rnn", "lstm", "better_lstm"], "tie": ["true", "false", "maybe"], "optimizer": ["sgd", "adam", "sdg"],
        "carry": ["true", "false"], "vocabulary": ["full", "slice"], "test_weights": ["best", "last"],
        "valid_spacing": ["even", "doubling"],
    }  # fmt: skip
    rules = numbers | {name: st.sampled_from(levels) for name, levels in choices.items()}
    names = draw(st.lists(st.sampled_from(sorted(rules)), unique=True, max_size=8))
    return [f"{name}={draw(rules[name])}" for name in names]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configurations())
def test_any_configuration_is_refused_with_a_message_or_trains_three_windows_without_a_warning(tmp_path, overrides):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan, problems = plan_or_problems([*THREE_WINDOWS, *overrides], tmp_path)
        assert all(": " in problem and "\n" not in problem for problem in problems)
        if problems:
            return
        (planned,) = plan
        train_in_process([planned])
    events = last_attempt(read_trial(planned.folder))
    assert status(events) in ("FINISHED", "DIVERGED"), events[-1]
    assert (planned.folder / "trial.log").read_text() == ""


# Files that a mirror of Penn Treebank serves, and how it may serve them.
FILES = {name: (f"{name} has a few words\n" * 200).encode() for name in ptb.SHA256}


class Mirror(http.server.BaseHTTPRequestHandler):
    behaviour = "good"

    def do_GET(self):
        data = FILES[self.path.rpartition("/")[2]]
        self.send_response(500 if self.behaviour == "broken" else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write({"truncated": data[:100], "wrong": data[::-1]}.get(self.behaviour, data))

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    """A mirror on this machine, and no other; its behaviour is set by the test."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever, args=[0.02])
    thread.start()
    monkeypatch.delenv("ABLATE_DATA_DIR", raising=False)
    monkeypatch.setenv("ABLATE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(ptb, "MIRRORS", (f"http://127.0.0.1:{server.server_port}/",))
    monkeypatch.setattr(ptb, "SHA256", {name: sha256(data).hexdigest() for name, data in FILES.items()})
    monkeypatch.setattr(Mirror, "behaviour", "good")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("behaviour", ["truncated", "wrong", "broken"])
def test_a_download_that_is_not_the_known_file_is_refused_and_the_next_try_may_succeed(behaviour, mirror, monkeypatch):
    monkeypatch.setattr(Mirror, "behaviour", behaviour)
    with pytest.raises(KnobError, match=r"data=ptb: ptb.train.txt could not be fetched \(\w+\); put the three"):
        load_corpus(knobs_of("data=ptb").data)
    monkeypatch.setattr(Mirror, "behaviour", "good")
    assert load_corpus(knobs_of("data=ptb").data).counts()["train"] == 200 * 6


def test_offline_without_a_cache_says_what_to_do(mirror, monkeypatch):
    monkeypatch.setattr(ptb, "MIRRORS", ("http://127.0.0.1:9/",))
    with pytest.raises(KnobError, match=r"set ABLATE_DATA_DIR to the folder that holds it, or use data=kjv"):
        load_corpus(knobs_of("data=ptb").data)


def test_two_downloads_at_once_both_end_with_the_whole_file(mirror):
    found = []
    data = knobs_of("data=ptb").data
    threads = [threading.Thread(target=lambda: found.append(load_corpus(data))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({corpus.digest for corpus in found}) == 1
    assert len(found) == 4


def test_a_value_from_the_environment_is_used_and_not_recorded(empty_store, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    shutil.copy(empty_store, tmp_path / "runs")
    path = tmp_path / "hunter2.txt"
    path.write_text(GOOD_LINE * 60)
    arguments = [*(t for t in THREE_WINDOWS if not t.startswith("data")), "data=text", "data.path=${oc.env:SECRET}"]
    arguments = [argument for argument in arguments if not argument.startswith(("tracking", "report"))]
    monkeypatch.setenv("SECRET", str(path))
    code, _, err = inside(*arguments, folder=tmp_path)
    assert (code, err) == (0, "")
    assert any((tmp_path / "runs" / "artifacts").iterdir())
    holding = [
        file
        for place in ("runs", "reports")
        for file in (tmp_path / place).rglob("*")
        if file.is_file() and b"hunter2" in file.read_bytes()
    ]
    assert holding == []
