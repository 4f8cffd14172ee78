"""One process with a thread on every core, beside a process of one thread on each: `workers=auto` goes by this."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from ablate.engines.cores import cores
from ablate.train.machine import keep_memory, set_threads
from benchmarks.common import ROOT, Table, alternate, compose, program, spread
from benchmarks.scaling import speed
from benchmarks.throughput import SIZES, Size

_SIZES = [SIZES[0], replace(SIZES[0], name="LSTM-100, 4 layers", depth=4), SIZES[1]]
_WINDOWS = {100: 100, 650: 14}  # by hidden size: some ten seconds


def workers(rounds: int) -> Table:
    """Tokens a second of the whole machine, both ways."""
    rows = []
    for number, size in enumerate(_SIZES):
        contestants: dict[str, Callable[[], float]] = {
            "one": partial(_together, number, 1, cores()),
            "many": partial(_together, number, cores(), 1),
        }
        found = alternate(contestants, rounds)
        ratios = [many / one for one, many in zip(found["one"], found["many"], strict=True)]
        rows.append([size.name, spread(found["one"], 0), spread(found["many"], 0), spread(ratios)])
    return Table(
        title="One process on all cores, or one on each",
        command="python -m benchmarks workers",
        headings=["model", f"tokens/s, 1 × {cores()} threads", f"tokens/s, {cores()} × 1 thread", "ratio (range)"],
        rows=rows,
        note=f"Updates alone, on random words, in what `precision=auto` is; {rounds} rounds in turn, medians.",
    )


def _together(number: int, processes: int, threads: int) -> float:
    """Tokens a second of so many processes at once."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(program(["-m", "benchmarks.workers", str(number), str(threads)], ROOT))
            for _ in range(processes)
        ]
        return sum(float(printed.read()) for _, printed in started)


def _alone(size: Size, threads: int) -> float:
    knobs = compose(f"hidden={size.hidden}", f"depth={size.depth}", f"tie={size.tie}", f"dropout={size.dropout}")
    set_threads(threads)
    keep_memory()
    return speed(knobs, 10_000, 1_000_000, _WINDOWS[size.hidden])


if __name__ == "__main__":
    print(_alone(_SIZES[int(sys.argv[1])], int(sys.argv[2])))
