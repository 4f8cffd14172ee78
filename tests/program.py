"""The real program in a process group of its own: started, watched, killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def start(arguments, folder, prefix=(), **environment):
    """`python -m` with these arguments, in this folder; `prefix` goes before it."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group that can be killed as a whole
        preexec_fn=_default_signals,
    )


def _default_signals():
    # A shell that started the tests in the background has made every child of theirs deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ablate(*arguments, folder, timeout=240, **environment):
    """python -m ablate to its end: exit code, output, errors."""
    process = start(["ablate", *arguments], folder, **environment)
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def journals(folder):
    """Trial folder → events, of every trial in runs/."""
    found = {}
    for path in sorted(folder.glob("runs/trials/*/journal.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines()
        found[path.parent] = [json.loads(line) for line in lines if line.endswith("}")]
    return found


def wait_until(condition, seconds=120.0):
    """Wait for a condition to hold, and fail when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not come"
        time.sleep(0.05)


def kill_tree(process):
    """kill -9 of the program and all its children, at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
