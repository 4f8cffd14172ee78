"""Wall time of a whole study, from the command to the report, beside other ways to get the same cells trained."""

from __future__ import annotations

import json
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from itertools import product
from pathlib import Path

from ablate.tasks.language_model.config import Config
from ablate.tasks.language_model.data import load_corpus
from ablate.tasks.language_model.schedule import validation_windows
from benchmarks.common import Table, alternate, compose, precisions_of, run, spread
from benchmarks.throughput import commit

_GRID = ["-m", "depth=1,2,4", "tie=true,false"]  # README's first command


def study(peer: Path, rounds: int) -> Table:
    """README's first command beside a shell loop over the peer."""
    training: list[float] = []
    knobs = compose()
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch)
        _write_text(text, knobs)
        contestants: dict[str, Callable[[], float]] = {
            "ablate": lambda: _ours(training=training),
            "shell loop over word_language_model": lambda: _shell_loop(peer, text, knobs),
        }
        if "bf16" in precisions_of("cpu"):
            contestants["ablate, fp32"] = lambda: _ours("precision=fp32")
        times = alternate(contestants, rounds)
    ours = times["ablate"]
    rows = [
        [name, spread(seconds, 0), spread([theirs / mine for theirs, mine in zip(seconds, ours, strict=True)])]
        for name, seconds in times.items()
    ]
    return Table(
        title="The study of README's first command",
        command="python -m benchmarks study --peer PATH",
        headings=["program", "seconds (range)", "times ours (range)"],
        rows=rows,
        note=f"{' '.join(_GRID)} on the King James Bible: six cells, {knobs.windows:,} windows of {_tokens(knobs)} "
        f"tokens each, Adam, {knobs.hidden} units; ours validates {_validations(knobs)} times, "
        f"tests, and writes MLflow's store and the report; word_language_model ({commit(peer)}, --use-optimizer) reads "
        f"the same {knobs.train_tokens:,} tokens {_epochs(knobs)} times, validates after each and tests once. "
        f"{rounds} round{'s' if rounds > 1 else ''} in turn, medians. Of ours, {_share(training, ours):.1%} are before "
        "the first training starts or after the last has ended.",
    )


def _ours(*more: str, training: list[float] | None = None) -> float:
    with tempfile.TemporaryDirectory() as folder:
        seconds, _ = run(["-m", "ablate", *_GRID, *more], Path(folder))
        if training is not None:
            training.append(_training_seconds(Path(folder)))
        return seconds


def _training_seconds(folder: Path) -> float:
    """From the first trial's start to the last one's end, as the journals say."""
    events = [json.loads(line) for path in folder.glob("runs/trials/*/*/journal.jsonl") for line in path.open()]
    times = {
        kind: [datetime.fromisoformat(e["time"]).timestamp() for e in events if e["event"] == kind]
        for kind in ("started", "finished")
    }
    return max(times["finished"]) - min(times["started"])


def _share(training: list[float], whole: list[float]) -> float:
    return statistics.median(1 - t / w for t, w in zip(training, whole, strict=True))


def _tokens(knobs: Config) -> int:
    return knobs.batch * knobs.window


def _epochs(knobs: Config) -> int:
    """Passes of the peer, which counts in epochs, that come nearest to our windows."""
    assert knobs.windows is not None, "the quick recipe has it"
    assert knobs.train_tokens is not None, "the quick recipe has it"
    return round(knobs.windows * _tokens(knobs) / knobs.train_tokens)


def _validations(knobs: Config) -> int:
    return len(validation_windows(knobs, 1))


def _shell_loop(peer: Path, text: Path, knobs: Config) -> float:
    """What a user types who has the peer alone."""
    lines = []
    for depth, tie in product((1, 2, 4), (True, False)):
        size = knobs.hidden
        sizes = f"--emsize {size} --nhid {size} --nlayers {depth} --dropout 0 {'--tied' if tie else ''}"
        steps = f"--batch_size {knobs.batch} --bptt {knobs.window} --epochs {_epochs(knobs)}"
        recipe = f"--use-optimizer --lr {knobs.lr} --clip {knobs.clip} {steps}"
        program = shlex.join([sys.executable, str(peer / "main.py")])
        lines.append(f"{program} --data {shlex.quote(str(text))} --save model.pt {sizes} {recipe}")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "loop.py")
        script.write_text(f"import subprocess\nsubprocess.run({' && '.join(lines)!r}, shell=True, check=True)\n")
        return run([str(script)], Path(folder))[0]


def _write_text(folder: Path, knobs: Config) -> None:
    """The King James Bible as ours reads it, cut to the same slice, in the files that the peer reads."""
    corpus = load_corpus(knobs.data)
    splits = {"train": corpus.train[: knobs.train_tokens], "valid": corpus.valid, "test": corpus.test}
    for name, ids in splits.items():
        words = " ".join(corpus.words[i] for i in ids)
        (folder / f"{name}.txt").write_text(words.replace(" <eos>", "\n").replace("\n ", "\n"), encoding="utf-8")


_TINY = [
    "data=synthetic", "data.vocab_size=50", "data.tokens=2000", "data.eval_tokens=500", "hidden=8", "batch=4",
    "window=5", "train_tokens=null", "windows=2", "valid_every=2", "eval_batch=10", "eval_window=20", "sample_words=0",
]  # fmt: skip


def overhead(rounds: int, cells: int) -> Table:
    """What the framework itself costs: a cell of a study in which next to nothing is trained."""
    few, many = max(2, cells // 10), cells
    rows = []
    for name, more in (("journals alone", ["tracking=off"]), ("journals and MLflow", [])):
        per_cell = []
        for _ in range(rounds):
            fixed, whole = (_tiny_study(n, more) for n in (few, many))
            per_cell.append(1000 * (whole - fixed) / (many - few))
        rows.append([name, f"{many:,}", f"{whole:.0f}", spread(per_cell, 0)])
    return Table(
        title="What the framework costs a cell",
        command=f"python -m benchmarks overhead --cells {cells}",
        headings=["tracking", "cells", "seconds", "ms a further cell (range)"],
        rows=rows,
        note="Two windows of a model of 8 units: composing, starting, training, tracking and reporting; the difference "
        f"between a study of {many:,} cells and one of {few:,}.",
    )


def _tiny_study(cells: int, more: list[str]) -> float:
    rates = ",".join(f"{0.001 * (1 + i):.4f}" for i in range(cells))
    with tempfile.TemporaryDirectory() as folder:
        return run(["-m", "ablate", "-m", f"lr={rates}", "name=overhead", *_TINY, *more], Path(folder))[0]


def tracking(rounds: int) -> Table:
    """The same training with and without MLflow."""
    knobs = ["-m", "ablate", "windows=300", "valid_every=100"]

    def one(*more: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return run([*knobs, *more], Path(folder))[0]

    times = alternate({"off": lambda: one("tracking=off"), "on": lambda: one()}, rounds)
    ratios = [on / off for on, off in zip(times["on"], times["off"], strict=True)]
    return Table(
        title="What tracking costs",
        command="python -m benchmarks tracking",
        headings=["tracking", "seconds (range)", "times without (range)"],
        rows=[["off", spread(times["off"], 1), "1"], ["MLflow in SQLite", spread(times["on"], 1), spread(ratios)]],
        note=f"One LSTM of the quick recipe, 300 windows of the King James Bible; {rounds} rounds in turn, medians.",
    )
