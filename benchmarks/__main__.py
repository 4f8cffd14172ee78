"""python -m benchmarks: run them, print their tables, and append these to RESULTS.md with --write."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from benchmarks.common import RESULTS, Table

# Name → modules with a function of this name. Imported late: `packs` has to run where torch and numpy are all there is.
BENCHMARKS = {
    "throughput": "throughput", "one_epoch": "one_epoch", "study": "study", "overhead": "study", "tracking": "study",
    "scaling": "scaling", "packs": "packs", "workers": "workers", "calibration": "calibration text_calibration",
    "report_scale": "report_scale", "scale": "scale", "pages": "pages", "equivalence": "pages", "real": "pages",
    "sources": "sources", "stopping": "stopping", "mirroring": "mirroring", "engines": "engines",
}  # fmt: skip
NEEDS_PEER = ("throughput", "one_epoch", "study")
NEEDS_RUNS = ("real",)


def main() -> None:
    """Run the benchmarks that are named; without a name, all that can be run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = list(BENCHMARKS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--peer", type=Path, help="folder word_language_model of a checkout of pytorch/examples")
    parser.add_argument("--runs", type=Path, help="folder of journals with a study of many seeds, for real")
    parser.add_argument("--rounds", type=int, default=3, help="times that each contestant has its turn (default: 3)")
    parser.add_argument(
        "--cells", type=int, help="cells of a study: of overhead (default: 1000), of engines (default: 200)"
    )
    parser.add_argument("--write", action="store_true", help="append the tables to RESULTS.md")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(names)):
        parser.error(f"no benchmark {', '.join(unknown)}; choose from {', '.join(names)}")
    peer = None if options.peer is None else options.peer.resolve()
    if peer is not None and not (peer / "main.py").exists():
        parser.error(f"--peer {peer}: holds no main.py; name the folder word_language_model")
    chosen = options.names or [
        name for name in names if (peer is not None or name not in NEEDS_PEER) and name not in NEEDS_RUNS
    ]
    if options.runs is None and set(chosen) & set(NEEDS_RUNS):
        parser.error("real: needs --runs PATH")
    if peer is None and set(chosen) & set(NEEDS_PEER):
        parser.error(f"{', '.join(n for n in chosen if n in NEEDS_PEER)}: needs --peer PATH")
    arguments = {
        "throughput": [peer, options.rounds],
        "one_epoch": [peer],
        "study": [peer, options.rounds],
        "overhead": [1, options.cells or 1000],
        "engines": [options.cells or 200],
        "tracking": [options.rounds],
        "mirroring": [options.rounds],
        "real": [options.runs],
        "packs": [options.rounds],
        "workers": [options.rounds],
    }
    for name in chosen:
        for module in BENCHMARKS[name].split():
            benchmark = getattr(import_module(f"benchmarks.{module}"), name)
            result: Table = benchmark(*arguments.get(name, []))
            table = result.markdown()
            print(table, flush=True)
            if options.write:
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write("\n" + table)


if __name__ == "__main__":
    main()
