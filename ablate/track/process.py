"""Processes side by side: one that has died is known from one that lives, and two write no report at once."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from filelock import FileLock


def report_lock(report: Path) -> FileLock:
    """Held while a report's folder is written, and while it is copied to MLflow."""
    return FileLock(report.parent / f".{report.name}.lock")


def this_process() -> str:
    """Host, pid and start of this process: "host:4711:88231"."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start(os.getpid())}"


def is_dead(process: str) -> bool | None:
    """Whether the process that `this_process` named has ended; None where that cannot be known (another host)."""
    host, _, rest = process.rpartition(":")[0].rpartition(":")
    start = process.rpartition(":")[2]
    if host != socket.gethostname() or not rest.isdigit():
        return None
    pid = int(rest)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    # A pid is given out again: the start tells the two processes apart.
    return start != _start(pid)


def _start(pid: int) -> str:
    """Ticks from boot to the start of a process and the boot's id; "" where /proc does not tell, or it has ended."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        if state in ("Z", "X"):  # killed, and its parent, dead too or busy, has not asked for its code
            return ""
        ticks = rest[18]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except (OSError, IndexError):
        return ""
    return f"{ticks}@{boot[:8]}"
