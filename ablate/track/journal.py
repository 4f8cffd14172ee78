"""Journals: append-only JSON lines, one event a line. What they say is the truth; MLflow mirrors it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from ablate.disk import sync
from ablate.knobs import KnobError

Event = dict[str, Any]

JOURNAL = "journal.jsonl"
LOG = "trial.log"
FINAL_EVENTS = ("finished", "failed", "interrupted")
DONE = ("FINISHED", "DIVERGED")  # a status that is a result
SCHEMA = 1  # of what is written now; what a newer version has written is not read


def now() -> str:
    """The time of an event, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def to_line(event: Event) -> bytes:
    """An event as a line of a journal."""
    return json.dumps(event).encode() + b"\n"


def milliseconds(event: Event) -> int:
    """The time of an event, since 1970."""
    return int(datetime.fromisoformat(event["time"]).timestamp() * 1000)


class Journal:
    """Appends events to one file; every line is on disk before `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: str, /, **values: object) -> int:
        """Write one event, with its time (UTC); returns the journal's length in bytes after it."""
        line = to_line({"event": event, "time": now(), **values})
        with self._open() as file:
            is_new = file.seek(0, os.SEEK_END) == 0
            # A line torn by a crash must not swallow this one.
            file.write((b"" if is_new or _ends_with_newline(file) else b"\n") + line)
            file.flush()
            os.fsync(file.fileno())
            length = file.tell()
        if is_new:
            sync(self.path.parent)
        return length

    def _open(self) -> BinaryIO:
        # Its folder is nearly always there: on a file server every look for it counts.
        try:
            return self.path.open("a+b")
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self.path.open("a+b")


def _ends_with_newline(file: BinaryIO) -> bool:
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


def stands(attempt: Sequence[Event], results_of: Sequence[str] | None) -> bool:
    """Whether an attempt has a result that need not be made again; `results_of`: launches that it
    may be of; None: any."""
    return status(attempt) in DONE and (results_of is None or attempt[0].get("launch") in results_of)
