"""Tokens a second of one training, beside pytorch/examples' word_language_model on the same text.

Both are the programs that a user starts, unmodified, on Penn Treebank with the same sizes, batch, window, rate and
clipping, in turn; what each prints or records of its own speed is read, without start-up and without validation.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ablate.tasks.language_model.config import PTB
from ablate.tasks.language_model.data import load_corpus
from benchmarks.common import Table, alternate, peak_memory, precisions_of, program, roofline, spread

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_TOKENS = 20 * 35  # of a window
_INTERVAL = 20  # windows between two readings


@dataclass(frozen=True)
class Size:
    """A model that both can train."""

    name: str
    hidden: int
    depth: int
    tie: bool
    dropout: float
    windows: int  # that a reading of its speed takes
    seeds: int  # that one epoch is trained with, to compare perplexities

    def operations(self) -> float:
        """Floating-point operations a token: 6 for every matrix parameter that a token touches."""
        recurrent = self.depth * 4 * self.hidden * 2 * self.hidden
        return 6.0 * (recurrent + 10_000 * self.hidden)


SIZES = [
    Size("LSTM-100", 100, 1, False, 0.0, windows=400, seeds=3),
    Size("tied 2×650, dropout 0.5", 650, 2, True, 0.5, windows=80, seeds=1),
]
EMBEDDING_STD = 0.2 / math.sqrt(12)  # of the peer's word vectors, which start uniform in ±0.1


def write_text(folder: Path) -> None:
    """Penn Treebank in the three files that the peer reads."""
    corpus = load_corpus(PTB(name="ptb"))
    for split in ("train", "valid", "test"):
        words = " ".join(corpus.words[i] for i in getattr(corpus, split))
        (folder / f"{split}.txt").write_text(words.replace(" <eos>", "\n").replace("\n ", "\n"), encoding="utf-8")


def peer_arguments(peer: Path, size: Size, text: Path, save: Path) -> list[str]:
    """The peer's program with a size's settings, one epoch."""
    sizes = ["--emsize", str(size.hidden), "--nhid", str(size.hidden), "--nlayers", str(size.depth)]
    recipe = ["--dropout", str(size.dropout), "--lr", "20", "--clip", "0.25", "--batch_size", "20", "--bptt", "35"]
    place = ["--data", str(text), "--save", str(save), "--epochs", "1", "--log-interval", str(_INTERVAL)]
    accelerator = ["--accel"] if torch.cuda.is_available() else []
    return [str(peer / "main.py"), *sizes, *recipe, *place, *accelerator, *(["--tied"] if size.tie else [])]


def our_arguments(size: Size, *budget: str) -> list[str]:
    """Our program with a size's settings; the word vectors start as wide as the peer's, uniform in ±0.1."""
    sizes = [f"hidden={size.hidden}", f"depth={size.depth}", f"tie={size.tie}", f"dropout={size.dropout}"]
    recipe = ["model=lstm", "recipe=book", "data=ptb", "lr=20", "clip=0.25", f"embedding_std={EMBEDDING_STD:.4f}"]
    return ["-m", "ablate", *recipe, *sizes, *budget, "tracking=off", "force=true", "sample_words=0"]


def peer_speed(peer: Path, size: Size, text: Path, memory: list[float]) -> float:
    """Median tokens a second of its own readings, the first left out."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = ["-u", *peer_arguments(peer, size, text, Path(scratch, "model.pt"))]
        with program(arguments, Path(scratch)) as (process, printed):
            readings: list[float] = []
            for line in printed:
                if found := re.search(r"ms/batch\s+([\d.]+)", line):
                    readings.append(_TOKENS / float(found[1]) * 1000)
                if len(readings) > size.windows // _INTERVAL:
                    break
            else:
                raise RuntimeError("the peer ended before it told its speed")
            memory.append(peak_memory(process.pid))
    return statistics.median(readings[1:])


def our_speed(size: Size, precision: str, memory: list[float]) -> float:
    """Median tokens a second as the journal has them, the first reading left out."""
    windows = size.windows + 2 * _INTERVAL
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        budget = ["epochs=null", f"windows={windows}", f"valid_every={windows}", f"precision={precision}"]
        with program(our_arguments(size, *budget), folder) as (process, printed):
            while process.poll() is None:
                events = _events(folder)
                if any(event["step"] == windows for event in _trained(events)):
                    break
                time.sleep(0.2)
            else:
                raise RuntimeError(printed.read())
            memory.append(peak_memory(process.pid))
    return statistics.median([float(event["values"]["tokens_per_s"]) for event in _trained(events)][1:])


def _trained(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points of the train curve."""
    return [event for event in events if event["event"] == "log" and "train_nll" in event["values"]]


def _events(folder: Path) -> list[dict[str, Any]]:
    lines = [line for path in folder.glob("runs/trials/*/*/journal.jsonl") for line in path.read_text().split("\n")]
    return [json.loads(line) for line in lines if line.endswith("}")]


def throughput(peer: Path, rounds: int) -> Table:
    """Our tokens a second over the peer's, for both sizes and both precisions."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch)
        write_text(text)
        for size in SIZES:
            memory: dict[str, list[float]] = {"peer": [], **{precision: [] for precision in precisions_of(DEVICE)}}
            contestants: dict[str, Callable[[], float]] = {
                "peer": partial(peer_speed, peer, size, text, memory["peer"]),
                **{name: partial(our_speed, size, name, memory[name]) for name in precisions_of(DEVICE)},
            }
            dtypes = {name: torch.bfloat16 if name == "bf16" else torch.float32 for name in contestants}
            before = {dtype: roofline(dtype, DEVICE) for dtype in dtypes.values()}
            speeds = alternate(contestants, rounds)
            peaks = {dtype: max(rate, roofline(dtype, DEVICE)) for dtype, rate in before.items()}
            for name in contestants:
                ratios = [mine / theirs for mine, theirs in zip(speeds[name], speeds["peer"], strict=True)]
                share = statistics.median(speeds[name]) * size.operations() / peaks[dtypes[name]]
                rows.append(
                    [
                        size.name,
                        "word_language_model" if name == "peer" else f"ablate, {name}",
                        f"{statistics.median(speeds[name]):,.0f}",
                        "1" if name == "peer" else spread(ratios),
                        f"{share:.0%}",
                        f"{max(memory[name]):,.0f}",
                    ]
                )
    return Table(
        title="One training beside pytorch/examples",
        command="python -m benchmarks throughput --peer PATH",
        headings=["model", "program", "tokens/s", "ratio (range)", "of the matrix product's speed", "peak MiB"],
        rows=rows,
        note=f"word_language_model of {commit(peer)}, {rounds} rounds in turn, medians; Penn Treebank, V = 10,000. The "
        "matrix product is of 2048³ in the same type, the best of ten before and ten after.",
    )


def commit(peer: Path) -> str:
    """The peer's commit, as its checkout says."""
    done = subprocess.run(["git", "-C", str(peer), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return f"pytorch/examples commit {done.stdout[:12]}" if done.returncode == 0 else "an unknown commit"
