"""python benchmarks/kill_and_resume.py: kill -9 a study at random times until it is done, and compare its results.

A study of 6 cells × 2 seeds is started, its whole process tree is killed with SIGKILL after a random time, and the
same command is typed again, until it ends by itself; all of it `--rounds` times over. Each round's tables must be
byte-equal to those of a study that was never disturbed, but for the columns that a clock fills, its weights the same
bytes, and no finished trial trained again. What differs is printed, and the folder of such a round is kept.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

STUDY = [
    "-m", "depth=1,2,4", "tie=true,false", "seeds=2", "dropout=0.2", "name=study", "data=synthetic",
    "data.tokens=20000", "data.eval_tokens=2000", "data.vocab_size=200", "hidden=24", "batch=8", "window=10",
    "windows=600", "valid_every=100", "eval_batch=4", "eval_window=10", "train_tokens=null", "threads=1",
]  # fmt: skip
CLOCK = ["seconds", "train_seconds"]


def launch(folder: Path) -> subprocess.Popen[bytes]:
    """The study in this folder, in a process group of its own; what it prints goes to `log` there."""
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "ablate", *STUDY], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )


def results(folder: Path) -> list[str]:
    """Everything that a clock does not decide: tables, and the names of the weights, which hold their SHA-256."""
    lines = []
    for name in ("results", "curves"):
        table = pd.read_csv(folder / "reports" / "study" / f"{name}.csv")
        lines += table.drop(columns=[column for column in CLOCK if column in table]).to_csv().splitlines()
    return lines + sorted(str(path.relative_to(folder)) for path in folder.glob("runs/trials/*/*.pt"))


def finished_twice(folder: Path) -> int:
    """Trials that were trained on after they had finished."""
    events = [
        [json.loads(line)["event"] for line in path.read_text().splitlines() if line.endswith("}")]
        for path in folder.glob("runs/trials/*/journal.jsonl")
    ]
    return sum("finished" in trial[:-1] for trial in events)


def disturbed(folder: Path, rng: random.Random, longest: float) -> tuple[int, int]:
    """Launch and kill until the study ends by itself; returns (kills, kills of trials in the middle of training)."""
    kills = 0
    while True:
        process = launch(folder)
        try:
            code = process.wait(timeout=rng.uniform(0.5, longest))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert code == 0, (folder / "log").read_text()[-2000:]
        resumed = sum(
            '"event": "resumed"' in line
            for path in folder.glob("runs/trials/*/journal.jsonl")
            for line in path.read_text().splitlines()
        )
        return kills, resumed


def main() -> None:
    """Run it, and print a line a round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--longest", type=float, default=15.0, help="seconds before a kill, at most (default: 15)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    scratch = Path(tempfile.mkdtemp(prefix="kill_and_resume-"))
    reference = scratch / "undisturbed"
    reference.mkdir()
    started = time.perf_counter()
    assert launch(reference).wait() == 0, (reference / "log").read_text()[-2000:]
    print(f"undisturbed: {time.perf_counter() - started:.0f} s", flush=True)
    expected = results(reference)
    totals = [0, 0, 0, 0]
    for number in range(options.rounds):
        folder = scratch / f"round-{number}"
        folder.mkdir()
        kills, resumed = disturbed(folder, rng, options.longest)
        found, twice = results(folder), finished_twice(folder)
        same = int(found == expected)
        print(
            f"round {number}: {kills} kills, {resumed} resumes, equal: {found == expected}, trained twice: {twice}",
            flush=True,
        )
        totals = [a + b for a, b in zip(totals, (kills, resumed, same, twice), strict=True)]
        if same and not twice:
            shutil.rmtree(folder)
        else:
            print("\n".join(difflib.unified_diff(expected, found, "undisturbed", str(folder), lineterm="", n=0)))
    kills, resumed, same, twice = totals
    print(f"{options.rounds} rounds: {kills} kills, {resumed} resumes, {same} equal, {twice} trials trained twice")
    if (same, twice) != (options.rounds, 0):
        sys.exit(1)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
