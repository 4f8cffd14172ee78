"""Where studies were recorded: a runs folder, an MLflow store, or several of these as one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from ablate.knobs import KnobError
from ablate.track.folder import Folder
from ablate.track.journal import Event
from ablate.track.mlflow.store import Store


class Source(Protocol):
    """Where studies were recorded: `Folder` (journals), `Store` (MLflow) or `Several`. str() of it says where."""

    def studies(self) -> list[str]:
        """Names of all studies, sorted."""
        ...

    def newest_study(self) -> str | None:
        """Name of the study launched last; None when there is none."""
        ...

    def launch(self, study: str) -> Event | None:
        """The newest launch of a study; None when it was never launched."""
        ...

    def attempts(self, study: str, launch: Event) -> Iterator[list[Event]]:
        """The last attempt at each trial of a launch, in its order; [] where none was started."""
        ...


class Several:
    """Sources, each of which holds studies of its own: a study is looked for in all of them.

    Raises:
        KnobError: from every method, for a source without a study; for a study that is asked for and is in two of them.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def __str__(self) -> str:
        return ", ".join(str(source) for source in self._sources)

    def studies(self) -> list[str]:
        """Names of all studies, sorted."""
        return sorted({study for source in self._sources for study in _studies(source)})

    def newest_study(self) -> str | None:
        """Name of the study launched last, by the clocks of the machines that launched them."""
        newest = {study: self.launch(study) for source in self._sources if (study := source.newest_study()) is not None}
        return max(newest, key=lambda study: str((newest[study] or {}).get("time", "")), default=None)

    def launch(self, study: str) -> Event | None:
        """The newest launch of a study; None when it was never launched."""
        return self._of(study).launch(study)

    def attempts(self, study: str, launch: Event) -> Iterator[list[Event]]:
        """The last attempt at each trial of a launch, in its order; [] where none was started."""
        return self._of(study).attempts(study, launch)

    def _of(self, study: str) -> Source:
        """The one source that has a study."""
        found = [source for source in self._sources if study in _studies(source)]
        if len(found) == 1:
            return found[0]
        renaming = next((_renaming(source, study) for source in found if isinstance(source, Folder)), "")
        where = " and in ".join(str(source) for source in found)
        raise KnobError(f"the study {study!r} is in {where}; leave out all but one{renaming}")


def open_source(
    runs: str | Path | Sequence[str | Path] | None = None, store: str | Sequence[str] | None = None
) -> Source:
    """Runs folders, MLflow stores at their addresses, or both; where neither is named, the folder `runs`.

    Raises:
        KnobError: when one is named twice, or an address is none.
    """
    folders = [runs] if isinstance(runs, str | Path) else [*(runs or ())]
    stores = [store] if isinstance(store, str) else [*(store or ())]
    sources: list[Source] = [*map(Folder, folders), *map(Store, stores)]
    places = [*(str(Path(folder).resolve()) for folder in folders), *stores]
    for source, place in zip(sources, places, strict=True):
        if places.count(place) > 1:
            raise KnobError(f"{source}: named twice; name each runs folder and each store once")
    if not sources:
        return Folder("runs")
    return sources[0] if len(sources) == 1 else Several(sources)


def _studies(source: Source) -> list[str]:
    studies = source.studies()
    if not studies:
        raise KnobError(f"no study in {source}; leave it out, or name another place")
    return studies


def _renaming(folder: Folder, study: str) -> str:
    command = ["python", "-m", "ablate.studies", "--runs", str(folder), "rename", study, f"{study}-2"]
    return f", or give it another name in one of them: {shlex.join(command)}"
