# ruff: noqa: NPY002 (users' code draws from NumPy's global generator)
from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import subprocess
import sys
import textwrap
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

import numpy as np
import pydantic
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

import ablate
from ablate.functions import digests, watch
from ablate.functions import state as states
from ablate.functions.ending import Pace
from ablate.functions.fit import Diverged, fit
from ablate.functions.fresh import Server, write_job
from ablate.functions.load import load_task
from ablate.functions.records import plain
from ablate.functions.sources import closure, sources
from ablate.functions.state import RunError
from ablate.knobs import KnobError, describe, flat
from ablate.protocol import Blocks, Trial
from ablate.train import Checkpoints
from ablate.train.examples import EXAMPLES

ERROR = ablate.Metric("error", unit="%")


@dataclass
class Config:
    width: int = 8
    dropout: float = 0.2
    lr: float = 0.05
    epochs: int = 4


class Killed(BaseException):
    """Stands for SIGKILL where a test needs no process of its own."""


class Stopping(Checkpoints):
    """Checkpoints that end the process after so many states."""

    left = 10**9

    def save(self, window, state):
        super().save(window, state)
        type(self).left -= 1
        if type(self).left == 0:
            raise Killed


class Trained:
    """A trial in a folder, with its journal."""

    def __init__(self, folder: Path, task, seed: int = 0, **knobs) -> None:
        self.folder, self.task, self.seed = folder, task, seed
        self.config = task._configuration.of(knobs)
        self.journal = folder / "log.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    def train(self, resumes: bool = False, stop_after: int = 10**9, save_seconds: float = 0.0):
        kept = Stopping(self.folder, "f")
        Stopping.left = stop_after
        state, refused = kept.newest(self.journal.stat().st_size) if resumes else (None, [])
        assert not refused
        with self.journal.open("ab") as file:
            file.truncate(state["journal_bytes"] if state else 0)
        return fit(self.task, Trial(self.config, self.seed), self.sink, kept, state, save_seconds=save_seconds)

    def sink(self, event, /, **values):
        with self.journal.open("ab") as file:
            file.write(json.dumps([values["step"], values["values"]]).encode() + b"\n")
            return file.tell()

    @property
    def logs(self):
        return [json.loads(line) for line in self.journal.read_bytes().splitlines()]

    def each_stop(self, saves: int):
        """Train with a stop after each of the first `saves` states; returns the outcome."""
        for stop in range(saves):
            with pytest.raises(Killed):
                self.train(resumes=stop > 0, stop_after=1)
        return self.train(resumes=True)


def resumes_equal(tmp_path, task, saves: int, **knobs):
    """Assert that a trial stopped after each of its states ends as one that never was; returns the latter."""
    once, stopped = Trained(tmp_path / "once", task, **knobs), Trained(tmp_path / "stopped", task, **knobs)
    expected, outcome = once.train(), stopped.each_stop(saves)
    assert stopped.logs == once.logs
    assert outcome.values == expected.values
    assert outcome.blocks == expected.blocks
    assert outcome.best_step == expected.best_step
    for kind in ("last", "best"):
        bytes_of = [[p.name for p in sorted(t.folder.glob(f"{kind}-*"))] for t in (once, stopped)]
        assert bytes_of[0] == bytes_of[1]  # their names hold their digests
    return once, expected


def data():
    x = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] * x[:, 1] > 0).long()


def model_of(config):
    return nn.Sequential(nn.Linear(6, config.width), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(config.width, 2))


def error_of(model):
    model.eval()
    x, y = data()
    with torch.no_grad():
        each = 100.0 * (model(x).argmax(1) != y).float()
    model.train()
    return each


def step_of(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


def returns(value):
    """A task that logs and returns this."""

    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        for _ in run.epochs(1):
            run.log(valid_error=1.0)
        return value

    return train


def does(body, **declaration):
    """A task that calls body(run) and then trains."""

    @ablate.task(Config, metric=ERROR, **declaration)
    def train(config, run):
        body(run)
        for _ in run.epochs(2):
            run.log(valid_error=1.0)
        return {"test_error": 1.0}

    return train


# --- 1: state is restored at the loop ---------------------------------------------------------------------------------

SCHEDULERS = {
    "step": lambda o: schedulers.StepLR(o, 3, 0.5),
    "multistep": lambda o: schedulers.MultiStepLR(o, [2, 5, 9], 0.5),
    "lambda": lambda o: schedulers.LambdaLR(o, lambda i: 1 / (1 + i)),
    "multiplicative": lambda o: schedulers.MultiplicativeLR(o, lambda i: 0.9),
    "exponential": lambda o: schedulers.ExponentialLR(o, 0.9),
    "linear": lambda o: schedulers.LinearLR(o, 0.1, total_iters=6),
    "cosine": lambda o: schedulers.CosineAnnealingLR(o, 12),
    "restarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "onecycle": lambda o: schedulers.OneCycleLR(o, 0.2, total_steps=12),
    "cyclic": lambda o: schedulers.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    "chained": lambda o: schedulers.ChainedScheduler([schedulers.LinearLR(o, 0.5), schedulers.ExponentialLR(o, 0.9)]),
    "sequential": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, 0.1, total_iters=4), schedulers.CosineAnnealingLR(o, 8)], [4]
    ),
}


@pytest.mark.parametrize("keep_first", [True, False])
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_scheduler_goes_on_at_the_same_rates(tmp_path, kind, keep_first):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        model = nn.Linear(6, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=0.9)
        if keep_first:
            run.keep(model=model, optimizer=optimizer)
        scheduler = SCHEDULERS[kind](optimizer)
        run.keep(scheduler=scheduler)
        if not keep_first:
            run.keep(model=model, optimizer=optimizer)
        for _ in run.epochs(config.epochs):
            for _ in range(3):
                step_of(model, optimizer, *data())
                scheduler.step()
            group = optimizer.param_groups[0]
            run.log(valid_error=error_of(model).mean(), lr=group["lr"], momentum=group["momentum"])
        return {"test_error": error_of(model).mean()}

    resumes_equal(tmp_path, train, saves=4)


def test_everything_a_training_loop_has_goes_on_to_the_same_bits(tmp_path):
    @ablate.task(Config, metric=[ERROR, ablate.Metric("perplexity", scale="log", logged="nll")])
    def train(config, run):
        model = model_of(config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
        ema = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
        counters, recent = {"seen": 0, "best": np.float32(9), "where": Path("a")}, [0.0]
        generator, numpy_generator = torch.Generator().manual_seed(4), np.random.default_rng(5)
        own, shift, noise = random.Random(6), torch.zeros(6), np.zeros(3)
        run.keep(model=model, optimizer=optimizer, scaler=scaler, ema=ema, counters=counters, recent=recent)
        run.keep(generator=generator, numpy_generator=numpy_generator, own=own, shift=shift, noise=noise)
        run.keep_best(ema=ema)
        run.log(train_nll=3.0)
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(*data()), 16, shuffle=True, generator=generator
        )
        for _ in run.epochs(config.epochs):
            for x, y in loader:
                x = x + shift + 0.1 * torch.randn(6, generator=run.stream("noise")) * own.random() + np.random.rand()
                loss = nn.functional.cross_entropy(model(x.float()), y)
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                ema.update_parameters(model)
                counters["seen"] += len(x)
                counters["best"] = np.float32(min(counters["best"], loss.item()))
                recent[:] = [*recent[-2:], loss.item() * random.random()]
            shift += 0.01 * numpy_generator.standard_normal()
            noise += numpy_generator.standard_normal(3)
            numbers = {"seen": counters["seen"], "best": counters["best"], "recent": sum(recent), "noise": noise.sum()}
            run.log(
                train_nll=loss, valid_nll=loss, valid_error=error_of(ema).mean(), scale=scaler.get_scale(), **numbers
            )
        run.log(after=torch.rand(()), stream=torch.rand((), generator=run.stream("noise")))
        run.load_best()
        each = error_of(ema)
        return {"test_error": each.mean(), "test_error_each": each, "test_nll": 1.0, "drawn": random.random()}

    once, outcome = resumes_equal(tmp_path, train, saves=4)
    assert outcome.status == "FINISHED"
    assert outcome.steps == 4
    assert once.logs[0] == [0, {"train_nll": 3.0}]
    assert outcome.values["first_nll"] == 3.0
    assert outcome.values["tested_best"] == 1.0
    assert outcome.values["valid_error"] == outcome.values["best_valid_error"] == outcome.values["test_error"]
    assert np.load(once.folder / "test_error_each.npy").mean() == outcome.values["test_error"]


# --- 2: every epoch is seeded -----------------------------------------------------------------------------------------


def test_cells_share_the_order_of_data_in_every_epoch_whatever_they_draw_besides(tmp_path):
    orders: dict[float, list[int]] = {}

    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        order = orders.setdefault(config.dropout, [])
        loader = torch.utils.data.DataLoader(range(8), 2, shuffle=True)
        for _ in run.epochs(3):
            for batch in loader:
                order += batch.tolist()
                if config.dropout:
                    nn.functional.dropout(torch.ones(9), config.dropout)
        return {"test_error": 0}

    train.run(dropout=0.0)
    train.run(dropout=0.5)
    assert orders[0.0] == orders[0.5]
    assert orders[0.0][:8] != orders[0.0][8:16]


def test_seeds_differ_and_the_same_seed_repeats():
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        drawn = [random.random(), np.random.rand(), torch.rand(()).item(), run.number("a")]
        drawn += [torch.rand((), generator=run.stream("b")).item() for _ in range(2)]
        for _ in run.epochs(2):
            drawn += [random.random(), np.random.rand(), torch.rand(()).item()]
            run.log(valid_error=0)
        return {"test_error": 0, "drawn": drawn}

    drawn = [train.run(seed=seed)["drawn"] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert len({*drawn[0], *drawn[2]}) == 2 * len(drawn[0])
    assert all(0 <= d[3] < 2**31 for d in drawn)


# --- 3: steps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("generator", "workers"), [("global", 0), ("kept", 0), ("stream", 0), ("global", 2)])
def test_steps_of_a_shuffling_loader_resume_in_the_middle_of_a_pass(tmp_path, generator, workers):
    @ablate.task(Config, metric=ERROR, step="step")
    def train(config, run):
        model = model_of(config)
        optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
        run.keep(model=model, optimizer=optimizer)
        own = {"global": lambda: None, "kept": lambda: torch.Generator().manual_seed(3)}
        shuffles = run.stream("order") if generator == "stream" else own[generator]()
        if generator == "kept":
            run.keep(shuffles=shuffles)
        items = torch.utils.data.TensorDataset(*data())
        loader = torch.utils.data.DataLoader(items, 10, shuffle=True, generator=shuffles, num_workers=workers)
        for step, (x, y) in run.steps(12, loader):
            loss = step_of(model, optimizer, x + torch.randn(()), y)
            run.log(train_error=loss, rows=x.double().sum(), size=len(x))
            if step % 4 == 3:
                run.log(valid_error=error_of(model).mean())
        return {"test_error": error_of(model).mean()}

    once, outcome = resumes_equal(tmp_path, train, saves=12)
    sizes = [values["size"] for _, values in once.logs if "size" in values]
    assert sizes == [10, 10, 10, 10, 8, 10, 10, 10, 10, 8, 10, 10]
    assert outcome.steps == 12


def test_steps_without_a_loader_draw_what_the_step_says(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        model = nn.Linear(6, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
        run.keep(model=model, optimizer=optimizer)
        for _ in run.steps(7):
            rows = torch.randint(48, (8,))
            step_of(model, optimizer, *(each[rows] for each in data()))
            run.log(first=rows[0], valid_error=error_of(model).mean())
        return {"test_error": error_of(model).mean()}

    once, _ = resumes_equal(tmp_path, train, saves=7)
    assert len({values["first"] for _, values in once.logs}) > 3


def test_steps_are_saved_by_the_clock_and_at_the_end(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        for step in run.steps(20):
            run.log(valid_error=step)
        return {"test_error": 1}

    trained = Trained(tmp_path, train)
    trained.train(save_seconds=60.0)
    assert [path.name[:16] for path in tmp_path.glob("state-*")] == ["state-0000000020"]


def test_short_epochs_are_saved_by_the_clock_and_the_last_always(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        weights = torch.zeros(3)
        run.keep(weights=weights)
        run.keep_best(weights=weights)
        for epoch in run.epochs(200):
            weights += torch.rand(3)
            run.log(valid_error=(epoch - 150) ** 2, weight=weights[0])
        run.load_best()
        return {"test_error": weights.sum()}

    once, stopped = Trained(tmp_path / "once", train), Trained(tmp_path / "stopped", train)
    expected = once.train(save_seconds=60.0)
    assert 2 <= 10**9 - Stopping.left < 100
    assert sorted(once.folder.glob("state-*"))[-1].name.startswith("state-0000000200")
    with pytest.raises(Killed):
        stopped.train(save_seconds=60.0, stop_after=1)
    outcome = stopped.train(resumes=True, save_seconds=60.0)
    assert (outcome.values, stopped.logs) == (expected.values, once.logs)
    assert Trained(tmp_path / "often", train).train().values == expected.values
    assert 10**9 - Stopping.left == 200


@pytest.mark.parametrize(("took", "most", "epoch", "saves"), [(0.5, 60, 1, 5), (0.5, 0, 1, 50), (9, 60, 10, 9)])
def test_saving_takes_a_twentieth_of_the_time_or_comes_once_a_minute(took, most, epoch, saves):
    now, saved = 0.0, 0

    def save():
        nonlocal now, saved
        now, saved = now + took, saved + 1

    pace = Pace(most, lambda: now)
    for _ in range(50):
        now += epoch
        pace.save(save, is_last=False)
    assert saved == saves


def test_a_loader_that_can_be_read_once_is_refused(tmp_path):
    def train(run):
        for _ in run.steps(5, iter([1, 2])):
            pass

    with pytest.raises(RunError, match="cannot be read a second time; give a DataLoader or a list"):
        does(train).run()
    with pytest.raises(RunError, match="the loader is empty"):
        does(lambda run: list(run.steps(5, []))).run()


def test_a_list_of_batches_is_a_loader_and_a_loader_with_a_state_is_not_skipped(tmp_path):
    class Resumable:
        def __init__(self):
            self.at = 0

        def __iter__(self):
            while self.at < 5:
                self.at += 1
                yield self.at
            self.at = 0

        def state_dict(self):
            return {"at": self.at}

        def load_state_dict(self, state):
            self.at = state["at"]

    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        loader = Resumable() if config.width == 1 else [1, 2, 3, 4, 5]
        run.keep(**({"loader": loader} if config.width == 1 else {}))
        for _, batch in run.steps(8, loader):
            run.log(valid_error=batch)
        return {"test_error": 0}

    for width in (1, 2):
        once, _ = resumes_equal(tmp_path / str(width), train, saves=8, width=width)
        assert [values["valid_error"] for _, values in once.logs] == [1, 2, 3, 4, 5, 1, 2, 3]


# --- SIGKILL ----------------------------------------------------------------------------------------------------------

KILLED = """
    import time
    from dataclasses import dataclass
    import torch
    from torch import nn
    import ablate

    @dataclass
    class Config:
        by: str = "epochs"

    @ablate.task(Config, metric=ablate.Metric("error"))
    def train(config, run):
        x = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
        y = (x[:, 0] > 0).long()
        model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.Linear(8, 2))
        optimizer = torch.optim.Adam(model.parameters())
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=40)
        run.keep(model=model, optimizer=optimizer, scheduler=scheduler)
        run.keep_best(model=model)
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 12, shuffle=True)

        def step(x, y):
            time.sleep(0.01)
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            run.log(train_error=loss)

        def validate():
            run.log(valid_error=nn.functional.cross_entropy(model(x), y), drawn=torch.rand(()))

        if config.by == "epochs":
            for _ in run.epochs(10):
                for batch in loader:
                    step(*batch)
                validate()
        else:
            for _, batch in run.steps(40, loader):
                step(*batch)
                validate()
        run.load_best()
        return {"test_error": nn.functional.cross_entropy(model(x), y)}
"""


@pytest.fixture(scope="module")
def server():
    with Server(1) as running:
        yield running


@pytest.mark.parametrize("by", ["epochs", "steps"])
def test_a_trial_killed_at_random_moments_ends_with_the_same_bits(tmp_path, server, by):
    script = write(tmp_path / "killed.py", KILLED)

    def train(trial, resumes, kill_after=None):
        job = write_job(
            tmp_path / f"{trial}.json", reference=str(script), values={"by": by}, seed=3, device="cpu", trial=trial,
            resumes=resumes, stop_after=None, first=[], folder_of_process=str(tmp_path),
        )  # fmt: skip
        job.with_suffix(".pickle").unlink(missing_ok=True)
        server.run(job, kill_after)
        return watch.read(job)

    once = train("once", False)
    assert not once.error, once.error
    resumed = []
    for attempt in range(4):
        seen = train("killed", attempt > 0, kill_after=random.uniform(0.1, 0.6))
        if not seen.error:  # it was faster
            break
        resumed.append(Checkpoints(tmp_path / "killed", "check").newest(10**9)[0] is not None)
    last = train("killed", True)
    assert (last.logs, last.result, last.kept, last.error) == (once.logs, once.result, once.kept, "")
    assert any(resumed)
    assert last.resumed_at


# --- 4: what can be kept ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, 0.5, "a", None, True, (1, 2), np.float32(1), Path("a"), frozenset()])
def test_keep_refuses_plain_values_and_says_that_they_go_into_a_dict(value):
    with pytest.raises(RunError, match=r'put it into a dict, counters = \{"best": …\}'):
        does(lambda run: run.keep(best=value)).run()


@pytest.mark.parametrize("inside", [object(), nn.Linear(1, 1), defaultdict(int), lambda: 0, np.array([None])])
def test_keep_refuses_what_would_not_load_again_and_names_where_it_is(inside):
    with pytest.raises(RunError, match=r"things\['deep'\]"):
        does(lambda run: run.keep(things={"deep": {"a": inside}})).run()


def test_what_is_kept_once_is_kept_by_one_name_and_before_the_loop():
    def late(run):
        for _ in run.epochs(1):
            run.keep(counters={})

    with pytest.raises(RunError, match="keep: call it before the loop starts"):
        does(late).run()
    with pytest.raises(RunError, match="model is kept already"):
        does(lambda run: (run.keep(model={}), run.keep(model=[]))).run()


def test_a_function_has_one_loop():
    with pytest.raises(RunError, match=r"run\.epochs: a function has one loop, and run\.steps was called before"):
        does(lambda run: list(run.steps(2))).run()
    with pytest.raises(RunError, match=r"run\.steps\(2\.5\): must be a whole number"):
        does(lambda run: run.steps(2.5)).run()


def test_a_state_is_encoded_so_that_it_loads_without_running_code():
    module = nn.BatchNorm1d(3)
    value = {
        "plain": [None, True, 1, 2**70, 0.1, float("inf"), 1 + 2j, "a", b"b"],
        "tuple": (1, (2, [3])), "set": {1, 2}, 4: "key",
        "numpy": [np.float32(0.1), np.int64(3), np.arange(6).reshape(2, 3)[:, ::2], np.array(["a"]), np.bool_(1)],
        "torch": [torch.ones(2, dtype=torch.bfloat16), torch.Size([1, 2]), torch.float32, torch.device("cpu")],
        "more": [OrderedDict(a=1), Counter("aab"), deque([1, 2, 3], maxlen=4), frozenset([1]), Path("x/y")],
        "state": module.state_dict(), "random": random.getstate(), "legacy": np.random.get_state(legacy=False),
    }  # fmt: skip
    saved = pickle.loads(pickle.dumps(states.encode(value)))
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    buffer.seek(0)
    found = states.decode(torch.load(buffer, weights_only=True))
    assert watch.digest_state(states.encode(found)) == watch.digest_state(states.encode(value))
    assert [type(each) for each in found["more"]] == [OrderedDict, Counter, deque, frozenset, type(Path())]
    assert found["more"][2].maxlen == 4
    assert type(found["numpy"][0]) is np.float32
    assert found["state"]._metadata == module.state_dict()._metadata


def test_an_object_without_a_state_is_said_once_and_the_trial_starts_again(tmp_path, capsys):
    class Trees:
        pass

    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        run.keep(trees=Trees())
        for _ in run.epochs(3):
            run.log(valid_error=1)
        return {"test_error": 1}

    Trained(tmp_path, train).train()
    out = capsys.readouterr().out
    assert out.count("after a kill this trial starts from the beginning") == 1
    assert not list(tmp_path.glob("state-*"))


def test_a_function_without_a_loop_says_that_it_starts_from_the_beginning(tmp_path, capsys):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        run.log(valid_error=np.float64(2))
        return {"test_error": np.float64(1), "trees": 7}

    outcome = Trained(tmp_path, train).train()
    assert "never asked for run.epochs or run.steps" in capsys.readouterr().out
    assert (outcome.status, outcome.steps, outcome.values["trees"]) == ("FINISHED", 0, 7.0)


def test_an_early_end_of_the_loop_resumes_to_the_same_end(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        counters = {"bad": 0}
        model = nn.Linear(6, 2)
        run.keep(counters=counters, model=model)
        run.keep_best(model=model)
        for epoch in run.epochs(9):
            with torch.no_grad():
                model.weight += 1
            if not run.log(valid_error=abs(epoch - 2)):
                counters["bad"] += 1
            if counters["bad"] == 3:
                break
        run.load_best()
        return {"test_error": model.weight.sum().item()}

    _, outcome = resumes_equal(tmp_path, train, saves=5)
    assert (outcome.steps, outcome.best_step) == (6, 3)


def test_a_variable_of_the_loop_after_the_last_checkpoint_is_named_with_a_remedy(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        for epoch in run.epochs(2):
            valid = float(epoch)
            run.log(valid_error=valid)
        return {"test_error": valid}

    trained = Trained(tmp_path, train)
    with pytest.raises(Killed):
        trained.train(stop_after=2)
    with pytest.raises(RunError, match=r"'valid'.*resumed after its last checkpoint.*set the variable before the loop"):
        trained.train(resumes=True)


# --- 5: initial values ------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, extra: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.extra = nn.Linear(16, 16) if extra else None
        self.lstm = nn.LSTM(16, 16)
        self.norm = nn.LayerNorm(16)
        self.out = nn.Linear(16, 20)


def test_initial_values_follow_from_the_name_whatever_is_drawn_before():
    found = []

    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        model = Net(extra=config.width == 1)
        run.initial_values(model)
        found.append({name: tensor.clone() for name, tensor in model.named_parameters()})
        return {"test_error": torch.rand(()).item()}

    after = [train.run(width=1)["test_error"], train.run(width=2)["test_error"], train.run(seed=1)["test_error"]]
    both = found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in both)
    assert not torch.equal(found[0]["out.weight"], found[2]["out.weight"])
    assert after[0] == after[1]


def test_initial_values_keep_a_scheme_of_the_models_own():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)
            self.apply(self.init)

        def init(self, module):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    with pytest.raises(RunError, match=r"a\.weight had a standard deviation of 0\.02.*init=draw"):
        does(lambda run: run.initial_values(Own())).run()
    model = Own()
    does(lambda run: run.initial_values(model, init=model.init)).run()
    assert abs(model.b.weight.std().item() - 0.02) < 0.002


def test_initial_values_leave_tied_tensors_and_those_of_no_distribution(capsys):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(64, 64), nn.Linear(64, 64, bias=False)
            self.out.weight = self.embed.weight
            self.position = nn.Parameter(torch.randn(4, 4))
            self.scale = nn.Parameter(torch.ones(3))

    model = Tied()
    before = model.position.clone()
    does(lambda run: run.initial_values(model)).run()
    assert model.out.weight is model.embed.weight
    assert abs(model.embed.weight.std().item() - 1.0) < 0.1
    assert torch.equal(model.position, before)
    assert "initial_values: position keep values" in capsys.readouterr().out


# --- 6 and 7: best weights, logs --------------------------------------------------------------------------------------


def test_what_is_tested_is_recorded(tmp_path):
    @ablate.task(Config, metric=ablate.Metric("accuracy", better="higher"))
    def train(config, run):
        weights = torch.zeros(1)
        run.keep(weights=weights)
        run.keep_best(weights=weights)
        best = []
        for epoch in run.epochs(4):
            weights += 1
            best.append(run.log(valid_accuracy=-abs(epoch - 1), valid_other=epoch))
        if config.width == 1:
            run.load_best()
        return {"test_accuracy": weights}

    best = Trained(tmp_path / "1", train, width=1).train()
    last = Trained(tmp_path / "2", train, width=2).train()
    assert (best.values["test_accuracy"], best.values["valid_accuracy"], best.values["tested_best"]) == (2.0, 0.0, 1.0)
    assert (last.values["test_accuracy"], last.values["valid_accuracy"], last.values["tested_best"]) == (4.0, -2.0, 0.0)
    assert best.best_step == last.best_step == 2
    kept = Checkpoints(tmp_path / "1", "f")
    kept.finish()
    (path,) = (tmp_path / "1").glob("best-*")
    assert kept.best(int(path.name.split("-")[1]))["objects"]["weights"].item() == 2.0


def test_a_best_value_after_the_loop_is_the_one_that_is_loaded(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        weights = torch.zeros(1)
        run.keep(weights=weights)
        run.keep_best(weights=weights)
        for epoch in run.epochs(2):
            weights += 1
            run.log(valid_error=9 - epoch)
        weights += 1
        run.log(valid_error=0)
        weights += 1
        run.load_best()
        return {"test_error": weights}

    once, outcome = resumes_equal(tmp_path, train, saves=2)
    assert outcome.values["test_error"] == 3.0
    assert [step for step, _ in once.logs] == [1, 2, 2]


def test_best_weights_that_were_never_best_are_an_error_with_a_remedy():
    with pytest.raises(RunError, match=r"valid_error was never logged; call run\.log\(valid_error=…\) in the loop"):
        does(lambda run: (run.keep_best(a={}), run.load_best())).run()
    with pytest.raises(RunError, match=r"call run\.keep_best\(model=model\) before the loop"):
        does(lambda run: run.load_best()).run()


def test_a_valid_metric_that_is_never_logged_is_an_error_only_where_the_best_is_asked_for(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        if config.width == 1:
            run.keep_best(counters={})
        list(run.epochs(1))
        return {"test_error": 1}

    assert Trained(tmp_path / "0", train).train().status == "FINISHED"
    with pytest.raises(RunError, match="nothing was best, because valid_error was never logged"):
        Trained(tmp_path / "1", train, width=1).train()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(float("nan")), np.float32("-inf")])
@pytest.mark.parametrize("swallowed", ["", "Exception", "BaseException"])
def test_a_number_that_is_not_finite_ends_the_trial_whatever_the_function_catches(tmp_path, value, swallowed):
    went_on = []

    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        for epoch in run.epochs(9):
            try:
                run.log(valid_error=epoch, train_loss=value if epoch == 2 else 0.0)
            except {"": ZeroDivisionError, "Exception": Exception, "BaseException": BaseException}[swallowed]:
                pass
            went_on.append(epoch)
        return {"test_error": 1}

    outcome = Trained(tmp_path, train).train()
    assert (outcome.status, outcome.diverged_at, outcome.steps) == ("DIVERGED", 3, 3)
    assert outcome.values["test_error"] is None
    assert outcome.values["best_valid_error"] == 0.0
    assert max(went_on) <= 2
    with pytest.raises(Diverged, match="diverged at epoch 3: train_loss="):
        train.run()


def test_a_test_value_that_is_not_finite_is_a_divergence(tmp_path):
    outcome = Trained(tmp_path, returns({"test_error": float("nan"), "other": float("inf"), "none": None})).train()
    assert outcome.status == "DIVERGED"
    assert outcome.values["test_error"] is outcome.values["other"] is outcome.values["none"] is None


def test_none_is_left_out_and_a_step_can_be_given(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        assert run.log(valid_error=None) is False
        for epoch in run.epochs(2):
            run.log(valid_error=None, a=1, step=10 * epoch)
        return {"test_error": 1}

    trained = Trained(tmp_path, train)
    trained.train()
    assert trained.logs == [[0, {"a": 1.0}], [10, {"a": 1.0}]]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"test_error": 1}, "test data is read once, at the end; return {'test_error': …}"),
        ({"valid_error": "1"}, "must be one number, not a str"),
        ({"valid_error": torch.ones(2)}, "must be one number, not a Tensor of 2; for example its mean"),
        ({"valid_error": [1]}, "must be one number, not a list of 1"),
        ({"a:b": 1}, "'a:b' is no name"),
    ],
)
def test_what_cannot_be_logged_is_refused(numbers, message):
    with pytest.raises(RunError) as caught:
        does(lambda run: run.log(**numbers)).run()
    assert message in str(caught.value)


def test_a_metric_that_is_logged_as_its_logarithm_has_no_other_name():
    @ablate.task(Config, metric=ablate.Metric("perplexity", scale="log", logged="nll"))
    def train(config, run):
        if config.width == 1:
            run.log(valid_perplexity=3.0)
        return {"test_perplexity": 3.0}

    with pytest.raises(RunError, match="log valid_nll=…, the logarithm of perplexity"):
        train.run(width=1)
    with pytest.raises(RunError, match=r"no test_nll \(test_perplexity\); add test_nll, the logarithm of perplexity"):
        train.run()


# --- results and outcomes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "the function returned nothing; return a dict"),
        (0.3, "returned a float; return a dict, {\"test_error\": …}"),
        ({}, "returned no test_error (nothing); add test_error"),
        ({"error": 1}, "returned no test_error (error); add test_error"),
        ({"test_error": 1, "name": "x"}, "the result's name: must be one number, not a str"),
        ({"test_error": 1, "test_error_each": np.ones((2, 2))}, "test_error_each: must be one number an example"),
    ],
)  # fmt: skip
def test_a_result_that_cannot_be_recorded_is_refused(tmp_path, result, message):
    with pytest.raises(RunError) as caught:
        Trained(tmp_path, returns(result)).train()
    assert message in str(caught.value)


def test_values_of_examples_that_disagree_with_their_mean_are_a_warning(tmp_path, capsys):
    Trained(tmp_path, returns({"test_error": 50.0, "test_error_each": [0, 1]})).train()
    assert (
        "warning: test_error is 50, and the mean of test_error_each is 0.5; give both in one unit"
        in capsys.readouterr().out
    )
    assert np.load(tmp_path / "test_error_each.npy").tolist() == [0, 1]


# --- values by example ------------------------------------------------------------------------------------------------


def examines(values, result=None, blocks=None, metric=ERROR, times=1):
    """A task that gives these examples, and returns their mean or this."""

    @ablate.task(Config, metric=metric)
    def train(config, run):
        for _ in run.epochs(2):
            run.log(**{f"valid_{metric.recorded}": 1.0})
        for _ in range(times):
            run.examples(values, blocks=blocks)
        return {f"test_{metric.recorded}": np.mean(np.asarray(values, float)) if result is None else result}

    return train


VALUES = [0.0, 100.0, 0.0, 0.0, 100.0, 0.0]
KINDS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "integers": lambda values: np.array(values, np.int32),
    "single precision": lambda values: torch.tensor(values, requires_grad=True),
    "bfloat16": lambda values: torch.tensor(values, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("kind", KINDS)
def test_examples_of_any_kind_are_recorded_in_blocks_and_in_a_file(tmp_path, kind):
    outcome = Trained(tmp_path, examines(KINDS[kind](VALUES), 100 / 3)).train()
    assert outcome.blocks == Blocks([1] * 6, VALUES)
    saved = np.load(tmp_path / EXAMPLES)
    assert (saved.dtype, saved.tolist()) == (np.float16, VALUES)


def test_many_examples_are_cut_into_fifty_runs_of_neighbours(tmp_path):
    values = np.random.default_rng(0).normal(size=1234)
    outcome = Trained(tmp_path, examines(values)).train()
    assert {*outcome.blocks.sizes} == {24, 25}
    assert len(outcome.blocks.sizes) == 50
    ends = np.cumsum(outcome.blocks.sizes)
    assert np.cumsum(outcome.blocks.totals) == pytest.approx(np.cumsum(values)[ends - 1])


NUMBERS = [7, 3, 7, 9, 3, 7]


@pytest.mark.parametrize(
    "labels",
    [
        ["b", "a", "b", "c", "a", "b"],
        ("b", "a", "b", "c", "a", "b"),
        np.array(["b", "a", "b", "c", "a", "b"]),
        NUMBERS,
        np.array(NUMBERS),
        [*np.array(NUMBERS)],
        torch.tensor(NUMBERS),
    ],
)
def test_examples_with_labels_are_recorded_by_label_in_the_order_of_the_first_of_each(tmp_path, labels):
    outcome = Trained(tmp_path, examines(VALUES, blocks=labels)).train()
    assert outcome.blocks == Blocks([3, 2, 1], [0.0, 200.0, 0.0])


def test_examples_of_a_logarithm_and_of_what_is_better_higher_are_as_recorded(tmp_path):
    nll = ablate.Metric("perplexity", scale="log", logged="nll")
    assert Trained(tmp_path / "1", examines([1.0, 2.0], metric=nll)).train().blocks == Blocks([1, 1], [1.0, 2.0])
    higher = ablate.Metric("accuracy", better="higher")
    assert Trained(tmp_path / "2", examines([1.0, 0.0], metric=higher)).train().blocks == Blocks([1, 1], [1.0, 0.0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"values": np.ones((2, 2))}, "must be one number an example, an array of shape (examples,)"),
        ({"values": torch.tensor(1.0)}, "must be one number an example"),
        ({"values": [1.0, [2.0]], "result": 1.0}, "must be one number an example"),
        ({"values": ["1", "2"], "result": 1.0}, "must be one number an example"),
        ({"values": [1.0]}, "there is one example; what test data add to an interval needs at least 2"),
        ({"values": [1.0, float("nan")], "result": 1.0}, "example 1 is nan, and test_error is 1; give finite values"),
        ({"values": [1.0, float("inf")], "result": 1.0}, "example 1 is inf"),
        ({"values": [0.0, 1.0], "times": 2}, "called twice; call it once, after the loop"),
        ({"values": [0.0, 1.0], "blocks": ["a"]}, "there are 2 values and 1 labels of blocks"),
        ({"values": [0.0, 1.0], "blocks": [0.5, 1.5]}, "blocks must be one label an example, a text or a whole number"),
        ({"values": [0.0, 1.0], "blocks": 2}, "blocks must be one label an example"),
        ({"values": [0.0, 1.0], "blocks": ["a", "a"]}, "the labels make 1 block; 2 to 1,000 are possible"),
        ({"values": [0.0] * 1001, "blocks": [*range(1001)]}, "the labels make 1001 blocks; 2 to 1,000 are possible"),
        ({"values": VALUES, "result": 33.0}, "mean of the examples is 33.3333, and the function returned test_error="),
        ({"values": [0.0, 1.0], "metric": ablate.Metric("perplexity", scale="log")}, "is not the logarithm of a mean"),
    ],
)  # fmt: skip
def test_examples_that_cannot_be_used_are_refused_in_a_line(tmp_path, given, message):
    for train in (Trained(tmp_path, examines(**given)).train, examines(**given).run):
        with pytest.raises(RunError) as caught:
            train()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / EXAMPLES).exists()


def test_a_mean_that_was_taken_in_single_precision_is_the_mean(tmp_path):
    values = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) + 3
    assert Trained(tmp_path, examines(values, values.mean())).train().blocks is not None


def test_examples_of_a_trial_that_diverged_are_none_and_those_before_are_gone(tmp_path):
    Trained(tmp_path, examines(VALUES)).train()
    outcome = Trained(tmp_path, examines([1.0, float("nan")])).train()
    assert (outcome.status, outcome.blocks) == ("DIVERGED", None)
    assert not (tmp_path / EXAMPLES).exists()


def test_examples_are_the_same_after_a_stop(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        model = model_of(config)
        optimizer = torch.optim.Adam(model.parameters(), config.lr)
        run.keep(model=model, optimizer=optimizer)
        for _ in run.epochs(config.epochs):
            step_of(model, optimizer, *data())
            run.log(valid_error=error_of(model).mean())
        run.examples(error_of(model))
        return {"test_error": error_of(model).mean()}

    once, outcome = resumes_equal(tmp_path, train, 3)
    assert sum(outcome.blocks.sizes) == 48
    assert (once.folder / EXAMPLES).read_bytes() == (tmp_path / "stopped" / EXAMPLES).read_bytes()


def test_exit_fails_with_a_reason(tmp_path):
    with pytest.raises(RunError, match=r"train called exit\(2\); return a result"):
        Trained(tmp_path, does(lambda run: sys.exit(2))).train()


def test_a_config_that_is_changed_is_a_warning(tmp_path, capsys):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        config.lr *= 2
        return {"test_error": config.lr}

    Trained(tmp_path, train).train()
    assert "warning: train changed its config (lr)" in capsys.readouterr().out


def test_a_trial_is_one_process(tmp_path, monkeypatch):
    task = returns({"test_error": 1})
    monkeypatch.setenv("WORLD_SIZE", "1")
    task.settle(task.Config(), "cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for call in (task.run, lambda: task.settle(task.Config(), "cpu"), lambda: Trained(tmp_path, task).train()):
        with pytest.raises(KnobError, match="WORLD_SIZE=2: a trial is one process"):
            call()


def test_the_folder_is_empty_at_a_start_and_kept_on_resume(tmp_path):
    @ablate.task(Config, metric=ERROR)
    def train(config, run):
        for epoch in run.epochs(3):
            (run.folder / f"{epoch}.txt").touch()
            run.log(valid_error=1, files=len(list(run.folder.iterdir())))
        return {"test_error": 1}

    once, _ = resumes_equal(tmp_path, train, saves=3)
    once.train()
    assert [values["files"] for _, values in once.logs] == [1, 2, 3]


def test_a_plain_call_needs_no_hydra_and_no_mlflow(tmp_path):
    script = write(tmp_path / "plain.py", SCRIPT)
    code = """
        import sys
        from plain import train
        assert "torch" not in sys.modules
        result = train.run(seed=2, width=3, **{"nested.rate": 0.5})
        assert result == {"test_error": 3, "seed": 2, "device": "cpu", "rate": 0.5}, result
        print([name for name in ("hydra", "mlflow", "pandas", "omegaconf") if name in sys.modules])
    """
    assert python(code, script.parent).stdout.strip() == "[]"


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


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ({"config": Seedless}, "Seedless.seeds: every launch has a knob of this name; rename the field"),
        ({"config": make_dataclass("C", [("tracking", int, 1)])}, "C.tracking: every launch has a knob of this name"),
        ({"config": make_dataclass("C", [("hydra", int, 1)])}, "C.hydra: every launch"),
        ({"config": NoDefault}, "NoDefault.width: has no default; every knob has one, for example width = 1"),
        ({"config": WrongDefault}, "width=0.5: must be a whole number"),
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


def lambda_named_train(config, run):
    return {"test_error": 1.0}


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
        ablate.task(lambda_named_train)(lambda_named_train)


def test_a_missing_data_file_is_named_before_anything_trains():
    task = does(lambda run: None, data=["no/such.csv"])
    with pytest.raises(KnobError, match=r"data: .*tests/no/such\.csv does not exist; paths are relative to the script"):
        task.describe(task.Config())
    task = does(lambda run: None, data=lambda config: 3)
    with pytest.raises(KnobError, match="the function returned 3, and has to return a digest"):
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


def test_a_rule_of_the_users_class_is_checked_before_anything_trains():
    task = ablate.task(Model, metric=ERROR)(lambda_named_train)
    with pytest.raises(KnobError, match=r"rate=0\.25 needs another kind"):
        task.check(task._configuration.of({"rate": 0.25}))
    with pytest.raises(KnobError, match="rate=2: must be a finite number at least 0 and at most 1"):
        task.run(rate=2)
    with pytest.raises(KnobError, match="rat=1: unknown knob; did you mean 'rate'"):
        task.run(rat=1)


# --- references, sources, digests -------------------------------------------------------------------------------------

SCRIPT = """
    import sys
    from dataclasses import dataclass, field
    import ablate

    @dataclass
    class Nested:
        rate: float = 0.1

    @dataclass
    class Config:
        width: int = 1
        nested: Nested = field(default_factory=Nested)
        seed: int = 9
        device: str = "cuda"

    @ablate.task(Config, metric=ablate.Metric("error"))
    def train(config, run):
        return {"test_error": config.width, "seed": config.seed, "device": config.device, "rate": config.nested.rate}
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def python(code: str, folder: Path):
    root = str(Path(ablate.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": root}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=100)


@pytest.fixture
def _clean(monkeypatch):
    """What a test imports from its own folder is forgotten."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith("/tmp"):
            del sys.modules[name]


@pytest.mark.usefixtures("_clean")
def test_a_task_is_loaded_by_file_and_name_and_pickles_as_its_reference(tmp_path):
    script = write(tmp_path / "one_task.py", SCRIPT + "\n    ARGV = sys.argv[:]\n")
    argv = list(sys.argv)
    task = load_task(f"{script}:train")
    assert task.reference == f"{script}:train"
    assert load_task(str(script)) is task
    assert pickle.loads(pickle.dumps(task)) is task
    assert pickle.loads(pickle.dumps(sys.modules["one_task"].Nested)) is sys.modules["one_task"].Nested
    assert [str(script)] == sys.modules["one_task"].ARGV
    assert sys.argv == argv


@pytest.mark.usefixtures("_clean")
def test_a_script_whose_name_is_taken_or_that_lies_in_a_package_is_loaded_too(tmp_path):
    taken = load_task(str(write(tmp_path / "json.py", SCRIPT)))
    assert taken.function.__module__.startswith("ablate_task_")
    write(tmp_path / "pack_of_mine/__init__.py", "")
    write(tmp_path / "pack_of_mine/sub/__init__.py", "")
    write(tmp_path / "pack_of_mine/other.py", "WIDTH = 3")
    script = write(tmp_path / "pack_of_mine/sub/train.py", "    from ..other import WIDTH\n" + SCRIPT)
    task = load_task(str(script))
    assert task.function.__module__ == "pack_of_mine.sub.train"
    assert {path.name for path in closure(script)} == {"train.py", "__init__.py", "other.py"}


@pytest.mark.parametrize(
    ("text", "reference", "message"),
    [
        (SCRIPT, "scirpt.py", "there is no file .*scirpt.py; did you mean 'script.py'"),
        (SCRIPT, "script.py:trian", "script.py has no trian; did you mean 'train'"),
        (SCRIPT + "\n    def other(): pass", "script.py:other", "other is a plain function; write @ablate.task"),
        ("x = 1", "script.py", "script.py has no task; write @ablate.task"),
        (SCRIPT + "\n    second = ablate.task(Config, metric=ablate.Metric('e'))(train.function)", "script.py",
         "has several tasks, train, second; for example script.py:train"),
        (SCRIPT + "\n    1 / 0", "script.py", "importing script.py failed in line [0-9]+: ZeroDivisionError"),
        (SCRIPT + "\n    sys.exit()", "script.py", "calls exit while it is imported; put what parses arguments"),
        (SCRIPT + "\n    ablate.main(train)", "script.py",
         r'ablate.main\(…\) runs while the file is imported.*below a guard, if __name__ == "__main__":'),
        (SCRIPT.replace("width: int = 1", "width: int"), "script.py", "Config.width: has no default"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("_clean")
def test_a_reference_that_names_no_task_says_why(tmp_path, text, reference, message):
    write(tmp_path / "script.py", text)
    with pytest.raises(KnobError, match=message) as caught:
        load_task(str(tmp_path / reference))
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith("task=")


def test_a_task_that_no_other_process_can_import_has_no_reference(tmp_path):
    with pytest.raises(KnobError, match="a task is at the top level of its file"):
        _ = returns({}).reference
    space: dict = {"Config": Config}
    cell = 'import ablate\n@ablate.task(Config, metric=ablate.Metric("e"))\ndef train(config, run): pass'
    exec(compile(cell, "<ipython-input-1>", "exec"), space)
    with pytest.raises(KnobError, match=r"in a notebook, write its cell with %%writefile train\.py"):
        _ = space["train"].reference


@pytest.mark.usefixtures("_clean")
def test_sources_are_the_script_and_what_of_the_users_own_it_imports(tmp_path):
    script = write(
        tmp_path / "exp/script.py",
        """
        import json, torch.nn as nn, beside_it
        from library_of_mine import net
        def late():
            from space_of_mine.inner import x
            import importlib
            importlib.import_module("by_name")
        """,
    )
    write(tmp_path / "exp/beside_it.py", "import second_hand")
    write(tmp_path / "exp/second_hand.py", "")
    write(tmp_path / "exp/by_name.py", "def broken(:")
    write(tmp_path / "exp/unused.py", "")
    write(tmp_path / "exp/space_of_mine/inner.py", "")
    write(tmp_path / "exp/space_of_mine/unused.py", "")
    write(tmp_path / "lib/library_of_mine/__init__.py", "")
    write(tmp_path / "lib/library_of_mine/deep/net.py", "from .. import other")
    sys.path.insert(0, str(tmp_path / "lib"))
    found = {name for name in sources(script) if not name.startswith("ablate/")}
    assert found == {
        "script.py", "beside_it.py", "second_hand.py", "by_name.py", "space_of_mine/inner.py",
        "../lib/library_of_mine/__init__.py", "../lib/library_of_mine/deep/net.py",
    }  # fmt: skip
    of_ablate = {name.split("/")[1] for name in sources(script) if name.startswith("ablate/")}
    assert of_ablate == {"functions", "train"}
    assert {"ablate/functions/run.py", "ablate/train/checkpoint.py"} <= sources(script).keys()
    assert "ablate/functions/check.py" not in sources(script)


def test_a_digest_is_of_bytes_wherever_they_lie_and_reads_a_file_again_when_it_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        write(tmp_path / folder / "x.csv", "1")
        write(tmp_path / folder / "sub/y.csv", "2")
    assert ablate.digest("a") == ablate.digest(tmp_path / "b")
    write(tmp_path / "b/sub/y.csv", "33")
    assert ablate.digest("a") != ablate.digest("b")
    os.rename("a/x.csv", "a/z.csv")
    assert ablate.digest("a/z.csv") == ablate.digest("b/x.csv")
    assert ablate.digest("a") != ablate.digest("b")
    array = np.arange(6)
    assert len({ablate.digest(each) for each in (array, array.reshape(2, 3), array.astype(float), b"1")}) == 4
    assert ablate.digest(array) == ablate.digest(torch.arange(6))
    with pytest.raises(KnobError, match="has no bytes of its own"):
        ablate.digest([object()])
    read = []
    monkeypatch.setattr(digests.hashlib, "file_digest", lambda *a: read.append(a))
    ablate.digest("b/x.csv")
    assert not read


def test_data_is_relative_to_the_script_from_any_folder(tmp_path, monkeypatch):
    task = does(lambda run: None, data="conftest.py")
    by_function = does(lambda run: None, data=lambda config: ablate.digest("conftest.py"))
    monkeypatch.chdir(tmp_path)
    facts = task.describe(task.Config())
    assert (
        facts.digest
        == by_function.describe(by_function.Config()).digest
        == ablate.digest(Path(__file__).with_name("conftest.py"))
    )
    assert facts.data == "conftest.py"
    nothing = returns({})
    assert nothing.describe(nothing.Config()).digest == ""


def test_importing_ablate_and_declaring_a_task_loads_nothing_heavy(tmp_path):
    write(tmp_path / "light.py", SCRIPT)
    code = """
        import sys, light
        print([name for name in ("torch", "pandas", "hydra", "mlflow", "scipy", "matplotlib") if name in sys.modules])
    """
    assert python(code, tmp_path).stdout.strip() == "[]"


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
    assert "  lr               learning rate (a finite number; default 1.0)" in describe(task.Config)
    with pytest.raises(KnobError, match="optimizer=rms: must be one of sgd, adam"):
        task.run(optimizer="rms")
    parser.add_argument("file")
    parser.add_argument("--out", required=True)
    parser.add_argument("-v", action="count")
    parser.add_argument("--flag", type=bool, default=False)
    with pytest.raises(KnobError) as caught:
        ablate.arguments(parser)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["file", "--out", "-v", "--flag"]
