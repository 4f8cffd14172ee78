"""The real program in a process group of its own: started, watched, killed; or within the tests' process."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, chdir, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
from warm import Warm, module, warm_up

from ablate.cli import main
from ablate.track.claims import read_trial

ROOT = Path(__file__).parent.parent


def start(arguments, folder, **environment):
    """`python -m` with these arguments, in this folder, in a process group of its own; without the time of imports."""
    return Warm(module, *arguments, folder=folder, environment=environment)


def start_cold(arguments, folder, prefix=(), **environment):
    """The same, as a shell starts it; `prefix` goes before it."""
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
    process = start_cold(["ablate", *arguments], folder, **environment)
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def inside(*arguments, folder, main=main, meanwhile=None):
    """What `ablate` gives, from the same main() in this process: torch and pandas are imported once for many tests.

    Its workers are processes as ever. For tests of what is planned, trained and said, not of the process itself.

    Args:
        meanwhile: called in a thread while the program runs, with a function that gives its output so far.
    """
    warm_up()
    out, err, code = io.StringIO(), io.StringIO(), 0
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    with ExitStack() as stack:
        for context in (
            chdir(folder),
            mock.patch("multiprocessing.process.ORIGINAL_DIR", str(folder)),  # where workers start
            mock.patch.object(sys, "argv", ["ablate", *arguments]),
            mock.patch.dict(os.environ),
            redirect_stdout(out),
            redirect_stderr(err),
            nullcontext() if meanwhile is None else _thread(meanwhile, out.getvalue),
        ):
            stack.enter_context(context)
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return code, out.getvalue(), err.getvalue()


def mistake(main, *arguments):
    """What a program says of a mistake in its command line: one line, with exit code 2."""
    err = io.StringIO()
    with redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    (line,) = err.getvalue().splitlines()
    return line


@contextmanager
def _thread(function, *arguments):
    """Runs a function beside what is in the block; what it raises is raised at the block's end."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(function, *arguments)
        yield
        running.result()


def journals(folder):
    """Trial folder → events, of every trial in runs/ that has any."""
    found = {trial: read_trial(trial) for trial in sorted(folder.glob("runs/trials/*"))}
    return {trial: events for trial, events in found.items() if events}


def claim_folder(trial):
    """Where the process that claimed a trial last has written."""
    return max(trial.glob("claim-*"))


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
