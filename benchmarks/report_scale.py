"""A study of a thousand trials, made up in seconds: what reading it and reporting on it cost."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ablate.study.records import task_record
from ablate.tasks.language_model import LANGUAGE_MODEL, METRICS
from ablate.track.folder import Folder
from ablate.track.journal import JOURNAL
from benchmarks.common import Table, peak_memory, program

_READ = (
    "import time; started = time.perf_counter(); "
    "from ablate.track.read import open_source, read_study; source = open_source(); "
    "imported = time.perf_counter(); results = read_study(source); "
    "print(f'{len(results.trials)} {len(results.curves)} {time.perf_counter() - imported:.2f}')"
)


def synthesise(folder: Folder, cells: int = 200, seeds: int = 5, points: int = 500, study: str = "synthetic") -> str:
    """Write the journals of a finished study that nobody trained; returns its name.

    A grid of depth, hidden and tie; each trial with `points` train measurements and a valid one at every tenth. Its
    numbers are plausible and always the same: a cell's effect, a seed's effect and noise, all small.
    """
    asked = []
    for number in range(cells):
        levels = {"depth": 1 + number % 4, "hidden": 100 + 10 * (number // 8), "tie": number // 4 % 2 == 0}
        shown = {name: str(value).lower() for name, value in levels.items()}
        label = " ".join(f"{name}={value}" for name, value in shown.items())
        trials = []
        for seed in range(seeds):
            fingerprint = hashlib.sha256(f"{study} {label} {seed}".encode()).hexdigest()
            trials.append({"seed": seed, "fingerprint": fingerprint})
            path = folder.trial(fingerprint) / JOURNAL
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(journal_of(number, levels, seed, fingerprint, points), encoding="utf-8")
        components = {"depth": levels["depth"] > 1, "tying": levels["tie"]}
        asked.append({"label": label, "levels": shown, "components": components, "trials": trials})
    launch = {
        "event": "launched", "time": "2026-01-01T00:00:00.000+00:00", "study": study, "command": "python -m ablate",
        "reports": "reports", "design": {"kind": "grid", "components": [], "left_out": []}, "cells": asked,
        "metrics": [asdict(metric) for metric in METRICS], "task": task_record(LANGUAGE_MODEL),
    }  # fmt: skip
    folder.study(study).parent.mkdir(parents=True, exist_ok=True)
    folder.study(study).write_text(json.dumps(launch) + "\n", encoding="utf-8")
    folder.latest().write_text(study)
    return study


def journal_of(number: int, levels: dict[str, int], seed: int, fingerprint: str, points: int) -> str:
    """The lines of one trial, as long as those of a real one."""
    noise = np.random.default_rng([number, seed])
    steps = 20 * np.arange(1, points + 1)
    base = 5.0 - 0.02 * levels["depth"] - 0.0002 * levels["hidden"] - 0.03 * levels["tie"]
    end = base + 0.01 * np.random.default_rng(seed).standard_normal() + 0.004 * noise.standard_normal()
    train = end + 2.0 * np.exp(-steps / steps[-1] * 5) + 0.05 * noise.standard_normal(points)
    when = {"time": "2026-01-01T00:00:00.000+00:00"}
    facts = {
        "data": "kjv", "data_digest": "d" * 64, "code": "c" * 64, "git_commit": "a" * 40, "git_dirty": "false",
        "torch": "2.13.0+cpu", "python": "3.11.9", "platform": "Linux", "device": "CPU", "threads": "2",
        "precision": "fp32",
    }  # fmt: skip
    knobs = {
        "model": "lstm", "rnn": "lstm", **levels, "dropout": 0.0, "residual": False, "embedding": levels["hidden"],
        "embedding_std": 0.1, "init": "scaled", "schedule": "linear", "budget": 1.0, "recipe": "quick",
        "optimizer": "adam", "lr": 0.003, "decay": None, "clip": 0.25,
        "batch": 20, "window": 35, "epochs": None, "windows": int(steps[-1]), "carry": True, "valid_every": 200,
        "valid_spacing": "even", "eval_batch": 10, "eval_window": 35, "test_weights": "best", "train_tokens": None,
        "vocabulary": "full", "precision": "fp32", "sample_words": 60, "device": "auto", "threads": 2,
        "data.name": "kjv", "data.vocab_size": 10_000,
    }  # fmt: skip
    data = {
        "name": "kjv", "digest": "d" * 64, "sizes": {"train": 853_362, "valid": 45_054, "test": 46_120},
        "evaluated": "e" * 64, "alike": "a" * 64, "chance": math.log(10_001), "floor": None,
        "details": {"vocabulary": 10_001},
    }  # fmt: skip
    events = [
        {
            "event": "started", **when, "fingerprint": fingerprint, "seed": seed, "command": "python -m ablate",
            "process": "host:1:1", "knobs": knobs, "facts": facts, "sources": {}, "data": data,
            "parameters": 10_001 * levels["hidden"],
        }
    ]  # fmt: skip
    for i, (step, nll) in enumerate(zip(steps.tolist(), train.tolist(), strict=True)):
        at = {"event": "log", **when, "step": step, "seen": 700 * step, "seconds": 0.0123 * step}
        events.append({**at, "values": {"epoch": 0.1, "train_nll": nll, "lr": 0.003, "grad_norm": 0.2}})
        if i % 10 == 9:
            events.append({**at, "values": {"epoch": 0.1, "valid_nll": nll + 0.1}})
    events.append(
        {
            "event": "finished", **when, "status": "FINISHED", "diverged_at": None, "steps": int(steps[-1]),
            "seen": int(700 * steps[-1]), "seconds": 130.0, "train_seconds": 120.0, "best_step": int(steps[-1]),
            "values": {"best_valid_nll": end + 0.1, "valid_nll": end + 0.1, "test_nll": end + 0.12},
            "sample": "in the beginning",
        }
    )  # fmt: skip
    return "".join(json.dumps(event) + "\n" for event in events)


def report_scale(cells: int = 200, seeds: int = 5, points: int = 500) -> Table:
    """Reading and `python -m ablate.report`, each in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        synthesise(Folder(folder / "runs"), cells, seeds, points)
        size = sum(path.stat().st_size for path in (folder / "runs").rglob("*.jsonl")) / 2**20
        reading, read_peak, said = measured(["-c", _READ], folder)
        alone = float(said.split()[-1])
        reporting, report_peak, _ = measured(["-m", "ablate.report"], folder)
        shutil.rmtree(folder / "reports")
    return Table(
        title="What a report on many trials costs",
        command="python -m benchmarks report_scale",
        headings=["", "seconds", "of these without imports", "peak MiB"],
        rows=[
            ["reading", f"{reading:.1f}", f"{alone:.1f}", f"{read_peak:.0f}"],
            ["python -m ablate.report", f"{reporting:.1f}", "", f"{report_peak:.0f}"],
        ],
        note=f"{cells * seeds:,} made-up trials ({cells} cells, {seeds} seeds) of {points} train measurements and "
        f"{points // 10} valid ones each: {size:.0f} MiB of journals.",
    )


def measured(arguments: list[str], folder: Path) -> tuple[float, float, str]:
    """A program to its end: seconds, its largest resident set in MiB, what it printed. Raises when it fails."""
    started = time.perf_counter()
    said: list[str] = []
    peak = 0.0
    with program(arguments, folder) as (process, printed):
        reader = threading.Thread(target=lambda: said.append(printed.read()))
        reader.start()
        while process.poll() is None:
            peak = max(peak, peak_memory(process.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        reader.join()
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}:\n{said[0][-2000:]}")
    return seconds, peak, said[0]
