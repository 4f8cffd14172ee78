"""Fresh processes for the check: forked from a server that has imported torch and nothing of the user's.

Two servers have different hash seeds, as two launches do, so that what depends on the order of a set shows.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self


class Server:
    """Runs jobs (`ablate.functions.watch`), each in a process of its own, one at a time.

    Args:
        hash_seed: PYTHONHASHSEED of its processes.
    """

    def __init__(self, hash_seed: int) -> None:
        path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ablate.functions.fresh"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        assert self._process.stdin is not None, "it was started with pipes"
        assert self._process.stdout is not None, "it was started with pipes"
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, job: Path, kill_after: float | None = None) -> int:
        """Run a job to its end, or for so many seconds; returns its exit code, negative for a signal."""
        assert self._process.stdin is not None, "it was started with pipes"
        self._process.stdin.write(f"{job}\n")
        self._process.stdin.flush()
        pid = int(self._answer())
        if kill_after is not None:
            time.sleep(kill_after)
            # Until the server is asked to, it does not wait for it: the pid is still this process's.
            os.kill(pid, signal.SIGKILL)
        self._process.stdin.write("wait\n")
        self._process.stdin.flush()
        return int(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None, "it was started with pipes"
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the check's server process has ended")
        return line


def _serve(asked: IO[str], answers: IO[str]) -> None:
    import ablate.functions.watch  # with torch: before the first fork

    ablate.functions.watch.warm_up()
    while job := asked.readline().strip():
        answers.flush()
        pid = os.fork()
        if pid == 0:
            ablate.functions.watch.run_job(Path(job))  # does not return
        print(pid, file=answers, flush=True)
        asked.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers, flush=True)


def write_job(path: Path, **values: object) -> Path:
    """A job's file, for `Server.run`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


if __name__ == "__main__":
    _serve(sys.stdin, sys.stdout)
