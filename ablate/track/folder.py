"""The runs folder: where things lie in it, and what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ablate.names import folder_name
from ablate.track.claims import read_trial
from ablate.track.journal import Event, last_attempt, read_events


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

    def names_lock(self) -> Path:
        """Held while a study takes a name."""
        return self.root / "studies" / "names.lock"

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
        for cell in launch["cells"]:
            for trial in cell["trials"]:
                yield last_attempt(read_trial(self.trial(trial["fingerprint"])))
