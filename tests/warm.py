"""Processes of their own that start warm: what the program imports, for seconds of a processor, is there already.

The server that this process's workers are forked from imports all of the program, and programs are forked from it too.
Each has its session, signals, output, workers and end, as one that a shell has started. What differs is where imports
come from: the program's, and those of its own server, which is forked before the program begins.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import importlib
import json
import multiprocessing.process
import multiprocessing.util
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path

from ablate.engines.server import CONTEXT

_IMPORTED = [
    "ablate.cli", "ablate.report.write", "ablate.study.run", "ablate.track.mlflow.mirror",
    "matplotlib.backends.backend_pdf", "matplotlib.backends.backend_svg", "mlflow.store.tracking.sqlalchemy_store",
    "seaborn", "ablate.engines.preloaded",
]  # fmt: skip


def fork_server() -> None:
    """Fork what becomes the server, with all that was imported so far; later in this process it would have more."""
    multiprocessing.util.spawnv_passfds = _server_to_be()


def warm_up() -> None:
    """Start the server, before the program starts one that has imported less."""
    CONTEXT.set_forkserver_preload(_IMPORTED)
    forkserver.ensure_running()


_MAIN = multiprocessing.process.current_process()  # where this is imported before a process has become another


class Warm:
    """A function in a session of its own, as subprocess.Popen has a program.

    Args:
        function: is called with the arguments; what it does at its end is what a program does.
        environment: what the process has besides what this one has.
    """

    def __init__(self, function, *arguments, folder, environment):
        warm_up()
        ready, is_ready = CONTEXT.Pipe(duplex=False)
        pipes = [CONTEXT.Pipe(duplex=False) for _ in range(2)]
        writers = [writer for _, writer in pipes]
        variables = {**os.environ, **environment}
        self._process = CONTEXT.Process(
            target=_run, args=(function, arguments, str(folder), variables, writers, is_ready), name="program"
        )
        self._process.start()
        for writer in (*writers, is_ready):
            writer.close()
        ready.recv()  # it has a session, and can be killed with all that is in it
        self.pid = self._process.pid
        self._output = ["", ""]
        self._readers = [
            threading.Thread(target=self._read, args=(number, reader), daemon=True)
            for number, (reader, _) in enumerate(pipes)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, number, reader):
        with os.fdopen(os.dup(reader.fileno()), encoding="utf-8", errors="replace") as stream:
            self._output[number] = stream.read()
        reader.close()

    def poll(self):
        return self._process.exitcode

    returncode = property(poll)

    def communicate(self, timeout=None):
        """Output and errors, once no process of it holds them any more."""
        for reader in self._readers:
            reader.join(timeout)
        self._process.join(timeout)
        if self.poll() is None or any(reader.is_alive() for reader in self._readers):
            raise subprocess.TimeoutExpired("program", timeout)
        return tuple(self._output)


def module(name, *arguments):
    """python -m NAME ARGUMENTS."""
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def script(path, *arguments):
    """python PATH ARGUMENTS."""
    sys.argv = [path, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    runpy.run_path(os.path.abspath(path), run_name="__main__")


def alone(path, name, *arguments):
    """Call a function of a module as the root of a name space of its own, in which it may mount file systems."""
    user, group = os.getuid(), os.getgid()
    # While there is one thread, which is asked for: what is imported may have more.
    assert ctypes.CDLL(None).unshare(_NEW_USER | _NEW_MOUNTS) == 0
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path("/proc/self", file).write_text(text)
    multiprocessing.util.spawnv_passfds = _server_to_be()  # which has to see what is mounted
    getattr(importlib.import_module(path), name)(*arguments)


_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000  # sched.h


def _run(function, arguments, folder, environment, writers, is_ready):
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, writer in enumerate(writers, start=1):
        os.dup2(writer.fileno(), number)
        writer.close()
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(  # noqa: SIM115
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    sys.path.insert(0, folder)
    _as_a_first_process(folder)
    is_ready.send(None)
    is_ready.close()
    code = _code_of(function, arguments)
    threading._shutdown()
    atexit._run_exitfuncs()
    multiprocessing.util._exit_function()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = 120  # as Python itself
    os._exit(code)


def _code_of(function, arguments):
    try:
        function(*arguments)
    except SystemExit as end:
        if not isinstance(end.code, str):
            return int(end.code or 0)
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _as_a_first_process(folder):
    """What a process of multiprocessing's is no more: it has no parent, and a server of its own."""
    process = multiprocessing.process
    process._current_process, process._parent_process, process.ORIGINAL_DIR = _MAIN, None, folder
    process._children = set()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    server, tracker = forkserver._forkserver, importlib.import_module("multiprocessing.resource_tracker")
    os.close(server._forkserver_alive_fd)
    server._forkserver_alive_fd = None
    tracker._resource_tracker._fd = None
    multiprocessing.util.spawnv_passfds = _server_to_be()


def _server_to_be():
    """Fork what becomes the program's server once that asks for one; in place of what would execute it."""
    executed, (here, there) = multiprocessing.util.spawnv_passfds, socket.socketpair()
    if (pid := os.fork()) == 0:
        here.close()
        _serve(there)
    there.close()
    ends = [here.detach()]  # a number, of which nothing complains where no server is asked for

    def start(path, args, passed):
        if "multiprocessing.forkserver" not in args[-1] or not ends:
            return executed(path, args, passed)
        with socket.socket(fileno=ends.pop()) as here:
            socket.send_fds(here, [json.dumps([args[-1], list(passed)]).encode()], passed)
        return pid

    return start


def _serve(there):
    try:
        _forget(there)
        message, received, *_ = socket.recv_fds(there, 100_000, 10)
        there.close()
        if message:  # else the program is over, and had no need of a server
            command, numbers = json.loads(message)
            kept = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in received]  # beyond the numbers that they will have
            for fd in received:
                os.close(fd)
            for fd, number in zip(kept, numbers, strict=True):
                os.dup2(fd, number)
                os.close(fd)
            exec(command, {})
    finally:
        os._exit(1)


def _forget(there):
    """What a server that is executed would not have: the files that are open, modules of the tests, programs."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in map(int, os.listdir("/dev/fd")):
        if fd > 2 and fd not in (nothing, there.fileno()):
            with suppress(OSError):  # that of the listing is closed
                os.fstat(fd)
                os.dup2(nothing, fd, inheritable=False)  # not closed: what believes that it has it closes no other
    for name, found in [*sys.modules.items()]:
        if name.endswith(".__main__") or str(getattr(found, "__file__", None)).startswith(_TESTS):
            del sys.modules[name]


_TESTS = f"{Path(__file__).parent}{os.sep}"
