"""How a task of one's own is declared: its configuration, metrics, components and data."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

import pydantic
import pytest
from own_task import ERROR, Config, does, lambda_named_train
from program import ROOT

import ablate
from ablate.cli import main_of_task
from ablate.described import describe
from ablate.functions.fresh import write_job
from ablate.functions.records import plain
from ablate.knobs import KnobError, flat

# --- the declaration --------------------------------------------------------------------------------------------------


@dataclass
class Seedless:
    seeds: int = 1


@dataclass
class NoDefault:
    width: int


@dataclass
class WrongDefault:
    width: int = 0.5


@dataclass
class NotText:
    activation: object = print


@dataclass
class WithoutType:
    width = 8
    LARGEST = 64


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ({"config": Seedless}, "Seedless.seeds: every launch has a knob of this name; rename the field"),
        ({"config": make_dataclass("C", [("tracking", int, 1)])}, "C.tracking: every launch has a knob of this name"),
        ({"config": make_dataclass("C", [("hydra", int, 1)])}, "C.hydra: every launch"),
        ({"config": NoDefault}, "NoDefault.width: has no default; every knob has one, for example width = 1"),
        ({"config": WrongDefault}, "width=0.5: must be a whole number"),
        ({"config": WithoutType}, "WithoutType.width: has no type, and is no knob without; write width: int = 8"),
        ({"config": NotText}, "NotText.activation: a builtin_function_or_method is no value of a knob; choose it by"),
        ({"config": dict}, "a configuration is a dataclass or a pydantic model; add @dataclass above it"),
        ({"metric": None}, 'needs a metric, by which cells are compared; metric=ablate.Metric("error"'),
        ({"metric": []}, "needs a metric"),
        ({"metric": "error"}, 'metric="error": is a text; write metric=ablate.Metric("error", better="lower")'),
        ({"metric": [ERROR, ERROR]}, "metric 'error': is declared twice"),
        ({"metric": [ablate.Metric("nll"), ablate.Metric("p", scale="log", logged="nll")]}, "'nll': is declared twice"),
        ({"metric": ablate.Metric("top-1")}, "metric 'top-1': a name is of letters, digits and _"),
        ({"metric": ablate.Metric("seconds")}, "metric seconds: the name 'seconds' is taken"),
        ({"metric": [1]}, "metric=1: is no ablate.Metric"),
        ({"components": {"d": "dropot=0"}}, "dropot=0: unknown knob 'dropot'; did you mean 'dropout'?"),
        ({"components": {"drop": "dropout=off"}}, "components['drop']: dropout=off: dropout must be a finite number"),
        ({"components": {"drop": "dropout"}}, "components['drop']: dropout: needs a value, for example dropout=0"),
        ({"components": {"drop": 0}}, "components['drop']: needs the override that switches it off, as text"),
        ({"components": {"drop": {"of": "dropout=0"}}}, "of is none of off, requires, excludes, idle; did you mean"),
        ({"components": {"drop out": "dropout=0"}}, "a component's name is of letters"),
        ({"components": ["dropout=0"]}, "is a dict, for example"),
        ({"data": 3}, 'data=3: is a list of paths, data=["data/digits.csv"], or a function of the config'),
        ({"data": []}, "data=[]: names no file"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_declaration_is_one_line_that_says_what_to_do(declaration, message):
    given = {"config": Config, "metric": ERROR} | declaration
    with pytest.raises(KnobError) as caught:
        ablate.task(given.pop("config"), **given)(lambda_named_train)
    (problem,) = caught.value.problems
    assert message in problem


@pytest.mark.parametrize("off", ["dropout=.0", "dropout=0.", "dropout=+0"])
def test_a_component_may_be_switched_off_by_any_number_that_the_command_line_takes(off):
    task = ablate.task(Config, metric=ERROR, components={"dropout": off})(lambda_named_train)
    assert task.components == {"dropout": off}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda config, run: {}, "is no function; write it above def train"),
        (Config, "Config is no function"),
        (write_job, "takes the configuration and the run; def write_job(config, run)"),
    ],
)
def test_only_a_function_of_config_and_run_is_a_task(function, message):
    with pytest.raises(KnobError) as caught:
        ablate.task(Config, metric=ERROR)(function)
    assert message in str(caught.value)
    with pytest.raises(KnobError, match="its first argument is a Config class, not the function"):
        ablate.task(lambda_named_train)  # as Python calls it for a decorator that stands alone


def test_the_default_that_is_refused_is_no_example_of_what_works():
    with pytest.raises(KnobError, match=r"^width=0\.5: must be a whole number$"):
        ablate.task(WrongDefault, metric=ERROR)(lambda_named_train)


@pytest.mark.parametrize("given", ["train", lambda_named_train])
def test_main_of_what_is_no_task_says_what_a_task_is(given, capsys, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # main sets it
    with pytest.raises(SystemExit, match="2"):
        main_of_task(given)
    assert "is no task; write @ablate.task(Config, metric=…) above def" in capsys.readouterr().err


def test_a_missing_data_file_is_named_before_anything_trains():
    task = does(lambda run: None, data=["no/such.csv"])
    with pytest.raises(KnobError, match=r"data: .*tests/no/such\.csv does not exist; paths are relative to the script"):
        task.describe(task.Config())
    task = does(lambda run: None, data=lambda config: 3)
    with pytest.raises(KnobError, match="the function returned 3, and has to return a digest"):
        task.describe(task.Config())
    task = does(lambda run: None, data=lambda config: 1 / 0)
    with pytest.raises(KnobError, match=r"data: the function failed in \S+\.py, line \d+: ZeroDivisionError: division"):
        task.describe(task.Config())


class Kind(Enum):
    A = "a"


class Model(pydantic.BaseModel):
    rate: float = pydantic.Field(0.5, ge=0, le=1)
    kind: Kind = Kind.A
    seed: int = 7

    @pydantic.model_validator(mode="after")
    def refuse(self):
        if self.rate == 0.25 and self.kind is Kind.A:
            raise ValueError("rate=0.25 needs another kind")
        return self


@dataclass(frozen=True)
class Frozen:
    sizes: tuple[int, ...] = (1, 2)
    names: list[str] = field(default_factory=list)
    mode: Literal["x", "y"] = "x"
    where: Path = Path("a")
    device: str = "cuda"
    seed: int = 1337


@pytest.mark.parametrize("kind", [Config, Model, Frozen])
def test_seed_and_device_are_filled_in_and_are_no_knobs(kind):
    seen = []

    @ablate.task(kind, metric=ERROR)
    def train(config, run):
        seen.append(config)
        return {"test_error": 1.0}

    train.run(seed=5)
    assert isinstance(seen[0], kind)
    assert not {"seed", "device"} & flat(train.Config()).keys()
    assert getattr(seen[0], "seed", 5) == 5
    assert getattr(seen[0], "device", "cpu") == "cpu"
    again = train.configured(train._configuration.of(plain(train.Config())), 5, "cpu")
    assert again == seen[0]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tuple[int, ...], "a list of whole numbers, for example [1,2]"),
        (tuple[float, float], "a list of 2 finite numbers, for example [1,2]"),
        (set[str | int], "a list, for example [1,2]"),
    ],
)
def test_what_a_list_holds_is_told_where_one_of_its_values_is_wrong(kind, message):
    config = make_dataclass("Config", [("sizes", kind, field(default_factory=lambda: [1, 2]))])
    task = ablate.task(config, metric=ERROR)(lambda_named_train)
    with pytest.raises(KnobError, match=re.escape(f"sizes=[1,true]: must be {message}")):
        task.run(sizes=[1, True])


@pytest.mark.parametrize(("value", "typed"), [(1, "1"), (True, "true")])
def test_a_number_or_a_truth_value_for_a_text_is_told_to_go_into_quotes(value, typed):
    config = make_dataclass("Config", [("label", str, "x")])
    task = ablate.task(config, metric=ERROR)(lambda_named_train)
    with pytest.raises(KnobError) as caught:
        task.run(label=value)
    assert str(caught.value) == f"""label={typed}: must be a text; in quotes it is one, 'label="{typed}"'"""


def test_a_rule_of_the_users_class_is_checked_before_anything_trains():
    task = ablate.task(Model, metric=ERROR)(lambda_named_train)
    with pytest.raises(KnobError, match=r"rate=0\.25 needs another kind"):
        task.check(task._configuration.of({"rate": 0.25}))
    with pytest.raises(KnobError, match="rate=2: must be a finite number at least 0 and at most 1"):
        task.run(rate=2)
    with pytest.raises(KnobError, match="rat=1: unknown knob; did you mean 'rate'"):
        task.run(rat=1)


# --- argparse ---------------------------------------------------------------------------------------------------------


def test_options_of_argparse_become_knobs_and_what_cannot_is_named():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=1, help="learning rate")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd")
    parser.add_argument("--no-bias", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--path")
    parser.add_argument("--seed", type=int, default=1)
    kind = ablate.arguments(parser)
    task = ablate.task(kind, metric=ERROR)(lambda_named_train)
    assert flat(task.Config()) == {
        "lr": 1.0, "batch_size": 64, "optimizer": "sgd", "no_bias": False, "sizes": [1, 2], "path": None
    }  # fmt: skip
    assert ("lr", "learning rate (a finite number; default 1.0)") in [(k.name, k.text) for k in describe(task.Config)]
    with pytest.raises(KnobError, match="optimizer=rms: must be one of sgd, adam"):
        task.run(optimizer="rms")
    parser.add_argument("file")
    parser.add_argument("--out", required=True)
    parser.add_argument("-v", action="count")
    parser.add_argument("--flag", type=bool, default=False)
    with pytest.raises(KnobError) as caught:
        ablate.arguments(parser)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["file", "--out", "-v", "--flag"]


def test_a_script_that_asks_its_task_nothing_says_what_is_missing(tmp_path):
    script = tmp_path / "mine.py"
    written = (
        "from dataclasses import dataclass\n"
        "import ablate\n"
        "@dataclass\n"
        "class Config:\n"
        "    lr: float = 0.1\n"
        "@ablate.task(Config, metric=ablate.Metric('error'))\n"
        "def train(config, run):\n"
        "    return {'test_error': config.lr}\n"
    )
    last = 'if __name__ == "__main__": ablate.main(train)'
    told = f"ablate: mine.py: nothing asked train to train; write at its end {last}\n"
    for end, said in (("", told), ("train.run()\n", ""), ("1 / 0\n", "ZeroDivisionError: division by zero\n")):
        script.write_text(written + end)
        done = subprocess.run(
            [sys.executable, "mine.py"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.stdout == ""
        assert done.stderr.endswith(said)
        assert (told in done.stderr) == (said == told)
