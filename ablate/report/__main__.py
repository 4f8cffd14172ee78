"""python -m ablate.report [STUDY]: write a study's report again from what was recorded."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ablate.config import KnobError
from ablate.report import write_report
from ablate.track.journal import Folder
from ablate.track.read import read_study


def main(arguments: list[str] | None = None) -> None:
    """Write the report and print where it is; a study that does not exist is told in one line."""
    parser = argparse.ArgumentParser(prog="python -m ablate.report", description=__doc__)
    parser.add_argument("study", nargs="?", help="name of the study; default: the one launched last")
    parser.add_argument("--runs", default="runs", help="folder of the journals (default: %(default)s)")
    parser.add_argument("--reports", default="reports", help="folder to write to (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        report = write_report(read_study(Folder(options.runs), options.study), Path(options.reports))
    except KnobError as error:
        sys.exit(f"ablate.report: {error}")
    print(report.table.to_string(index=False))
    for warning in report.warnings:
        print(f"note: {warning}")
    print(f"report: {report.page}")


if __name__ == "__main__":
    main()
