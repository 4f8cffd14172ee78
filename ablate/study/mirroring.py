"""The mirror in a process of its own: MLflow's import and its database take no time from the study."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from ablate.engines.server import CONTEXT, end_with_parent
from ablate.track.folder import Folder
from ablate.track.journal import Event
from ablate.track.mlflow.mirror import Mirror

_SILENT_SECONDS = 60.0  # at the end, without a trial copied: MLflow is then left behind


class MirrorProcess:
    """Copies a launch's trials to MLflow while they train, and what is left at the end.

    Args:
        folder: the runs folder.
        uri: MLflow tracking URI; None: SQLite in the runs folder.
        launched: the launch, as its study's journal records it.
        note: told once when the store cannot be reached, and of every trial that it refuses.
    """

    def __init__(self, folder: Folder, uri: str | None, launched: Event, note: Callable[[str], None]) -> None:
        self._note = note
        self._connection, theirs = CONTEXT.Pipe()
        self._process: BaseProcess = CONTEXT.Process(  # type: ignore[attr-defined]
            target=_mirror,
            args=(theirs, os.getcwd(), dict(os.environ), str(folder), uri, launched),
            name="mlflow-mirror",
            daemon=True,
        )
        self._listener = threading.Thread(target=self._listen, name="mlflow-mirror", daemon=True)
        self._copied = 0
        self._closing = self._complete = False
        self.page: str | None = None  # the address of the table of runs behind a server's own, once a store was reached
        self._process.start()
        theirs.close()  # so that its end, however it comes, is heard
        self._listener.start()

    def close(self, reports: Sequence[Path]) -> bool:
        """Have what is left copied, and folders of report files attached; returns whether the mirror is complete."""
        self._closing = True
        try:
            with suppress(OSError):  # it has died
                self._connection.send([str(report) for report in reports])
            copied = -1
            while self._listener.is_alive() and self._copied > copied:
                copied = self._copied
                self._listener.join(_SILENT_SECONDS)
        finally:  # also when a user will not wait: it is deaf to the signals that would end it
            if self._process.is_alive():
                self._process.kill()
            self._process.join()
        return self._complete

    def _listen(self) -> None:
        try:
            while True:
                about, value = self._connection.recv()
                if about == "copied":
                    self._copied += 1
                    self.page = value
                elif about == "complete":
                    self._complete = value
                    return
                else:
                    self._tell(value)
        except (EOFError, OSError):
            if not self._closing:
                self._tell("the process that copies to MLflow has died; python -m ablate.track sync catches MLflow up")

    def _tell(self, text: str) -> None:
        with suppress(Exception):  # a terminal that cannot print it must not stop the listening
            self._note(text)


def _mirror(
    connection: Connection, here: str, environment: dict[str, str], folder: str, uri: str | None, launched: Event
) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # they reach every process of a group; the study says when to end
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    end_with_parent()
    # The server was started earlier, maybe elsewhere.
    os.chdir(here)
    os.environ.clear()
    os.environ.update(environment)

    def note(text: str) -> None:
        connection.send(("note", text))

    def copied() -> None:
        connection.send(("copied", mirror.page()))

    def is_over(seconds: float) -> bool:
        if not connection.poll(seconds):
            return False
        for report in connection.recv():
            mirror.attach(Path(report))
        return True

    mirror = Mirror(Folder(folder), uri, launched, note, copied)
    complete = mirror.follow(is_over)
    copied()
    connection.send(("complete", complete))
