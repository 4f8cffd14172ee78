"""python -m ablate.track sync: copy to MLflow what the journals hold and it does not."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from filelock import Timeout

from ablate.names import folder_name
from ablate.track.journal import Folder, read_events
from ablate.track.mlflow.mirror import Mirror
from ablate.track.mlflow.study_run import digest


def main(arguments: list[str] | None = None) -> None:
    """Bring MLflow up to date with every launch of every study; what it holds already is not copied again."""
    parser = argparse.ArgumentParser(prog="python -m ablate.track", description=__doc__)
    parser.add_argument("action", choices=["sync"], help="copy what is missing")
    parser.add_argument("--runs", default="runs", help="folder of the journals (default: %(default)s)")
    parser.add_argument("--uri", help="MLflow tracking URI (default: the SQLite store of the runs folder)")
    options = parser.parse_args(arguments)
    folder = Folder(options.runs)
    studies = folder.studies()
    if not studies:
        sys.exit(f"ablate.track: no study in {folder.root}; start one with python -m ablate")
    for study in studies:
        # Of launches that share a run of the study's, the newest.
        launches = {digest(launched): launched for launched in read_events(folder.study(study))[0]}
        for launched in launches.values():
            mirror = Mirror(folder, options.uri, launched, print)
            report = Path(launched["reports"], folder_name(study))
            if (report / "index.html").is_file():
                mirror.attach(report)
            try:
                mirror.sync()
            except Timeout:
                print(f"{study}: left to a study that is running and does it")
                continue
            except Exception as error:
                sys.exit(f"ablate.track: MLflow is not reachable ({type(error).__name__}: {error})".splitlines()[0])
        print(f"{study}: done")


if __name__ == "__main__":
    main()
