"""From Python: a study that is run, its trials, and what they have trained."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import TINY
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from own_task import Config
from program import ROOT, inside

import ablate
from ablate.knobs import KnobError
from ablate.session import command_of
from ablate.tasks.language_model.evaluate import evaluate
from ablate.tasks.language_model.model.packed import Alone
from ablate.tasks.language_model.training import corpus_of
from ablate.track.typed import typed

QUIET = [*TINY, "tracking=off", "report=false"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study that was run from Python: its folder and its trials."""
    folder = tmp_path_factory.mktemp("python")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        yield folder, ablate.run("-m", "model=rnn,better_lstm", "seeds=2", *QUIET)


def test_a_study_from_python_is_that_of_the_command_line_and_gives_its_trials(study, monkeypatch):
    folder, trials = study
    assert list(zip(trials["cell"], trials["seed"], trials["status"], strict=True)) == [
        (cell, seed, "FINISHED") for cell in ("rnn", "better_lstm") for seed in (0, 1)
    ]
    monkeypatch.chdir(folder)
    pd.testing.assert_frame_equal(trials, ablate.results("model"))
    code, out, err = inside("-m", "model=rnn,better_lstm", "seeds=2", *QUIET, folder=folder)
    assert (code, err) == (0, "")
    assert out.count("finished before, not trained again") == 4
    command = next(iter((folder / "runs" / "studies").glob("*.jsonl"))).read_text().splitlines()[0]
    assert '"command": "python -m ablate model=rnn,better_lstm seeds=2 ' in command


def test_numbers_are_numbers_and_levels_are_in_the_order_of_the_study(study):
    _, trials = study
    kinds = {name: str(trials[name].dtype) for name in trials if name.startswith("knob.")}
    assert (kinds["knob.depth"], kinds["knob.lr"], kinds["knob.tie"]) == ("Int64", "float64", "boolean")
    assert kinds["knob.rnn"] == "str"
    assert trials["knob.dropout"].max() == 0.5
    for name in ("cell", "factor.model"):
        assert trials[name].cat.ordered
        assert list(trials[name].cat.categories) == ["rnn", "better_lstm"]
    assert list(trials.groupby("factor.model", observed=True)["test_perplexity"].mean().index) == ["rnn", "better_lstm"]


def test_a_knob_of_numbers_and_words_and_one_that_is_not_known_stay_as_they_are():
    table = pd.DataFrame(
        {"knob.a": [1, "x", None], "knob.b": [None, None, None], "knob.c": [1, 0.5, None]}, dtype=object
    )
    found = typed(table)
    assert list(found["knob.a"]) == [1, "x", None]
    assert found["knob.b"].isna().all()
    assert found["knob.c"].sum() == 1.5


def test_a_program_that_has_initialized_hydra_for_itself_keeps_it(study, monkeypatch, tmp_path):
    monkeypatch.chdir(study[0])
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        theirs = GlobalHydra.instance().hydra
        ablate.run("model=rnn", "plan=true", *QUIET)
        assert GlobalHydra.instance().hydra is theirs


def test_a_command_for_the_record_can_be_typed_whatever_the_folder_is_called():
    task = SimpleNamespace(reference="/tmp/my dir/file.py:train")
    assert shlex.split(command_of(task)) == ["python", "-m", "ablate", "task=/tmp/my dir/file.py:train"]


def test_a_plan_from_python_trains_nothing_and_gives_the_trials_that_it_would(study, monkeypatch):
    monkeypatch.chdir(study[0])
    trials = ablate.run("model=rnn", "depth=1,2", "plan=true", *QUIET)
    assert list(trials["cell"]) == ["depth=1", "depth=2"]
    assert list(trials["status"]) == ["FINISHED", "UNFINISHED"], "the first is a cell of the other study"


def test_presets_of_ones_own_are_found_from_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    preset = tmp_path / "mine" / "recipe" / "short.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text("# @package _global_\ndefaults: [quick]\nwindows: 7\n")
    assert len(ablate.run(*TINY, "recipe=short", "plan=true", config_dir="mine")) == 1
    with pytest.raises(KnobError, match="recipe=short: no such preset"):
        ablate.run(*TINY, "recipe=short", "plan=true")
    with pytest.raises(KnobError, match="--config-dir nowhere: no such folder"):
        ablate.run(*TINY, "plan=true", config_dir="nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dept=2"], "unknown knob 'dept'; did you mean 'depth'?"),
        (["depth=0"], "depth=0: must be a whole number at least 1"),
        (["model=rn"], "model=rn: no such preset; did you mean 'rnn'?"),
        (["depth"], "a knob is set with ="),
        (["--cfg", "job"], "--cfg: a flag of the command line; ablate.run takes knobs and presets alone"),
        (["check=true"], "check=true: ablate.check(train) does that from Python"),
        (["task=mine.py:train"], "task=mine.py:train: name it as ablate.run(…, task=…)"),
        (["depth=1,2 tie=true,false"], "each knob is an argument of its own"),
        ([["depth=1,2"]], "every argument is a text, as in ablate.run('depth=1,2', 'seeds=3')"),
    ],
)
def test_a_mistake_is_an_exception_before_anything_is_trained(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KnobError) as caught:
        ablate.run(*arguments, *QUIET)
    assert message in str(caught.value)
    assert not (tmp_path / "runs" / "trials").exists()


def test_a_loaded_model_has_the_test_score_of_its_trial_and_the_words_of_its_text(study, monkeypatch):
    folder, trials = study
    for _, row in trials.iterrows():
        trained = ablate.load(row, runs=folder / "runs")
        corpus = corpus_of(trained.config)
        assert tuple(trained.words) == tuple(corpus.words)
        assert not trained.model.training
        (nll,) = evaluate(Alone(trained.model), corpus.test, trained.config, torch.device("cpu"))
        assert nll == pytest.approx(row["test_nll"], rel=1e-6)
    assert ablate.load(row["fingerprint"], runs=folder / "runs").config == trained.config


def test_what_cannot_be_loaded_says_why(study, tmp_path, monkeypatch):
    folder, trials = study
    row = trials.iloc[0]
    for wrong in ("model", trials, "5201df"):
        with pytest.raises(KnobError, match=r"ablate\.load takes one row of ablate\.results\(\), for example"):
            ablate.load(wrong, runs=folder / "runs")
    with pytest.raises(KnobError, match=r"not in elsewhere; name the folder that has it, ablate\.load\(…, runs=FOLDER"):
        ablate.load(row, runs="elsewhere")
    (best,) = (folder / "runs" / "trials" / row["fingerprint"][:16]).glob("claim-*/best-*.pt")
    best.rename(tmp_path / "gone")
    (last,) = best.parent.glob("last-*.pt")
    last.rename(tmp_path / "gone too")
    with pytest.raises(KnobError, match="its weights are missing; force=true trains it again"):
        ablate.load(row, runs=folder / "runs")
    (tmp_path / "gone").rename(best)
    (tmp_path / "gone too").rename(last)


TASK = """
from dataclasses import dataclass
import ablate, torch

@dataclass
class Config:
    scale: float = 2.0

@ablate.task(Config, metric=ablate.Metric("error"))
def train(config, run):
    model = torch.nn.Linear(1, 1)
    run.keep(model=model)
    run.keep_best(model=model)
    for step in run.steps(3):
        with torch.no_grad():
            model.weight.fill_(config.scale * step)
        run.log(valid_error=abs(step - 1))
    return {"test_error": 1.0}
"""


def test_a_task_of_ones_own_is_run_from_python_and_gives_what_it_kept_at_its_best(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(TASK)
    trials = ablate.run("scale=2,3", "tracking=off", "report=false", "workers=1", task="mine.py:train")
    assert list(trials["knob.scale"]) == [2.0, 3.0]
    trained = [ablate.load(row) for _, row in trials.iterrows()]
    assert [each.config.scale for each in trained] == [2.0, 3.0]
    best = int(trials["best_step"].iloc[0])
    assert [float(each.objects["model"]["weight"]) for each in trained] == [2.0 * (best - 1), 3.0 * (best - 1)]


SCRIPT = f"""
import ablate
print(len(ablate.run("model=rnn", *{QUIET!r})))
"""


def test_what_is_no_name_no_trial_no_task_and_no_seed_is_refused_in_a_line():
    @ablate.task(Config, metric=ablate.Metric("error"))
    def train(config, run):
        return {"test_error": 1.0}

    for read in (ablate.results, ablate.curves):
        with pytest.raises(KnobError, match="a study is named by a text"):
            read(["one", "two"])
    with pytest.raises(KnobError, match=r"NoneType: ablate\.load takes one row"):
        ablate.load(None)
    with pytest.raises(KnobError, match=r"int: ablate\.load takes one row"):
        ablate.load(3)
    with pytest.raises(KnobError, match="3: is no task; check takes a function"):
        ablate.check(3)
    for seed in ("a", -1, 1.5, None):
        with pytest.raises(KnobError, match="must be a whole number at least 0"):
            train.run(seed=seed)


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_to_have_one(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert "if __name__ ==" in done.stderr + done.stdout


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path, monkeypatch):
    # As a kernel runs it, one cell after another in one name space; with a text and models that train in a blink.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    cells = json.loads((ROOT / "examples" / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    asked = '"+study=three_models", "seeds=3"'
    assert asked in sources[0]
    tiny = ["model=rnn,lstm,better_lstm", "name=three_models", "seeds=3", "data.vocab_size=1000", *QUIET]
    sources[0] = sources[0].replace(asked, f"*{tiny!r}")
    names = {}
    for source in sources:
        exec(source.replace('("and", "the")', "trained.words[:2]"), names)
    assert len(names["trials"]) == 9
    assert len(names["by_seed"]) == 3
    assert names["axes"].get_yscale() == "log"
    assert names["trained"].model.output.weight.shape[0] == len(names["trained"].words)
