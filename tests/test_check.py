from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from contextlib import nullcontext
from pathlib import Path

import pytest

import ablate
from ablate.functions.check import Report, _Check, _short, _spread, check_command
from ablate.functions.fresh import Server
from ablate.functions.load import load_task
from ablate.knobs import KnobError
from ablate.train import Checkpoints

# A task that holds everything the check asks for; faults are put in its places.
GOOD = """
    import random, sys, time
    from dataclasses import dataclass
    import numpy as np
    import torch
    from torch import nn
    import ablate
    # top

    @dataclass
    class Config:
        dropout: float = 0.3
        smooth: float = 0.1
        epochs: int = 3
        # field

    def rows():
        x = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
        return x, (x[:, 0] * x[:, 1] > 0).long()

    @ablate.task(
        Config,
        components={"dropout": "dropout=0", "smoothing": "smooth=0"},
        metric=ablate.Metric("error", unit="%"),
        data=None,
    )
    def train(config, run):
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(8, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=9)
        run.keep(model=model, optimizer=optimizer, scheduler=scheduler)
        run.keep_best(model=model)
        dataset, kwargs = torch.utils.data.TensorDataset(*rows()), {}
        loader = torch.utils.data.DataLoader(dataset, 16, shuffle=True, **kwargs)
        each = torch.zeros(1)
        # before
        for epoch in run.epochs(config.epochs):
            # first
            for x, y in loader:
                loss = nn.functional.cross_entropy(model(x), y, label_smoothing=config.smooth)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
            model.eval()
            each = 100.0 * (model(rows()[0]).argmax(1) != rows()[1]).float()
            model.train()
            run.log(train_loss=loss, valid_error=each.mean(), lr=scheduler.get_last_lr()[0])
            # last
        run.load_best()
        model.eval()
        each = 100.0 * (model(rows()[0]).argmax(1) != rows()[1]).float()
        # after
        return {"test_error": each.mean(), "test_error_each": each}

    if __name__ == "__main__":
        ablate.main(train)
"""

NOISY = "{'num_workers': 1, 'persistent_workers': True, 'collate_fn': noisy}"
COLLATE = """def noisy(batch):
        x, y = torch.utils.data.default_collate(batch)
        return x + torch.randn(()), y

    """


@pytest.fixture(autouse=True)
def _faults_end_with_their_test(monkeypatch):
    """A fault may be a patch of what all tests use."""
    monkeypatch.setattr(Checkpoints, "newest", Checkpoints.newest)


def write(path: Path, *faults: tuple[str, str]) -> Path:
    text = GOOD
    for place, fault in faults:
        assert place in text, place
        text = text.replace(place, fault)
    path.write_text(textwrap.dedent(text))
    return path


@pytest.fixture(scope="module")
def servers():
    with Server(1) as first, Server(2) as second:
        yield first, second


@pytest.fixture
def part(tmp_path, servers, monkeypatch):
    """Runs one part of the check on a task with faults."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(name: str, *faults: tuple[str, str], component: str = "", base_fails: bool = False) -> Report:
        script = write(tmp_path / f"faulty_{tmp_path.name}_{len(sys.modules)}.py", *faults)
        report = Report()
        task = load_task(str(script))
        check = _Check(task, task.Config(), 0, tmp_path / "check", servers, report, lambda line: None)
        base = check._train("base")
        if not base_fails:
            assert not base.error, base.error
        getattr(check, name)(*([component] if component else []), base)
        return report

    return run


def test_a_task_that_keeps_what_it_changes_passes(tmp_path, servers, monkeypatch):
    # Started by the command line below.
    monkeypatch.setattr("ablate.functions.check.Server", lambda hash_seed: nullcontext(servers[hash_seed - 1]))
    script = write(tmp_path / "good.py", ("# after", "run.examples(each)"))
    task = load_task(str(script))
    said: list[str] = []
    report = ablate.check(task, say=said.append)
    assert report.ok, str(report)
    assert said[-1].endswith("the check passed")
    assert [note for note in report.notes if "initial" not in note] == []


def test_what_is_checked_is_short_by_itself_or_as_the_caller_says(tmp_path):
    task = load_task(str(write(tmp_path / "long.py", ("epochs: int = 3", "epochs: int = 300"))))
    assert _short(task) == {"epochs": 3}
    with pytest.raises(KnobError, match="epoch=1: unknown knob; did you mean 'epochs'"):
        ablate.check(task, epoch=1)
    assert _spread(3) == [1, 2, 3]
    assert _spread(100)[0] == 1
    assert _spread(100)[-1] == 100
    assert len(_spread(100)) == 8


@pytest.mark.parametrize(
    ("fault", "messages"),
    [
        (("# before", "rng = np.random.default_rng()\n        run.log(drawn=rng.random())"),
         ["does not repeat in a fresh process: drawn at epoch 0 is", "a generator without a seed"]),
        (("# before", "run.log(drawn=[ord(name) for name in {'a', 'b', 'c', 'd', 'e', 'f', 'g'}][0])"),
         ["does not repeat in a fresh process: drawn", "the order of a set or hash() of a text"]),
        (("# after", "run.examples(each.mean() + torch.tensor([1, -1]) * (time.time_ns() % 10007))"),
         ["does not repeat in a fresh process: test_examples of the result differs"]),
        (("data=None", "data=lambda config: str(time.time())"), ["the data's digest differs", "ablate.digest(path)"]),
    ],
)  # fmt: skip
def test_a_task_that_does_not_repeat_is_caught(part, fault, messages):
    caught(part("_repeats", fault), messages)


@pytest.mark.parametrize(
    ("faults", "messages"),
    [
        ([("# top", "CALLS = []"), ("# before", "CALLS.append(1); run.log(calls=len(CALLS))")],
         ["differs after another one in the same process: calls at epoch 0 is 2.0, and was 1.0", "a global variable"]),
        ([("# first", "torch.manual_seed(0)"), ("# before", "torch.manual_seed(0)"),
          ("model = nn.Seq", "torch.manual_seed(0); model = nn.Seq")],
         ["another seed logs the same numbers", "use run.seed"]),
    ],
)  # fmt: skip
def test_what_one_trial_leaves_to_the_next_and_a_fixed_seed_are_caught(part, faults, messages):
    caught(part("_other_trials", *faults), messages)


@pytest.mark.parametrize(
    ("faults", "messages"),
    [
        ([("optimizer=optimizer, scheduler=scheduler", "optimizer=optimizer")],
         ["stopped and resumed it differs: train_loss at epoch", "scheduler (LinearLR)", "run.keep(name=object)"]),
        ([("# before", "seen = 0"), ("# first", "seen += 1; run.log(seen=seen)")],
         ["differs: seen at epoch", "seen (int)", "inside of a dict"]),
        ([("# before", "own = torch.Generator().manual_seed(1)"),
          ("# first", "run.log(own=torch.rand((), generator=own))")], ["differs: own at epoch", "own (Generator)"]),
        ([("# before", "memory = []"), ("# first", "memory.append(epoch); run.log(memory=len(memory))")],
         ["differs: memory at epoch", "memory (list)"]),
        ([("# last", "valid = each.mean()"), ("# after", "each = each + 0 * valid")],
         ["stopped after epoch 3 and resumed it fails", "'valid'", "set the variable before the loop"]),
        ([("kwargs = torch.utils.data.TensorDataset(*rows()), {}", f"kwargs = list(zip(*rows())), {NOISY}"),
          ("def rows", f"{COLLATE}def rows")],
         ["it differs: train_loss at epoch", "a DataLoader with persistent_workers=True"]),
    ],
)  # fmt: skip
def test_a_resume_that_ends_elsewhere_is_caught_and_its_cause_named(part, faults, messages):
    caught(part("_resumes", *faults), messages)


def test_a_state_that_does_not_load_is_caught_before_anything_is_lost(part):
    report = part(
        "_resumes", ("# before", "odd = {}; run.keep(odd=odd)"), ("# last", "odd['a'] = object()"), base_fails=True
    )
    caught(report, ["it fails: RunError: odd['a']: a object cannot be saved"])


def test_a_restart_that_looks_like_a_resume_is_caught(part):
    fault = (
        "# top",
        "from ablate.train import Checkpoints\n    Checkpoints.newest = lambda self, size: (None, ['damaged'])",
    )
    caught(part("_resumes", fault), ["stopped after epoch 1 it is resumed from the beginning: damaged"])


def test_a_kill_that_changes_the_result_is_caught(part, monkeypatch):
    monkeypatch.setattr("ablate.functions.check.random.uniform", lambda low, high: 0.3)
    counted = """mark = run.folder.parent / "mark"
        after = len(list(mark.parent.glob("mark*")))
        mark.with_name(f"mark{after}").touch()"""
    slow = "time.sleep(0.2); run.log(after=after)"
    report = part("_survives_kill", ("# before", counted), ("# last", slow))
    caught(report, ["killed at a random moment and", "it differs"])


@pytest.mark.parametrize(
    ("component", "faults", "messages"),
    [
        ("smoothing", [("label_smoothing=config.smooth", "label_smoothing=0.1")],
         ["smoothing is inert: with smooth=0 every logged number", "does not read the knob"]),
        ("dropout", [("# first", "nn.functional.dropout(torch.ones(9), 0.5) if config.dropout else None")],
         ["without dropout (dropout=0) the data comes in another order from epoch 1 on", 'run.stream("order")']),
        ("dropout", [("# before", "assert config.dropout")], ["without dropout (dropout=0) it fails: AssertionError"]),
    ],
)  # fmt: skip
def test_a_component_that_does_nothing_or_too_much_is_caught(part, component, faults, messages):
    caught(part("_component", *faults, component=component), messages)


def test_initial_values_that_cells_do_not_share_are_noted_and_a_component_that_is_off(part):
    drawn = ("model = nn.Seq", "torch.rand(()) if config.dropout else None\n        model = nn.Seq")
    report = part("_component", drawn, component="dropout")
    assert report.ok
    (note,) = report.notes
    assert "without dropout 0 of 4 tensors of the same name and shape start with the same values" in note
    assert "run.initial_values(model)" in note
    off = part("_component", ("smooth: float = 0.1", "smooth: float = 0.0"), component="smoothing")
    assert "smoothing is off in this configuration already" in off.notes[0]


@pytest.mark.parametrize(
    ("faults", "messages"),
    [
        ([("valid_error=each.mean(), ", ""), ("run.keep_best(model=model)", ""), ("run.load_best()", "")],
         ["valid_error is never logged", "call run.log(valid_error=…)"]),
        ([('"test_error": each.mean()', '"test_error": each.mean() / 100')],
         ["test_error is 0.", "the mean of test_error_each is", "give both in one unit"]),
        ([("# before", "config.smooth = 0.2")], ["train changed its config (smooth)", "a variable of your own"]),
        ([("train_loss=loss", "train_loss=loss * float('nan')")], ["the short configuration diverges"]),
        ([("# top", "torch.set_num_threads(torch.get_num_threads() + 1)")],
         ["importing the file changes torch's number of threads"]),
        ([("# top", "sys.argv.append('x'); import os; os.environ['X_OF_TEST'] = '1'")],
         ["importing the file changes environment variables"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_result_is_caught(part, faults, messages, monkeypatch):
    monkeypatch.delenv("X_OF_TEST", raising=False)
    import torch

    threads = torch.get_num_threads()
    try:
        caught(part("_result", *faults), messages)
    finally:
        torch.set_num_threads(threads)
        os.environ.pop("X_OF_TEST", None)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (("train_loss=loss,", "train_loss=loss, test_error=1,"), "it fails: RunError: log(test_error=…): test data"),
        (('return {"test_error"', 'return {"error"'), "it fails: RunError: the function returned no test_error"),
        (("# before", "import os; os._exit(7)"), "it fails: the process ended with code 7"),
        (("# before", "1 / 0"), "it fails: ZeroDivisionError"),
    ],
)  # fmt: skip
def test_a_task_that_fails_is_said_to(tmp_path, servers, fault, message):
    report = Report()
    task = load_task(str(write(tmp_path / f"fails_{tmp_path.name}.py", fault)))
    _Check(task, task.Config(), 0, tmp_path / "check", servers, report, lambda line: None).run()
    assert not report.ok
    assert message in report.failures[0]


def test_a_task_without_a_loop_passes_with_a_note(tmp_path, servers):
    script = tmp_path / "no_loop.py"
    script.write_text(
        textwrap.dedent("""
            from dataclasses import dataclass
            import numpy as np
            import ablate
            @dataclass
            class Config:
                a: int = 1
            @ablate.task(Config, metric=ablate.Metric("error"))
            def train(config, run):
                run.log(valid_error=np.random.default_rng(run.number("trees")).random())
                return {"test_error": 0.5}
        """)
    )
    report = Report()
    task = load_task(str(script))
    _Check(task, task.Config(), 0, tmp_path / "check", servers, report, lambda line: None).run()
    assert report.ok, str(report)
    assert "the function uses neither run.epochs nor run.steps" in report.notes[0]


@pytest.mark.slow
def test_it_runs_from_the_command_line(tmp_path):
    script = write(tmp_path / "itself.py")
    environment = os.environ | {"PYTHONPATH": str(Path(ablate.__file__).parent.parent)}
    command = [sys.executable, script, "check=true", "epochs=1", "seed=3"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the check passed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["epoch=1"], "check=true epoch=1: takes seed and knobs of train; did you mean 'epochs'?"),
        (["workers=2"], "check=true workers=2: takes seed and knobs of train"),
        (["seed=a"], "seed=a: must be a whole number at least 0"),
        (["dropout=x"], "dropout=x: must be a finite number"),
    ],
)
def test_what_the_check_does_not_take_is_refused(tmp_path, arguments, message):
    task = load_task(str(write(tmp_path / f"refuses_{tmp_path.name}.py")))
    with pytest.raises(KnobError) as caught_error:
        check_command(task, arguments)
    assert message in str(caught_error.value)


def caught(report: Report, messages: list[str]) -> None:
    assert len(report.failures) == 1, report.failures
    for message in messages:
        assert message in report.failures[0], report.failures[0]
