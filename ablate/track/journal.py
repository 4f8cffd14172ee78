"""Journals: append-only JSON lines, one event a line. What they say is the truth; MLflow mirrors it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from ablate.disk import sync_folder
from ablate.knobs import KnobError
from ablate.names import folder_name

Event = dict[str, Any]

JOURNAL = "journal.jsonl"
LOG = "trial.log"
FINAL_EVENTS = ("finished", "failed", "interrupted")
SCHEMA = 1  # of what is written now; what a newer version has written is not read


def now() -> str:
    """The time of an event, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Journal:
    """Appends events to one file; every line is on disk before `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, event: str, /, **values: object) -> int:
        """Write one event, with its time (UTC); returns the journal's length in bytes after it."""
        line = json.dumps({"event": event, "time": now(), **values})
        is_new = not self.path.exists()
        with self.path.open("ab") as file:
            # A line torn by a crash must not swallow this one.
            torn = file.tell() > 0 and not _ends_with_newline(self.path)
            file.write((b"\n" if torn else b"") + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            length = file.tell()
        if is_new:
            sync_folder(self.path.parent)
        return length


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """The whole events from byte `offset` on, and the offset after them. A torn line is passed over."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    whole = whole_lines(data)
    return parse_events(whole), offset + len(whole)


def whole_lines(data: bytes) -> bytes:
    """A journal's bytes up to its last whole line."""
    return data[: data.rfind(b"\n") + 1]


def parse_events(lines: bytes) -> list[Event]:
    """The events of a journal's lines. A line that is none, torn by a crash or damaged, is passed over."""
    texts = [line for line in lines.split(b"\n") if line]
    try:
        # All at once takes half the time of one by one; where a line is damaged, the slow way tells which.
        events: list[Event] = json.loads(b"[" + b",".join(texts) + b"]")
    except ValueError:
        events = list(_parsed(texts))
    if len(events) != len(texts) or not all(isinstance(event, dict) for event in events):
        events = list(_parsed(texts))
    for event in events:
        refuse_newer(event)
    return events


def refuse_newer(record: Event) -> None:
    """Raise KnobError for what a newer version has written, which may mean something else by it."""
    if (schema := record.get("schema", SCHEMA)) > SCHEMA:
        raise KnobError(
            f"a newer version of ablate has written here (journals of schema {schema}; this one reads up to {SCHEMA}): "
            "update ablate, or name another folder with runs="
        )


def _parsed(texts: list[bytes]) -> Iterator[Event]:
    for text in texts:
        try:
            event = json.loads(text)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


class Tail:
    """Reads a journal as it grows."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset

    def read(self) -> list[Event]:
        """The whole events since the last reading."""
        events, self.offset = read_events(self.path, self.offset)
        return events


def last_attempt(events: list[Event]) -> list[Event]:
    """The events since a trial was last started anew, as if it had never stopped; [] when it never was.

    Training that went on from a checkpoint measured again what came after it: the first measurement is dropped.
    """
    attempt: list[Event] = []
    for event in events:
        if event["event"] == "started":
            attempt = [event]
        elif event["event"] == "resumed":
            measured = count()
            attempt = [
                e
                for e in attempt
                if e["event"] not in FINAL_EVENTS and (e["event"] != "log" or next(measured) < event["kept"])
            ]
            attempt.append(event)
        elif attempt:
            attempt.append(event)
    return attempt


def logged(journal: bytes, size: int) -> int:
    """How many measurements of the last attempt lie in the first `size` bytes of a journal."""
    lines = whole_lines(journal[:size])
    return sum(event["event"] == "log" for event in last_attempt(parse_events(lines)))


def status(attempt: Sequence[Event]) -> str:
    """FINISHED, DIVERGED, FAILED, INTERRUPTED, or UNFINISHED where the journal breaks off."""
    finals = [e for e in attempt if e["event"] in FINAL_EVENTS]
    # What is finished stays so: who stopped the study, or saw its process die, may have written after it.
    last = next((e for e in finals if e["event"] == "finished"), finals[-1] if finals else None)
    if last is None:
        return "UNFINISHED"
    return str(last["status"]) if last["event"] == "finished" else str(last["event"]).upper()


class Folder:
    """Where things lie in the runs folder."""

    def __init__(self, runs: str | Path) -> None:
        self.root = Path(runs)

    def __str__(self) -> str:
        return str(self.root)

    def trial(self, fingerprint: str) -> Path:
        """The claims and the log of one trial."""
        return self.root / "trials" / folder_name(fingerprint[:16])

    def study(self, name: str) -> Path:
        """The journal of a study: one line a launch."""
        return self.root / "studies" / f"{name}.jsonl"

    def database(self) -> Path:
        """MLflow's SQLite store."""
        return self.root / "mlflow.db"

    def artifacts(self) -> Path:
        """MLflow's artifacts, when the store is the SQLite file."""
        return self.root / "artifacts"

    def mirror_lock(self, digest: str) -> Path:
        """Held by the one process that mirrors a study."""
        return self.root / "studies" / f"{digest[:16]}.lock"

    def latest(self) -> Path:
        """Holds the name of the study launched last; times of files may lie, a clock can be set back."""
        return self.root / "studies" / "latest"

    def studies(self) -> list[str]:
        """Names of all studies, sorted."""
        return sorted(path.stem for path in (self.root / "studies").glob("*.jsonl"))

    def newest_study(self) -> str | None:
        """Name of the study launched last; None when there is none."""
        try:
            name = self.latest().read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        return name or None

    def launch(self, study: str) -> Event | None:
        """The newest launch of a study; None when its journal holds none."""
        launches = [event for event in read_events(self.study(study))[0] if event["event"] == "launched"]
        return launches[-1] if launches else None

    def attempts(self, study: str, launch: Event) -> Iterator[list[Event]]:
        """The last attempt at each trial of a launch, in its order; [] where none was started."""
        from ablate.track.claims import read_trial

        for cell in launch["cells"]:
            for trial in cell["trials"]:
                yield last_attempt(read_trial(self.trial(trial["fingerprint"])))
