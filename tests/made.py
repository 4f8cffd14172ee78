"""Results that nobody trained: tables as the reader gives them, with numbers that a test chooses."""

from __future__ import annotations

from dataclasses import asdict
from itertools import product

import numpy as np
import pandas as pd

from ablate.study.records import task_record
from ablate.tasks.language_model import LANGUAGE_MODEL, METRICS
from ablate.track.read import Results
from ablate.track.tables import blocks_table

NASTY = "a$b_c|d{e}<script>alert(1)</script>\\&%#^~*`"
PARTS = ("gating", "depth", "dropout", "tying")


(PERPLEXITY,) = METRICS
TASK = task_record(LANGUAGE_MODEL)
# What every launch records, besides its cells.
PLAIN_LAUNCH = {
    "design": {"kind": "grid", "components": [], "left_out": []},
    "metrics": [asdict(PERPLEXITY)],
    "task": TASK,
}


def trials(cells, **columns):
    """cells: label → list of test_nll by seed; None: that seed failed."""
    rows = [
        _row(label, seed, nll) | {"factor.tie": label}
        for label, values in cells.items()
        for seed, nll in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(**columns)


def _row(label, seed, nll):
    done = nll is not None
    return {
        "cell": label,
        "seed": seed,
        "status": "FINISHED" if done else "FAILED",
        "reason": "" if done else "OSError: x",
        "log": "",
        "fingerprint": f"{label}{seed}",
        "parameters": 100,
        "steps": 5,
        "seen": 50,
        "seconds": 2.0,
        "train_seconds": 1.0,
        "best_step": 5,
        "best_valid_nll": nll,
        "valid_nll": nll,
        "test_nll": nll,
        "valid_perplexity": PERPLEXITY.value(nll) if done else None,
        "test_perplexity": PERPLEXITY.value(nll) if done else None,
        "floor_nll": None,
        "data": "kjv",
        "data_digest": "d",
        "evaluated": "d",
        "alike": "d",
        "detail.vocabulary": "10",
        "code": "c",
        "device": "cpu",
        "knob.train_tokens": None,
        "knob.data.name": "kjv",
        "knob.hidden": 10,
    }


def ladder(effects, seeds=5, noise=0.01, subsets=None, interaction=0.0):
    """Trials of cells that have or lack each component; `effects`: component → nats that having it adds.

    Args:
        subsets: label → components that are on; None: all 2^k of them, labelled by their names.
        interaction: nats that the first two add together.
    """
    rng = np.random.default_rng(0)
    names = list(effects)
    if subsets is None:
        every = product((False, True), repeat=len(names))
        chosen = [[name for name, on in zip(names, flags, strict=True) if on] for flags in every]
        subsets = {" ".join(on) or "none": on for on in chosen}
    rows = []
    by_seed = rng.normal(0, 0.02, seeds)
    for label, on in subsets.items():
        for seed in range(seeds):
            nll = 4.0 + sum(effects[name] for name in on) + by_seed[seed] + rng.normal(0, noise)
            nll += interaction if set(names[:2]) <= set(on) else 0.0
            rows.append(
                _row(label, seed, nll)
                | {"parameters": 1000 + 100 * len(on)}
                | {f"factor.{name}": "on" if name in on else "off" for name in names}
                | {f"component.{name}": name in on for name in names}
            )
    return pd.DataFrame(rows)


def one_out(effects, **more):
    """The full model, and without each part."""
    names = list(effects)
    subsets = {"full": names} | {f"without {name}": [n for n in names if n != name] for name in names}
    return ladder(effects, subsets=subsets, **more)


def curves(table):
    """Two points of a falling curve for every trial."""
    return pd.DataFrame(
        [
            {
                "cell": r.cell,
                "seed": r.seed,
                "split": split,
                "step": s,
                "seen": s * 10,
                "seconds": s * 0.1,
                "nll": 3 - s / 100,
                "perplexity": float(np.exp(3 - s / 100)),
            }
            for r in table.itertuples()
            for split in ("train", "valid")
            for s in (20, 40)
        ]
    )


def results(table, name="study", points=None, design=None, blocks=None):
    """What the reader would give for these trials."""
    design = {"kind": "grid", "components": [], "left_out": []} | (design or {})
    points = curves(table) if points is None else points
    blocks = blocks_table([]) if blocks is None else blocks
    return Results(
        name, "python -m ablate", "2020-01-01T00:00:00", design, [PERPLEXITY], TASK, table, points, blocks, {}
    )
