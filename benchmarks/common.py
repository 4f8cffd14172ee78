"""What all benchmarks share: programs that are started and watched, ratios, tables, facts of the machine."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from ablate.tasks.language_model.config import Config
from ablate.train.machine import has_bf16

RESULTS = Path(__file__).parent / "RESULTS.md"
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Table:
    """A result: what was measured, how to measure it again, and the figures."""

    title: str
    command: str
    headings: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""

    def markdown(self) -> str:
        """For a terminal and for RESULTS.md alike."""
        lines = [f"## {self.title}", "", f"`{self.command}`", "", _row(self.headings)]
        lines += [_row(["---", *["---:"] * (len(self.headings) - 1)]), *map(_row, self.rows)]
        return "\n".join([*lines, "", *([self.note, ""] if self.note else []), machine(), ""])


def _row(values: Iterable[object]) -> str:
    return "| " + " | ".join(str(value) for value in values) + " |"


def machine() -> str:
    """The machine in a line."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        cpu = next(line.split(": ", 1)[1] for line in text.splitlines() if line.startswith("model name"))
    where = f"{os.cpu_count()} cores of {cpu}"
    if torch.cuda.is_available():
        where += f", {torch.cuda.get_device_name()}"
    return f"{where}, torch {torch.__version__}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}."


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def compose(*overrides: str) -> Config:
    """The knobs that overrides of conf/config.yaml resolve to. Raises KnobError when this machine cannot run them."""
    from ablate.compose import values_of
    from ablate.study.records import Reader
    from ablate.tasks.language_model import LANGUAGE_MODEL

    config: Config = Reader(LANGUAGE_MODEL).config(values_of(LANGUAGE_MODEL, overrides))
    LANGUAGE_MODEL.check(config)
    return LANGUAGE_MODEL.settle(config, "auto")


def precisions_of(device: str) -> list[str]:
    """What a device multiplies in."""
    return ["fp32", "bf16"] if has_bf16(torch.device(device)) else ["fp32"]


@contextmanager
def program(arguments: Sequence[str], folder: Path) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A program in a session of its own, and what it prints, as it comes; stopped at the end, with all its children."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
        process.stdout.close()
        process.wait()


def run(arguments: Sequence[str], folder: Path) -> tuple[float, str]:
    """A program to its end: seconds of wall time, and what it printed. Raises RuntimeError when it fails."""
    started = time.perf_counter()
    with program(arguments, folder) as (process, printed):
        output = printed.read()
        code = process.wait()
    if code != 0:
        raise RuntimeError(f"{' '.join(arguments)} ended with {code}:\n{output[-2000:]}")
    return time.perf_counter() - started, output


def peak_memory(session: int) -> float:
    """Largest resident set, in MiB, that any process of a session has had so far (Linux; elsewhere NaN)."""
    peaks = [0.0]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == session:
                status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
                peaks.append(int(status["VmHWM"].split()[0]) / 1024)
        except (OSError, KeyError):  # it has ended meanwhile, or is a thread of the kernel
            continue
    return max(peaks) or float("nan")


def alternate(contestants: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each in turn, `rounds` times, in the opposite order every other time; what each returned."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name in list(contestants)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(contestants[name]())
    return found


def roofline(dtype: torch.dtype, device: str = "cpu") -> float:
    """Operations a second of a large matrix product, the best of ten; what nothing made of products can exceed."""
    size = 2048 if device == "cpu" else 8192
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    return 2 * size**3 / min(seconds(lambda: torch.mm(a, b), device) for _ in range(10))


def seconds(call: Callable[[], object], device: str = "cpu") -> float:
    """Wall time of a call, until the device is done with it."""
    started = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
