"""Published figures stand beside the cells that follow their recipe, and beside no others."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from conftest import knobs_of
from made import PERPLEXITY

from ablate.analyze.published import figures, on_the_same_data
from ablate.analyze.published import published as published_for
from ablate.knobs import deciding, flat, named
from ablate.tasks.language_model.config import Config


def published(trials, comparison):
    return published_for(PERPLEXITY, "language_model", trials, comparison)


def tables(*overrides, test=135.3):
    """A study of one cell with these knobs, and its comparison."""
    knobs = {f"knob.{name}": value for name, value in flat(knobs_of(*overrides)).items()}
    trials = pd.DataFrame([{"cell": "mine", "seed": 0, "data": knobs["knob.data.name"], **knobs}])
    return trials, pd.DataFrame([{"cell": "mine", "n": 3, "test_mean": test}])


def test_the_books_lstm_stands_beside_its_three_readers_and_the_books_own_weights():
    found = published(*tables("model=lstm", "recipe=book", "data=ptb"))
    row, weights = found.to_dict("records")
    assert (row["published"], row["published_sd"], row["n"]) == (136.08, 0.81, 3)
    assert (weights["name"], weights["published"]) == ("LSTM of the book, its trained weights", 136.08)
    assert row["effect"] == pytest.approx(math.log(135.3 / 136.08))
    assert "Deep Learning from Scratch 2" in row["cite"]


def test_the_books_better_lstm_has_the_books_figure_and_a_peers_recipe_that_of_the_peer():
    book = ["model=better_lstm", "recipe=book", "data=ptb"]
    peer = [*book, "init=uniform", "embedding_std=null", "init_range=0.1", "test_weights=best"]
    for knobs, stands in (
        (book, [75.76]),
        ([*book, "tie=false"], []),
        (peer, [75.96]),
        ([*peer, "tie=false"], [80.97]),
    ):
        assert published(*tables(*knobs))["published"].tolist() == stands


@pytest.mark.parametrize(
    ("knobs", "stands"),
    [
        ([], [114.5, 115.91, 114.53]),
        (["tie=true"], [112.4, 110.27]),
        (["projection=0.00019230769230769231"], [111.7, 110.06]),
        (["tie=true", "projection=0.00019230769230769231"], [100.9, 103.09]),
        (["size=medium"], [82.7, 82.07, 83.81]),
        (["size=large"], [78.4, 78.29]),
    ],
)
def test_zarembas_sizes_and_the_cells_of_press_and_wolf_have_their_figures(knobs, stands):
    assert published(*tables("recipe=zaremba", "data=ptb", *knobs))["published"].tolist() == stands


def test_every_knob_that_decides_a_result_has_to_be_the_recipes():
    decides = {*deciding(knobs_of("data=ptb")), "data.name"} - {"precision"}  # what a machine has
    decides -= {*named(Config, "noise")}  # a seed is no part of a recipe
    followed = [figure for figure in figures("language_model") if figure["match"] is not None]
    assert followed
    for figure in followed:
        assert set(figure["match"]) == decides, figure["name"]


def test_no_two_figures_have_the_same_recipe_unless_the_later_says_so():
    found = figures("language_model")
    assert len({figure["name"] for figure in found}) == len(found)
    first: dict[str, str] = {}  # recipe → the figure that comes first
    for figure in found:
        if figure["match"] is not None:
            same = first.setdefault(json.dumps(figure["match"], sort_keys=True), figure["name"])
            assert figure.get("same_recipe_as", figure["name"]) == same, figure["name"]


def test_every_figure_says_where_it_is_from():
    for figure in figures("language_model"):
        assert figure["cite"], figure["name"]
        assert figure["source"] in ("code", "transcription", "second-hand"), figure["name"]


@pytest.mark.parametrize(
    "other",
    [
        "hidden=200",
        "epochs=5",
        "lr=10",
        "train_tokens=100000",
        "dropout=0.1",
        "data=kjv",
        "rnn=tanh",
        "clip=null",
        "budget=0.1",
        "schedule=linear",
        "projection=0.01",
        "forget_bias=5",
        "output_bias=unigram",
        "warmup=0.3",
        "order=seed",
        "test_batch=20",
        "eval_window=20",
        "embedding_std=0.1",
    ],
)
def test_another_recipe_text_or_slice_is_no_match(other):
    trials, comparison = tables("model=lstm", "recipe=book", "data=ptb", other)
    assert published(trials, comparison).empty


def test_a_knob_that_is_null_is_no_number():
    trials, comparison = tables("model=better_lstm", "recipe=book", "data=ptb", "schedule=constant", "decay=null")
    assert published(trials, comparison).empty


def test_a_cell_without_a_result_is_not_compared():
    trials, comparison = tables("model=lstm", "recipe=book", "data=ptb")
    assert published(trials, comparison.assign(n=0)).empty


def test_figures_of_other_recipes_are_shown_for_their_own_text_alone():
    assert len(on_the_same_data("language_model", tables("data=ptb")[0])) >= 8
    assert on_the_same_data("language_model", tables("data=kjv")[0]).empty
    assert on_the_same_data("language_model", pd.DataFrame({"cell": ["a"]})).empty


@pytest.mark.parametrize("task", ["digits", "../tasks/language_model", ""])
def test_a_task_that_comes_with_no_figures_has_none(task):
    assert figures(task) == []
    assert on_the_same_data(task, tables("data=ptb")[0]).empty
