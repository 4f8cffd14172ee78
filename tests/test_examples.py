from __future__ import annotations

import difflib
import math
import re
import shutil
import sys

import pytest
import torch
from program import ROOT, inside, journals

from ablate.cli import main_of_task
from ablate.functions.load import load_task
from ablate.knobs import KnobError

EXAMPLES = ROOT / "examples"
BEFORE, AFTER = EXAMPLES / "before/digits_plain.py", EXAMPLES / "after/digits_plain.py"
PAGE = (ROOT / "docs/your-own-model.md").read_text(encoding="utf-8")
QUIET = ["report=false", "tracking=off", "threads=1", "workers=1"]

pytest.importorskip("sklearn", reason="the examples need scikit-learn: pip install scikit-learn")


@pytest.fixture(autouse=True)
def _as_this_process_was(monkeypatch):
    """What loading a file changes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    torch.set_num_threads(threads)


def example(name):
    return load_task(str(EXAMPLES / name))


def study(task, *arguments, folder):
    return inside(*arguments, *QUIET, folder=folder, main=lambda: main_of_task(task))


def changed_lines():
    """Lines of the script after that are new, and of the script before that are gone."""
    before, after = (path.read_text(encoding="utf-8").splitlines() for path in (BEFORE, AFTER))
    changes = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
    return [[line[2:] for line in changes if line[0] == sign] for sign in "+-"]


@pytest.mark.parametrize("knobs", [{}, {"normalise": False, "augment": False, "dropout": 0.0, "width": 8}])
def test_digits_are_learned(knobs):
    result = example("digits.py").run(seed=0, epochs=20, **knobs)
    assert result["test_error"] < 60


@pytest.mark.parametrize(
    ("file", "knobs", "examples"),
    [
        ("digits.py", ["epochs=1"], 1197),
        ("transformer.py", ["width=8", "heads=1", "depth=1", "steps=1", "batch=2"], 31_500),
    ],
)
def test_examples_record_what_each_test_example_scored(file, knobs, examples, tmp_path):
    code, out, err = study(example(file), *knobs, folder=tmp_path)
    assert code == 0, out + err
    (events,) = journals(tmp_path).values()
    blocks, values = events[-1]["blocks"], events[-1]["values"]
    assert len(blocks["sizes"]) == 50
    assert sum(blocks["sizes"]) == pytest.approx(examples, rel=0.2 if file == "transformer.py" else 0)
    name = "test_error" if file == "digits.py" else "test_nll"
    assert sum(blocks["totals"]) / sum(blocks["sizes"]) == pytest.approx(values[name], rel=1e-5)


def test_every_component_of_every_example_is_on_in_its_full_model():
    for name in ("digits.py", "transformer.py", "boosting.py", "after/digits_plain.py"):
        task = example(name)
        full = task.Config()
        for off in task.components.values():
            knob, _, value = off.partition("=")
            assert str(getattr(full, knob)).lower() != value, (name, off)


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("norm", ["pre", "post", "none"])
@pytest.mark.parametrize("depth", [1, None])
def test_a_transformer_starts_near_the_logarithm_of_its_vocabulary(tie, norm, depth):
    it = example("transformer.py").function.__globals__
    config = it["Config"](tie=tie, norm=norm, **({} if depth is None else {"depth": depth}))
    torch.manual_seed(0)
    loss = it["evaluate"](it["Transformer"](config), it["texts"]()["valid"][:2000]).mean()
    assert float(loss) == pytest.approx(math.log(it["WORDS"] + 1), abs=0.15)


def test_a_transformer_sees_no_word_that_it_predicts():
    it = example("transformer.py").function.__globals__
    torch.manual_seed(0)
    model = it["Transformer"](it["Config"](dropout=0.0)).eval()
    words = torch.arange(12).view(1, 12)
    changed = words.clone()
    changed[0, 8] = 100
    same = (model(words) == model(changed)).all(dim=2)[0]
    assert same[:8].all()
    assert not same[8:].any()


@pytest.mark.parametrize("knobs", [{}, {"position": "sinusoidal", "norm": "post"}, {"position": "none", "tie": False}])
def test_a_transformer_learns(knobs):
    small = {"width": 16, "heads": 2, "depth": 1, "window": 16, "batch": 8, "steps": 60, "valid_every": 30}
    knows_nothing = math.log(1001)
    assert example("transformer.py").run(seed=0, lr=0.01, **small, **knobs)["test_nll"] < knows_nothing - 0.5


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(KnobError, match="width=10 must be a multiple of heads=4"):
        example("transformer.py").run(width=10, heads=4)


def test_boosting_is_a_study_of_two_metrics(tmp_path):
    code, out, err = study(example("boosting.py"), "-m", "design=leave_one_out", "trees=5", folder=tmp_path)
    assert code == 0, out + err
    assert "5 done" in out
    for events in journals(tmp_path).values():
        assert {"test_log_loss", "test_accuracy", "valid_accuracy"} <= set(events[-1]["values"])


def test_a_converted_script_gives_what_the_plain_one_does_in_about_twenty_changed_lines(tmp_path):
    new, gone = changed_lines()
    assert (len(new), len(gone)) == (19, 13)
    code, out, err = study(example("after/digits_plain.py"), "-m", "normalise=true,false", "epochs=2", folder=tmp_path)
    assert code == 0, out + err
    assert "2 done" in out
    for events in journals(tmp_path).values():
        assert sum(events[-1]["blocks"]["sizes"]) == 997


def test_the_page_shows_every_changed_line_and_their_number():
    new, gone = changed_lines()
    assert f"{len(new)} lines are new and {len(gone)} are gone" in PAGE
    diff = re.search(r"```diff\n(.*?)```", PAGE, re.S)[1].splitlines()
    assert [line[1:] for line in diff if line.startswith("+")] == [line for line in new if line]
    assert [line[1:] for line in diff if line.startswith("-")] == gone


def test_the_page_s_preset_is_read_beside_the_script(tmp_path):
    preset = re.search(r"```yaml\n(.*?)```", PAGE, re.S)[1]
    (tmp_path / "conf/recipe").mkdir(parents=True)
    (tmp_path / "conf/recipe/long.yaml").write_text(preset, encoding="utf-8")
    shutil.copy(AFTER, tmp_path / "of_mine.py")
    task = load_task(str(tmp_path / "of_mine.py"))
    code, out, err = study(task, "-m", "+recipe=long", "width=8,32", "plan=true", folder=tmp_path)
    assert code == 0, out + err
    assert "2 trials" in out


def test_the_page_s_own_tests_hold():
    train = example("after/digits_plain.py")
    assert train.run(seed=0, epochs=3)["test_error"] < 30
    with pytest.raises(ValueError, match="width"):
        train.run(seed=0, width="wide")
