"""Checkpoints: whole on disk or not there, and believed only when their bytes are the ones that were written.

Three kinds lie in a trial's folder, each named <kind>-<window>-<sha256>.pt: `state` holds all that training needs to
go on as if it had never stopped, `best` the weights that validated best, `last` those at the end. While a trial is
trained the last two states are kept: when the last is damaged, the one before it serves. Once it is finished they go.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ablate.disk import sync
from ablate.train.examples import EXAMPLES

Payload = dict[str, Any]

FILES = "files"  # the folder of a user's function for files of its own

_KINDS = ("state", "best", "last")
_STATES_KEPT = 2
_NAME = re.compile(r"(?P<kind>state|best|last)-(?P<window>\d{10})-(?P<sha256>[0-9a-f]{64})\.pt")


class Damaged(Exception):
    """A checkpoint cannot be used; the message says why."""


class _Saved(NamedTuple):
    kind: str
    window: int
    sha256: str
    path: Path


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one trial.

    Args:
        folder: where they are written; nobody else writes there.
        fingerprint: the trial's; a state that another configuration left is refused.
        earlier: folders in which earlier processes have left states of the same attempt, the newest first.
    """

    folder: Path
    fingerprint: str
    earlier: Sequence[Path] = ()

    def save(self, window: int, state: Payload) -> None:
        """Keep the state after `window` windows, and drop what is older than the last two."""
        self._write("state", window, state | {"fingerprint": self.fingerprint})
        self._prune()

    def save_best(self, window: int, weights: Payload) -> None:
        """Keep weights that validated better than all before them."""
        self._write("best", window, weights)

    def save_last(self, window: int, weights: Payload) -> None:
        """Keep the weights at the end of training."""
        self._write("last", window, weights)

    def last(self) -> Payload:
        """The weights at the end of training. Raises Damaged when they are not there, or not whole."""
        for saved in self._all("last"):
            return self._read(saved)
        raise Damaged("training has not come to its end")

    def newest(self, journal_bytes: int, last_window: int | None = None) -> tuple[Payload | None, list[str]]:
        """The newest state that can be used (None: start anew), and why newer ones cannot.

        Args:
            journal_bytes: length of the trial's journal; a state that is ahead of it belongs to another one.
            last_window: of states after later windows nothing is asked.
        """
        refused = []
        for saved in reversed([s for s in self._left("state") if last_window is None or s.window <= last_window]):
            try:
                state = self._read(saved)
                if state.get("fingerprint") != self.fingerprint:
                    raise Damaged("it belongs to another configuration")
                if state["journal_bytes"] > journal_bytes:
                    raise Damaged("it is ahead of the journal")
                if state["best_window"] is not None:
                    self._read(self._best(state["best_window"]))
            except Damaged as error:
                refused.append(f"{saved.path.name}: {error}")
            else:
                return state, refused
        return None, refused

    def take_over(self, state: Payload) -> None:
        """Have in the own folder, and nowhere else, what training needs to go on from a state.

        Who left it may not be dead yet; and a trial that is stopped often leaves no states behind each time.
        """
        if state["best_window"] is not None:
            _link(self._best(state["best_window"]).path, self.folder)
        for saved in self._left("state"):
            if saved.window == state["window"]:
                _link(saved.path, self.folder)
        for saved in (saved for folder in self.earlier if folder != self.folder for saved in _all(folder, "state")):
            saved.path.unlink(missing_ok=True)

    def _left(self, kind: str) -> list[_Saved]:
        """What earlier processes have left as well, oldest first; of equal windows the newer folder's last."""
        folders = [*reversed(self.earlier), self.folder]
        return sorted((s for folder in folders for s in _all(folder, kind)), key=lambda s: s.window)

    def _best(self, window: int) -> _Saved:
        for saved in reversed(self._left("best")):
            if saved.window == window:
                return saved
        raise Damaged(f"the best weights, of window {window}, are missing")

    def best(self, window: int) -> Payload:
        """The best weights, as saved after `window` windows. Raises Damaged when they are not there, or not whole."""
        return self._read(self._best(window))

    def newest_best(self) -> Payload:
        """The best weights of a trial that is over. Raises Damaged when they are not there, or not whole."""
        saved = self._all("best") or self._all("last")
        if not saved:
            raise Damaged("its weights are missing")
        return self._read(saved[-1])

    def finish(self) -> None:
        """The result is written down: the best and the last weights stay, all else goes."""
        for saved in (*self._all("state"), *self._all("best")[:-1]):
            saved.path.unlink(missing_ok=True)
        self._drop_leftovers()

    def clear(self) -> None:
        """Drop everything: the trial starts anew."""
        for saved in (saved for kind in _KINDS for saved in self._all(kind)):
            saved.path.unlink(missing_ok=True)
        for path in (self.folder / EXAMPLES, *self.folder.glob("*_each.npy")):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder / FILES, ignore_errors=True)
        self._drop_leftovers()

    def drop_after(self, window: int) -> None:
        """Drop what was saved after `window` windows, and the last weights: training makes them again."""
        for saved in (*self._all("state"), *self._all("best")):
            if saved.window > window:
                saved.path.unlink(missing_ok=True)
        for saved in self._all("last"):
            saved.path.unlink(missing_ok=True)

    def _all(self, kind: str) -> list[_Saved]:
        return _all(self.folder, kind)

    def _write(self, kind: str, window: int, payload: Payload) -> None:
        new = self.folder / f"{kind}.tmp{os.getpid()}"
        try:
            with new.open("wb") as file:
                torch.save(_owned(payload), file)
                file.flush()
                os.fsync(file.fileno())
            sha256 = _sha256(new)
            place = self.folder / f"{kind}-{window:010d}-{sha256}.pt"
            os.replace(new, place)
        except BaseException:
            new.unlink(missing_ok=True)  # a full disk is not made fuller
            raise
        sync(self.folder)
        for same in self.folder.glob(f"*-{sha256}.pt"):
            _share(place, same)

    def _read(self, saved: _Saved) -> Payload:
        try:
            if _sha256(saved.path) != saved.sha256:
                raise Damaged("its bytes are not the ones that were written (SHA-256)")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is refused in the same breath
                # weights_only: tensors and plain values; pickled code is refused.
                payload = torch.load(saved.path, map_location="cpu", weights_only=True)
        except Damaged:
            raise
        except Exception as error:
            raise Damaged(f"{type(error).__name__}: {error}".splitlines()[0]) from error
        if not isinstance(payload, dict):
            raise Damaged("it holds no state")
        return payload

    def _prune(self) -> None:
        """Keep the newest states, and the best weights that any of them refers to."""
        states, bests = self._all("state"), self._all("best")
        oldest_kept = states[-_STATES_KEPT:][0]
        # What the oldest kept state refers to is the newest best that is not younger than it.
        unused = [best for best in bests if best.window <= oldest_kept.window][:-1]
        for saved in (*states[:-_STATES_KEPT], *unused):
            saved.path.unlink(missing_ok=True)
        self._drop_leftovers()

    def _drop_leftovers(self) -> None:
        """Half-written files of a process that was killed; the folder is this process' own."""
        for path in self.folder.glob("*.tmp*"):
            path.unlink(missing_ok=True)


def _all(folder: Path, kind: str) -> list[_Saved]:
    """Oldest first."""
    matches = ((path, _NAME.fullmatch(path.name)) for path in folder.glob(f"{kind}-*.pt"))
    return sorted(
        _Saved(kind, int(match["window"]), match["sha256"], path) for path, match in matches if match is not None
    )


def _link(file: Path, folder: Path) -> None:
    """The same file in another folder, without a second copy of its bytes where the file system can do that."""
    there = folder / file.name
    if there.exists():  # the same bytes, by its name
        return
    try:
        os.link(file, there)
    except OSError:
        shutil.copy2(file, there)


def _share(file: Path, same: Path) -> None:
    """Weights that are both the best and the last are kept once, under two names, where the file system can do that."""
    if same == file:
        return
    name = same.with_name(f"{same.name}.tmp{os.getpid()}")
    with suppress(OSError):
        os.link(file, name)
        os.replace(name, same)


def _owned(value: Any) -> Any:
    """The same, every tensor with memory of its own: of a slice, torch.save writes the whole that it is cut from."""
    if isinstance(value, Mapping):
        return {key: _owned(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_owned(each) for each in value)
    if isinstance(value, torch.Tensor) and value.untyped_storage().nbytes() > value.nbytes:
        return value.detach().clone()
    return value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
