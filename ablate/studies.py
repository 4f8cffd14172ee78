"""python -m ablate.studies: what is in the runs folder, what each study still needs; rename and delete studies."""

from __future__ import annotations

import argparse
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from ablate.disk import replacing
from ablate.knobs import KnobError
from ablate.launch import STUDY_NAME
from ablate.output import make_console
from ablate.programs import as_program
from ablate.registry import suggest
from ablate.track.claims import holder, read_trial
from ablate.track.folder import Folder
from ablate.track.journal import Event, last_attempt, read_events, status, to_line
from ablate.track.mlflow.study_run import delete_study, rename_study
from ablate.track.process import is_dead
from ablate.track.prune import size_of

_DONE = ("FINISHED", "DIVERGED")


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line asks for; what is wrong ends in one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m ablate.studies", description=__doc__)
    parser.add_argument("--runs", default="runs", help="folder of the journals (default: %(default)s)")
    parser.add_argument("--uri", help="MLflow tracking URI, for rename and delete (default: the runs folder's SQLite)")
    actions = parser.add_subparsers(dest="action", metavar="{list,show,rename,delete}")
    actions.add_parser("list", help="every study: cells, trials done, when it was launched, size (the default)")
    shown = actions.add_parser("show", help="the cells of a study, and the command that finishes it")
    shown.add_argument("study", metavar="STUDY")
    renamed = actions.add_parser("rename", help="give a study another name, in MLflow too")
    renamed.add_argument("study", metavar="STUDY")
    renamed.add_argument("new", metavar="NEW")
    deleted = actions.add_parser("delete", help="forget a study and its runs in MLflow")
    deleted.add_argument("study", metavar="STUDY")
    deleted.add_argument("--yes", action="store_true", help="do it; without it, only say what would be deleted")
    options = parser.parse_args(arguments)
    with as_program("ablate.studies"):
        _ACTIONS[options.action or "list"](Folder(options.runs), options)


@dataclass(frozen=True)
class _State:
    """How far the newest launch of a study has come.

    Attributes:
        statuses: cell → the status of each of its trials, RUNNING where a process has it.
    """

    launch: Event
    statuses: dict[str, list[str]]
    trials: Sequence[Path]

    @property
    def counts(self) -> Counter[str]:
        return Counter(status for of_cell in self.statuses.values() for status in of_cell)

    @property
    def is_running(self) -> bool:
        return self.counts["RUNNING"] > 0

    def told(self) -> str:
        """For example: "4 of 6 done, 1 failed"."""
        counts = self.counts
        done = sum(counts[name] for name in _DONE)
        rest = [f"{n} {name.lower()}" for name, n in counts.items() if name not in (*_DONE, "UNFINISHED")]
        return ", ".join([f"{done} of {sum(counts.values())} done", *rest])


def _state(folder: Folder, study: str) -> _State | None:
    """None for a study that was never launched."""
    launch = folder.launch(study)
    if launch is None:
        return None
    places = {
        cell["label"]: [folder.trial(trial["fingerprint"]) for trial in cell["trials"]] for cell in launch["cells"]
    }
    statuses = {label: [_status(place) for place in of_cell] for label, of_cell in places.items()}
    return _State(launch, statuses, [place for of_cell in places.values() for place in of_cell])


def _status(trial: Path) -> str:
    found = status(last_attempt(read_trial(trial)))
    if found in _DONE:
        return found
    claim = holder(trial)
    return "RUNNING" if claim is not None and not claim.is_over else found


def list_studies(folder: Folder, options: argparse.Namespace) -> None:
    """A row a study, the one launched last at the end."""
    states = {study: state for study in _known(folder) if (state := _state(folder, study)) is not None}
    rows = [
        (
            study,
            str(len(state.statuses)),
            state.told(),
            str(state.launch["time"])[:16].replace("T", " "),
            decimal(size_of(state.trials)),
        )
        for study, state in sorted(states.items(), key=lambda item: str(item[1].launch["time"]))
    ]
    _print_table(["study", "cells", "trials", "launched (UTC)", "on disk"], rows)
    print(
        f"python -m ablate.studies{_runs(folder)} show STUDY says what it needs; trials that several studies share "
        "count for each"
    )


def show(folder: Folder, options: argparse.Namespace) -> None:
    """A row a cell, and what to type."""
    study = _chosen(folder, options.study)
    state = _launched(folder, study)
    rows = [
        (label, ", ".join(f"{n} {name.lower()}" for name, n in Counter(of_cell).items()))
        for label, of_cell in state.statuses.items()
    ]
    _print_table(["cell", "trials"], rows)
    print(f"study {study}: {state.told()}")
    if state.is_running:
        print("it is running")
    elif sum(state.counts[name] for name in _DONE) < sum(state.counts.values()):
        print(f"to finish it: {state.launch['command']}")
    print(f"its report: python -m ablate.report {shlex.quote(study)}{_runs(folder)}")


def rename(folder: Folder, options: argparse.Namespace) -> None:
    """Give a study another name."""
    study, new = _chosen(folder, options.study), options.new
    if not re.fullmatch(STUDY_NAME, new):
        raise KnobError(f"{new}: a name has at most 100 letters, digits, '.', '_' and '-', for example my-study")
    with FileLock(folder.names_lock()):
        if new in folder.studies():
            raise KnobError(f"{new}: there is such a study already; choose another name")
        _refuse_running(folder, study)
        events = [_renamed(event, new) for event in read_events(folder.study(study))[0]]
        with replacing(folder.study(new)) as file:
            file.writelines(to_line(event) for event in events)
        folder.study(study).unlink()
        if folder.newest_study() == study:
            with replacing(folder.latest()) as file:
                file.write(new.encode())
    told = [f"{study} is now {new}"]
    old = [event for event in read_events(folder.study(new))[0] if event["event"] == "launched"]
    if rename_study(folder, options.uri, study, old):
        told.append("in MLflow too")
    told.append(f"python -m ablate.report {new}{_runs(folder)} writes its report; the one under the old name stays")
    print("; ".join(told))


def delete(folder: Folder, options: argparse.Namespace) -> None:
    """Forget a study; what its trials left on disk goes with `python -m ablate.track prune --delete`."""
    study = _chosen(folder, options.study)
    _refuse_running(folder, study)
    if not options.yes:
        print(f"would be deleted: {folder.study(study)}, its runs in MLflow; add --yes")
        return
    launches = [event for event in read_events(folder.study(study))[0] if event["event"] == "launched"]
    with FileLock(folder.names_lock()):
        delete_study(folder, options.uri, launches)
        folder.study(study).unlink()
        if folder.newest_study() == study:
            folder.latest().unlink()
    print(
        f"{study} is deleted, its report stays; python -m ablate.track prune{_runs(folder)} lists the trials that "
        "nothing needs now"
    )


_ACTIONS = {"list": list_studies, "show": show, "rename": rename, "delete": delete}


def _known(folder: Folder) -> list[str]:
    if found := folder.studies():
        return found
    raise KnobError(f"no study in {folder}; start one with python -m ablate")


def _chosen(folder: Folder, study: str) -> str:
    known = _known(folder)
    if study not in known:
        raise KnobError(f"no study {study!r}{suggest(study, known)} in {folder}; there are {', '.join(known)}")
    return study


def _launched(folder: Folder, study: str) -> _State:
    state = _state(folder, study)
    if state is None:
        raise KnobError(f"{study}: was never launched; start it again, or delete {folder.study(study)}")
    return state


def _refuse_running(folder: Folder, study: str) -> None:
    state = _launched(folder, study)
    last = read_events(folder.study(study))[0][-1]
    # Between two trials nobody has one: then the process of the launch says whether it has ended.
    is_open = last["event"] == "launched" and "process" in last and is_dead(last["process"]) is False
    if state.is_running or is_open:
        raise KnobError(f"{study}: is running; stop it, or wait until it has ended")


def _renamed(event: Event, new: str) -> Event:
    """An event of a study's journal under another name; the command that is recorded gives that name."""
    if event["event"] != "launched":
        return event
    command = re.sub(r"\s\+*name=\S+", "", event["command"])
    return event | {"study": new, "command": f"{command} name={new}"}


def _runs(folder: Folder) -> str:
    """The option that names the runs folder, where it has to be named."""
    return "" if folder.root == Path("runs") else f" --runs {shlex.quote(str(folder))}"


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(value) for value in row))
    make_console().print(table)


if __name__ == "__main__":
    main()
