# ruff: noqa: NPY002 (users' code draws from NumPy's global generator)
"""A function of one's own under `run`: its loop, its seeds, and what it goes on with after a kill."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from own_task import (
    ERROR,
    Config,
    Killed,
    Stopping,
    Trained,
    data,
    does,
    error_of,
    model_of,
    resumes_equal,
    step_of,
    write,
)
from torch import nn
from torch.optim import lr_scheduler as schedulers

import ablate
from ablate.functions import watch
from ablate.functions.ending import Pace
from ablate.functions.fresh import Server, write_job
from ablate.functions.state import RunError
from ablate.train import Checkpoints

# --- state is restored at the loop ------------------------------------------------------------------------------------

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


# --- every epoch is seeded --------------------------------------------------------------------------------------------


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


# --- steps ------------------------------------------------------------------------------------------------------------


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
        pace.save(save, at_once=False)
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
