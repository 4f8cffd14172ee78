"""python -m ablate.report [STUDY ...]: write a study's report again from what was recorded, or one of several."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ablate.knobs import KnobError
from ablate.programs import as_program
from ablate.report import write_report
from ablate.track.read import read_studies
from ablate.track.sources import open_source


def main(arguments: list[str] | None = None) -> None:
    """Write the report and print where it is; what is wrong with a command is told in one line."""
    parser = argparse.ArgumentParser(prog="python -m ablate.report", description=__doc__)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help="its name; default: the one launched last")
    parser.add_argument(
        "--runs", action="append", metavar="FOLDER", help="folder of the journals (default: runs); may be repeated"
    )
    parser.add_argument(
        "--store",
        action="append",
        metavar="URI",
        help="MLflow store, sqlite:///… or http://…, instead or beside; may be repeated: studies are looked for in all",
    )
    parser.add_argument("--reports", default="reports", help="folder to write to (default: %(default)s)")
    parser.add_argument("--baseline", metavar="LABEL", help="the cell that the others are compared with")
    parser.add_argument("--worth", help="the smallest difference that matters, 1%% or 0.5 (default: what was launched)")
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="CELL=NAME",
        help='display name of a cell, what follows the last "=": "depth=1 tie=true=Our model"; may be repeated',
    )
    parser.add_argument(
        "--columns",
        type=lambda text: [name.strip() for name in text.split(",")],
        metavar="NAME,NAME,...",
        help="of the comparison in Markdown and LaTeX, in this order, by the first words of the page's headings: "
        "cell,n,test,difference,verdict",
    )
    parser.add_argument("--digits", metavar="N", help="decimals of the Markdown and LaTeX tables (default: by size)")
    options = parser.parse_args(arguments)
    with as_program("ablate.report"):
        _report(options)


def _report(options: argparse.Namespace) -> None:
    labels, digits = _labels(options.label), _digits(options.digits)
    source = open_source(options.runs, options.store)
    results = read_studies(source, options.studies, options.worth, labels)
    report = write_report(results, Path(options.reports), options.baseline, options.columns, digits)
    print(report.table.to_string(index=False))
    for sentence in report.findings:
        print(sentence)
    for warning in report.warnings:
        print(f"note: {warning}")
    print(f"report: {report.page}")


def _labels(typed: list[str]) -> dict[str, str]:
    """Cell → display name."""
    labels: dict[str, str] = {}
    for text in typed:
        cell, equals, name = text.rpartition("=")
        if not equals:
            raise KnobError(f'--label "{text}": must be CELL=NAME, for example --label "{text}=Our model"')
        if cell in labels:
            raise KnobError(f'--label "{text}": {cell!r} has the name {labels[cell]!r} already; give it one')
        labels[cell] = name
    return labels


def _digits(text: str | None) -> int | None:
    if text is not None and not re.fullmatch("[0-6]", text):
        raise KnobError(f"--digits={text}: must be a whole number from 0 to 6, for example 1")
    return None if text is None else int(text)


if __name__ == "__main__":
    main()
