"""Knobs: every preset composes, every bad value is refused by name, rule and remedy."""

from __future__ import annotations

import math
import re
from itertools import product

import pytest
from conftest import TINY, knobs_of, parse, values_of
from hypothesis import given
from hypothesis import strategies as st

from ablate import compose
from ablate.compose import parsed
from ablate.knobs import KnobError, deciding, fields_of, flat, read_level
from ablate.knobs import knobs_of as names_of
from ablate.launch import Launch
from ablate.study.records import describe_knobs
from ablate.tasks.language_model import LANGUAGE_MODEL
from ablate.tasks.language_model.config import Config


@pytest.mark.parametrize(
    ("model", "recipe"), list(product(["rnn", "lstm", "better_lstm"], ["quick", "standard", "book", "zaremba"]))
)
def test_every_preset_composes_and_is_accepted(model, recipe):
    knobs = knobs_of(f"model={model}", f"recipe={recipe}")
    assert (knobs.model, knobs.recipe) == (model, recipe)


def test_the_command_line_has_the_last_word_over_presets():
    knobs = knobs_of("model=better_lstm", "recipe=book", "depth=3", "lr=1", "hidden=200")
    assert (knobs.depth, knobs.lr, knobs.hidden, knobs.embedding, knobs.tie) == (3, 1, 200, 200, True)


def test_the_books_recipes_are_the_books():
    rnn, lstm, better = (knobs_of("recipe=book", f"model={m}", "data=ptb") for m in ("rnn", "lstm", "better_lstm"))
    assert (rnn.rnn, rnn.hidden, rnn.batch, rnn.window, rnn.lr, rnn.clip, rnn.epochs, rnn.train_tokens) == (
        "tanh", 100, 10, 5, 0.1, None, 100, 1000,
    )  # fmt: skip
    assert rnn.vocabulary == "slice"
    for knobs, hidden, epochs, decay, carry in ((lstm, 100, 4, None, True), (better, 650, 40, 4.0, False)):
        assert (knobs.hidden, knobs.embedding, knobs.epochs, knobs.decay, knobs.carry) == (
            hidden, hidden, epochs, decay, carry,
        )  # fmt: skip
        assert (knobs.batch, knobs.window, knobs.lr, knobs.clip, knobs.optimizer) == (20, 35, 20, 0.25, "sgd")
        assert (knobs.eval_batch, knobs.eval_window, knobs.test_weights) == (10, 35, "last")
    for knobs in (rnn, lstm, better):
        assert (knobs.init, knobs.embedding_std, knobs.output_bias, knobs.forget_bias) == ("fan_in", 0.01, "zero", 0)
        assert (knobs.order, knobs.warmup, knobs.budget, knobs.test_batch, knobs.projection) == (
            "text",
            0,
            1,
            None,
            None,
        )
    assert [knobs.schedule for knobs in (rnn, lstm, better)] == ["constant", "constant", "plateau"]
    assert (better.depth, better.dropout, better.tie) == (2, 0.5, True)
    assert (lstm.depth, lstm.dropout, lstm.tie) == (1, 0, False)


def test_the_quick_recipe_gives_every_model_the_same_sizes_and_schedule():
    parts = {"model", "rnn", "depth", "dropout", "tie"}
    rest = [
        {k: v for k, v in flat(knobs_of(f"model={m}")).items() if k not in parts}
        for m in ("rnn", "lstm", "better_lstm")
    ]
    assert rest[0] == rest[1] == rest[2]
    assert rest[0]["residual"] is True


def test_the_standard_recipe_is_the_quick_one_with_more_windows():
    quick, standard = (deciding(knobs_of(f"recipe={name}", "model=better_lstm")) for name in ("quick", "standard"))
    assert {name for name in quick if quick[name] != standard[name]} == {"windows"}
    assert standard["windows"] > quick["windows"]


@pytest.mark.parametrize(
    ("size", "units", "dropout", "scale", "rate", "norm", "window", "epochs", "full", "decay"),
    [
        ("small", 200, 0.0, 0.1, 1, 5, 20, 13, 4, 2.0),
        ("medium", 650, 0.5, 0.05, 1, 5, 35, 39, 6, 1.25),
        ("large", 1500, 0.65, 0.04, 1, 10, 35, 55, 14, 1.15),
    ],
)
def test_zarembas_sizes_are_those_of_the_program(size, units, dropout, scale, rate, norm, window, epochs, full, decay):
    """Its loss is summed over a window: rate and norm are per window; `full`: its max_epoch."""
    knobs = knobs_of("recipe=zaremba", f"size={size}", "data=ptb")
    assert (knobs.hidden, knobs.embedding, knobs.depth, knobs.tie) == (units, units, 2, False)
    assert (knobs.dropout, knobs.init_range, knobs.window, knobs.epochs) == (dropout, scale, window, epochs)
    assert (knobs.lr, knobs.decay, knobs.batch, knobs.carry) == (rate * window, decay, 20, False)
    assert knobs.clip == pytest.approx(norm / window)
    assert knobs.decay_from * epochs == pytest.approx(full)
    assert (knobs.eval_batch, knobs.test_batch, knobs.test_weights) == (20, 1, "last")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("depth=0", "depth=0: must be a whole number at least 1"),
        ("depth=-1", "depth=-1: must be a whole number"),
        ("depth=1.5", "depth=1.5: must be a whole number"),
        ("depth=true", "depth=true: must be a whole number"),
        ("dropout=1.0", "dropout=1.0: must be a finite number at least 0 and below 1; for example 0.5"),
        ("dropout=1.5", "dropout=1.5: must be"),
        ("forget_bias=x", "forget_bias=x: must be a finite number; for example 1.0"),
        ("budget=0", "budget=0: must be a finite number above 0 and at most 1000; for example 0.5"),
        ("dropout=-0.1", "dropout=-0.1: must be"),
        ("dropout=nan", "dropout=nan: must be"),
        ("embedding=0", "embedding=0: must be"),
        ("lr=nan", "lr=nan: must be a finite number above 0"),
        ("lr=inf", "lr=inf: must be a finite number"),
        ("lr=-1", "lr=-1: must be"),
        ("lr=fast", "lr=fast: must be a finite number above 0"),
        ("clip=0", "clip=0: must be a finite number above 0, or null"),
        ("decay=1", "decay=1: must be a finite number above 1, or null"),
        ("tie=yes", "tie=yes: must be true or false"),
        ("tie=null", "tie=null: must be true or false"),
        ("rnn=lstmm", "rnn=lstmm: must be one of lstm, tanh; did you mean 'lstm'?"),
        ("optimizer=sdg", "optimizer=sdg: must be one of adam, sgd; did you mean 'sgd'?"),
        ("seeds=0", "seeds=0: must be auto, or a whole number at least 1"),
        ("name=a/b", "name=a/b: must be a name of at most 100 letters"),
        ("data.vocab_size=1", "data.vocab_size=1: must be a whole number at least 2"),
        ("+dpeth=2", "dpeth=2: unknown knob; did you mean 'depth'?"),
        ("+data.lowr=true", "data.lowr=true: unknown knob"),
        ("data=text", "data.path=null: must be the path of a UTF-8 text file"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_with_its_rule(override, message):
    with pytest.raises(KnobError) as caught:
        knobs_of(override)
    assert len(caught.value.problems) == 1
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["tie=true", "embedding=100", "hidden=200"],
            "tying needs embedding = hidden; use embedding=200, or tie=false",
        ),
        (["epochs=2", "windows=10"], "a trial has one budget"),
        (["epochs=null", "windows=null"], "a trial needs a budget"),
        (["schedule=plateau"], "it divides lr by decay; use decay=4, or schedule=constant"),
        (["decay=4"], "only plateau and exponential divide lr by decay; use schedule=plateau, or decay=null"),
        (["schedule=constant", "lr_floor=0", "decay_from=0.5"], "only linear, cosine and exponential begin at a time"),
        (["schedule=constant", "lr_floor=0.1"], "lr does not fall; use lr_floor=0, or schedule=linear"),
        (
            ["recipe=book", "order_seed=3"],
            "order_seed=3 order=text: every trial reads from the beginning of the text; use order_seed=null",
        ),
        (["init=uniform"], "uniform values have a range alone; use embedding_std=null init_range=0.1"),
        (["init_range=0.1"], "normal values have a standard deviation alone; use embedding_std=0.1 init_range=null"),
        (["data=text", "data.path=a", "data.valid=b"], "a text is one file or three; add data.test="),
    ],
)
def test_knobs_at_odds_are_refused_with_a_remedy(overrides, message):
    with pytest.raises(KnobError) as caught:
        knobs_of(*overrides)
    assert message in str(caught.value)


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(KnobError) as caught:
        knobs_of("depth=0", "dropout=2", "lr=-1")
    assert len(caught.value.problems) == 3


def test_help_tells_every_knob_with_its_range():
    text = describe_knobs(LANGUAGE_MODEL, width=1000)
    assert all(f"  {name} " in text for name in [*names_of(Config), *names_of(Launch)] if "." not in name)
    assert "dropout          share of elements dropped between layers; off: 0 (a finite number at least 0 and" in text
    assert "seed             first seed (a whole number at least 0 and at most 2147483647)" in text
    assert "data=text: data.lower" in text


def test_help_has_its_knobs_under_headings_and_fits_a_terminal_of_80_columns():
    text = describe_knobs(LANGUAGE_MODEL)
    assert re.findall("== (.*) ==", text) == ["Model", "Recipe", "Data", "Study", "Machine"]
    of = dict(zip(*[iter(re.split("(?:\n\n)?== (.*) ==\n", text)[1:])] * 2, strict=True))
    expected = {
        "Model": "depth init",
        "Recipe": "lr precision",
        "Data": "train_tokens data=kjv:",
        "Study": "design.kind seeds worth name",
        "Machine": "workers runs tracking.uri",
    }
    for group, names in expected.items():
        assert all(f"\n  {name} " in f"\n{of[group]}" for name in names.split()), group
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    "text",
    [
        "null", "NULL", "true", "True", "FALSE", "1", "+1", "-0", "007", "00.5", "1_000", "1__0", ".5", "1.", "-.5",
        "1e3", "1E-3", "1_0.5", "1e", "inf", "-Inf", "infinity", "0x10", "1.0.0", "1-2", "", "-", "lstm", "a/b",
        "'1'", '"true"', "'a b'", r"'a\'b'", r'"a\nb"', "[1,2]", "[]", "[0.5,true]", '["a","b"]',
    ],
)  # fmt: skip
def test_a_level_is_read_as_hydra_reads_it(text):
    expected = parsed(f"x={text}").value()
    assert read_level(text) == expected
    assert type(read_level(text)) is type(expected)


def test_a_level_that_is_no_number_is_read_as_that():
    assert math.isnan(read_level("nan"))
    assert math.isnan(read_level("-NaN"))


@pytest.mark.parametrize(
    "overrides",
    [
        ["depth=3", "hidden=9"],
        [*TINY, "model=better_lstm", "depth=3", "lr=1e-3", "name=x", "clip=null", "tie=true"],
        ["recipe=zaremba", "size=medium", "data=ptb", "decay=2", "device=cpu"],
        ["recipe=book", "model=rnn", "hidden=7", "tracking=off"],
        ["data=text", "data.path=a b", "hidden=12", "embedding=${hidden}", "seeds=3"],
    ],
)
def test_what_tests_have_composed_is_what_hydra_composes(overrides):
    assert values_of(*overrides) == compose.values_of(LANGUAGE_MODEL, overrides)


def test_a_missing_knob_is_named():
    values = values_of()
    del values["clip"]
    with pytest.raises(KnobError, match="clip: missing"):
        parse(values)


def test_an_unknown_corpus_is_refused_with_the_choices():
    with pytest.raises(KnobError, match="data=ptv: must be one of kjv, ptb, text, synthetic; did you mean 'ptb'"):
        parse({**values_of(), "data": "ptv"})


# Values from all kinds that a command line or a YAML file can give.
anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**6),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=2),
)


@given(st.sampled_from([*fields_of(Config), *fields_of(Launch)]), anything)
def test_any_value_of_any_knob_is_accepted_whole_or_refused_by_name(name, value):
    values = {**VALUES, name: value}
    knobs, problems = None, ()
    try:
        knobs = parse(values)
    except KnobError as error:
        problems = error.problems
    assert all(name in problem for problem in problems)
    if knobs is not None:
        assert name in (*fields_of(Launch), "data") or getattr(knobs, name) == value
        assert not isinstance(value, float) or math.isfinite(value)


VALUES = values_of()
