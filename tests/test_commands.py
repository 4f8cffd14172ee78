"""The command that a report gives for a cell is the cell."""

from __future__ import annotations

import shlex

import pandas as pd
import pytest
from conftest import TINY, knobs_of

from ablate.knobs import deciding, flat
from ablate.report.commands import command_of

TRICKY = "data.path='my text, it\\'s [here]=100% $HOME.txt'"


def trials_of(*cells, seeds=(0, 1, 2)):
    """The table that the reader would give for these knobs."""
    rows = [
        {"cell": f"cell {i}", "seed": seed, "parameters": 5, **{f"knob.{name}": v for name, v in flat(knobs).items()}}
        for i, knobs in enumerate(cells)
        for seed in seeds
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=better_lstm", "dropout=0.1", "lr=1e-05"],
        ["model=lstm", "recipe=book", "data=ptb"],
        ["model=rnn", "recipe=book", "data=ptb", "residual=true"],
        TINY,
        ["data=text", TRICKY, "data.lower=true"],
    ],
)
def test_a_command_gives_every_knob_that_decides_a_result(overrides):
    knobs = knobs_of(*overrides)
    # A table of two cells has a column for every knob of either, as that of a real study.
    command = command_of(trials_of(knobs, knobs_of("data=synthetic", "data.order=2")), "cell 0")
    assert command is not None
    python, dash, module, *words = shlex.split(command)
    assert (python, dash, module) == ("python", "-m", "ablate")
    again = knobs_of(*words)
    assert deciding(again) == deciding(knobs)
    assert again.data == knobs.data
    assert words[-2:] == ["seed=0", "seeds=3"]


def test_seeds_that_do_not_follow_each_other_are_listed():
    command = command_of(trials_of(knobs_of(*TINY), seeds=(0, 2, 5)), "cell 0")
    assert command is not None
    assert command.endswith(" seed=0,2,5")


def test_a_cell_that_never_started_has_no_command():
    table = trials_of(knobs_of(*TINY)).assign(parameters=None)
    assert command_of(table, "cell 0") is None
