"""python -m ablate.track: follow a study, copy to MLflow what it lacks, migrate its store, delete files."""

from __future__ import annotations

import argparse
import shlex
from contextlib import suppress
from pathlib import Path

from filelock import Timeout
from rich.filesize import decimal

from ablate.address import refusal_of_address, without_secrets
from ablate.knobs import KnobError
from ablate.names import folder_name
from ablate.programs import as_program
from ablate.track.folder import Folder
from ablate.track.journal import read_events
from ablate.track.mlflow.client import in_one_line, tracking_uri
from ablate.track.mlflow.database import sqlite_file, upgrade_database
from ablate.track.mlflow.mirror import Mirror
from ablate.track.mlflow.study_run import digest
from ablate.track.prune import delete, size_of, unneeded
from ablate.track.watch import watch


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line asks for; what is wrong ends in one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m ablate.track", description=__doc__)
    parser.add_argument(
        "action",
        choices=_ACTIONS,
        help="sync: copy what is missing; upgrade: migrate a SQLite store to the installed MLflow, and keep a copy; "
        "prune: say what nothing needs any more, and with --delete delete it; watch: follow a study that "
        "trains",
    )
    parser.add_argument("study", nargs="?", help="with watch: its name (default: the study launched last)")
    parser.add_argument("--runs", default="runs", help="folder of the journals (default: %(default)s)")
    parser.add_argument("--uri", help="MLflow tracking URI (default: the SQLite store of the runs folder)")
    parser.add_argument("--delete", action="store_true", help="with prune: delete what it lists")
    options = parser.parse_args(arguments)
    with as_program("ablate.track"):
        _refuse_what_does_not_go_together(options)
        _ACTIONS[options.action](Folder(options.runs), options)


def _refuse_what_does_not_go_together(options: argparse.Namespace) -> None:
    if options.delete and options.action != "prune":
        raise KnobError(f"--delete: is for prune; {options.action} deletes nothing")
    if options.study is not None and options.action != "watch":
        raise KnobError(f"{options.study}: {options.action} takes no study; it is for all of the runs folder")
    if options.uri is not None and (refusal := refusal_of_address(options.uri)) is not None:
        raise KnobError(f"--uri {without_secrets(options.uri)}: {refusal}")


def sync(folder: Folder, options: argparse.Namespace) -> None:
    """Bring MLflow up to date with every launch of every study; what it holds already is not copied again."""
    studies = folder.studies()
    if not studies:
        raise KnobError(f"no study in {folder.root}; start one with python -m ablate")
    for study in studies:
        # Of launches that share a run of the study's, the newest.
        recorded = (event for event in read_events(folder.study(study))[0] if event["event"] == "launched")
        launches = {digest(launched): launched for launched in recorded}
        refused: list[str] = []
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
            except KnobError:
                raise
            except Exception as error:
                raise KnobError(f"MLflow is not reachable ({in_one_line(error)})") from error
            refused += mirror.refused()
        print(f"{study}: done" + (f" but for {', '.join(refused)}, which MLflow refuses" if refused else ""))


def upgrade(folder: Folder, options: argparse.Namespace) -> None:
    """Migrate a SQLite store that an older MLflow has made."""
    uri = tracking_uri(folder, options.uri)
    path = sqlite_file(uri)
    if path is None:
        shown = without_secrets(uri)
        raise KnobError(f"{shown}: not a SQLite file; back the database up, then type mlflow db upgrade {shown}")
    if not path.is_file():
        raise KnobError(f"{path}: there is no such file")
    try:
        kept = upgrade_database(path)
    except KnobError:
        raise
    except Exception as error:  # another process writes to it, the disk is full, a migration fails
        raise KnobError(f"{path}: as it was, for it could not be migrated ({in_one_line(error)})") from error
    print(f"{path}: nothing to migrate" if kept is None else f"{path}: migrated; as it was, it is in {kept}")


def prune(folder: Folder, options: argparse.Namespace) -> None:
    """Say what nothing needs any more, and why; delete it where that is asked for."""
    if not folder.root.is_dir():
        raise KnobError(f"{folder}: there is no such folder; name the folder of the journals, --runs runs")
    found = list(unneeded(folder))
    for each in found:
        what = "all of it" if [*each.paths] == [each.trial] else f"{len(each.paths)} files"
        print(f"{each.trial}: {what}, {decimal(size_of(each.paths))}: {each.why}")
    total = size_of([path for each in found for path in each.paths])
    if not found:
        print(f"{folder}: nothing that is not needed")
    elif not options.delete:
        typed = f"python -m ablate.track prune --runs {shlex.quote(str(folder))} --delete"
        print(f"{decimal(total)} could be deleted: {typed}")
    else:
        deleted = delete(found)
        left = len(found) - len(deleted)
        print(f"{decimal(total)} deleted" + (f"; {left} left to processes that have them" if left else ""))


def follow(folder: Folder, options: argparse.Namespace) -> None:
    """Say what a study's trials do, as they do it; Ctrl-C ends that, and nothing else."""
    with suppress(KeyboardInterrupt):
        watch(folder, options.study, lambda line: print(line, flush=True))


_ACTIONS = {"sync": sync, "upgrade": upgrade, "prune": prune, "watch": follow}


if __name__ == "__main__":
    main()
