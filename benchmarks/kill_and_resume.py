"""python benchmarks/kill_and_resume.py: kill -9 studies at random times until they are done, and compare their results.

A study of 6 cells × 2 seeds is started with the settings that a user has who sets none, its whole process tree is
killed with SIGKILL after a random time, and the same command is typed again, until it ends by itself; all of it
`--rounds` times over. With `--studies 2` two studies that share all their trials run at a time in one runs folder,
each is killed when its time has come, and both write to one MLflow server. Each round's tables must be byte-equal to
those of a study that was never disturbed, but for the columns that a clock fills, its weights the same bytes, no
finished trial trained again, and on the server every trial of a study one run, which is finished. What differs is
printed, and the folder of such a round is kept.
"""

from __future__ import annotations

import argparse
import difflib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from ablate.track.claims import read_trial
from ablate.track.folder import Folder
from ablate.track.prune import delete, unneeded

STUDY = [
    "-m", "depth=1,2,4", "tie=true,false", "seeds=2", "dropout=0.2", "data=synthetic",
    "data.tokens=20000", "data.eval_tokens=2000", "data.vocab_size=200", "hidden=24", "batch=8", "window=10",
    "windows=600", "valid_every=100", "eval_batch=4", "eval_window=10", "train_tokens=null",
]  # fmt: skip
TRIALS = 12
CLOCK = ["seconds", "train_seconds"]


def launch(folder: Path, name: str, uri: str | None) -> subprocess.Popen[bytes]:
    """The study in this folder, in a process group of its own; what it prints goes to `NAME.log` there."""
    tracking = [] if uri is None else [f"tracking.uri={uri}"]
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "ablate", *STUDY, f"name={name}", *tracking],
            cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def results(folder: Path, name: str) -> list[str]:
    """Everything that a clock does not decide: tables, and the names of the weights, which hold their SHA-256."""
    delete(list(unneeded(Folder(folder / "runs"))))  # what a process killed just after the end of a trial has left
    lines = []
    for table_name in ("results", "curves"):
        table = pd.read_csv(folder / "reports" / name / f"{table_name}.csv")
        lines += table.drop(columns=[column for column in CLOCK if column in table]).to_csv().splitlines()
    weights = folder.glob("runs/trials/*/*/*.pt")
    return lines + sorted(f"{path.parent.parent.name}/{path.name}" for path in weights)


def journals(folder: Path) -> list[list[str]]:
    """The kinds of events of every trial."""
    return [[event["event"] for event in read_trial(path)] for path in sorted(folder.glob("runs/trials/*"))]


def disturbed(folder: Path, rng: random.Random, longest: float, names: Sequence[str], uri: str | None) -> int:
    """Launch and kill until every study has ended by itself; how many kills that took."""
    kills = 0
    left = {name: (launch(folder, name, uri), time.monotonic() + rng.uniform(0.5, longest)) for name in names}
    while left:
        time.sleep(0.02)
        for name, (process, end) in list(left.items()):
            if process.poll() is not None:
                assert process.returncode == 0, (folder / f"{name}.log").read_text()[-2000:]
                del left[name]
            elif time.monotonic() > end:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                left[name] = launch(folder, name, uri), time.monotonic() + rng.uniform(0.5, longest)
    return kills


def wrong_runs(folder: Path, uri: str) -> list[str]:
    """What is not as it should be in MLflow: a finished run for every study, and one for every trial of it."""
    from ablate.track.mlflow.client import open_client, search
    from ablate.track.mlflow.liveness import folder_id

    client = open_client(uri)
    experiment = client.get_experiment_by_name("ablate")
    assert experiment is not None, "nothing has reached the server"
    own = search(client, experiment.experiment_id, f"tags.`ablate.folder` = '{folder_id(Folder(folder / 'runs'))}'")
    wrong = [f"{run.info.run_name}: {run.info.status}" for run in own if run.info.status != "FINISHED"]
    runs = Counter((r.data.tags.get("mlflow.parentRunId", ""), r.data.tags.get("ablate.fingerprint", "")) for r in own)
    wrong += [f"{name}: {number} runs" for name, number in runs.items() if name[1] and number > 1]
    of_studies = Counter(parent for parent, _ in runs if parent)
    return wrong + [f"{parent}: {number} trials" for parent, number in of_studies.items() if number != TRIALS]


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """An MLflow server of one's own; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = ["mlflow", "server", "--workers", "1", "--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/m.db",
               "--artifacts-destination", str(folder / "artifacts")]  # fmt: skip
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        while not _answers(uri):
            assert process.poll() is None, (folder / "server.log").read_text()[-2000:]
            time.sleep(0.5)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def main() -> None:
    """Run it, and print a line a round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--longest", type=float, default=15.0, help="seconds before a kill, at most (default: 15)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--studies", type=int, default=1, choices=(1, 2), help="2: at a time, with an MLflow server")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="kill_and_resume-"))
    if options.studies == 1:
        right = _rounds(options, scratch, None)
    else:
        with server(scratch) as uri:
            right = _rounds(options, scratch, uri)
    if not right:
        sys.exit(1)
    shutil.rmtree(scratch)


def _rounds(options: argparse.Namespace, scratch: Path, uri: str | None) -> bool:
    """Whether every round came out as it should."""
    rng = random.Random(options.seed)
    names = [f"study{number}" for number in range(options.studies)]
    reference = scratch / "undisturbed"
    reference.mkdir()
    started = time.perf_counter()
    assert launch(reference, names[0], None).wait() == 0, (reference / f"{names[0]}.log").read_text()[-2000:]
    print(f"undisturbed: {time.perf_counter() - started:.0f} s", flush=True)
    expected = results(reference, names[0])
    totals: Counter[str] = Counter()
    for number in range(options.rounds):
        folder = scratch / f"round-{number}"
        folder.mkdir()
        kills = disturbed(folder, rng, options.longest, names, uri)
        found = [results(folder, name) for name in names]
        events = journals(folder)
        wrong = [] if uri is None else wrong_runs(folder, uri)
        counts = {
            "kills": kills,
            "resumes": sum(trial.count("resumed") for trial in events),
            "equal": int(all(each == expected for each in found)),
            "trained twice": sum("finished" in trial[:-1] for trial in events),
            "wrong runs": len(wrong),
        }
        totals += Counter(counts)
        print(f"round {number}: " + ", ".join(f"{name} {count}" for name, count in counts.items()), flush=True)
        if counts["equal"] and not counts["trained twice"] and not wrong:
            shutil.rmtree(folder)
            continue
        print("\n".join(wrong))
        for each in found:
            print("\n".join(difflib.unified_diff(expected, each, "undisturbed", str(folder), lineterm="", n=0)))
    print(f"{options.rounds} rounds: " + ", ".join(f"{name} {totals[name]}" for name in counts))
    return totals["equal"] == options.rounds and not totals["trained twice"] and not totals["wrong runs"]


if __name__ == "__main__":
    main()
