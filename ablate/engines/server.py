"""The server that worker processes are forked from.

It has imported torch and what `ablate` trains with, and nothing else of a study: workers start in milliseconds, and
share no thread, lock or open file with the study. Where a system cannot fork, each worker imports torch by itself.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from multiprocessing import forkserver

_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
CONTEXT = multiprocessing.get_context(_METHOD)


def warm_up() -> None:
    """Start the server now: it imports torch while the study does, and plans."""
    if _METHOD == "forkserver":
        CONTEXT.set_forkserver_preload(["ablate.engines.stoppable", "ablate.engines.preloaded"])
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End this process, forked from the server, when the study does, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a process of its own"
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(parent: int) -> None:
    multiprocessing.connection.wait([parent])
    os._exit(1)  # nothing to tidy up: what is on disk is whole at any instant
