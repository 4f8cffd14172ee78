"""Trials that train together end as they do alone."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import CPU, TINY, knobs_of, make_plan, study_of, train_in_process
from program import claim_folder, inside, journals, wait_until

from ablate.engines import worker
from ablate.engines.assignment import Assignment
from ablate.engines.cores import best_workers, container_memory, control_groups, threads_of
from ablate.engines.engine import Demand, Machine
from ablate.engines.local import LocalEngine
from ablate.engines.processes import WorkerProcess
from ablate.knobs import KnobError
from ablate.protocol import Trial
from ablate.study.packs import demand_of, make_packs
from ablate.tasks.language_model import engine as engine_module
from ablate.tasks.language_model import training
from ablate.tasks.language_model.data import load_corpus
from ablate.tasks.language_model.engine import fit
from ablate.tasks.language_model.task import LanguageModel
from ablate.track.claims import claimed, read_bytes, read_trial
from ablate.track.folder import Folder
from ablate.track.journal import JOURNAL, last_attempt, status
from ablate.train import Checkpoints

# What a pack's members may differ in; a sixth of the windows below are clipped.
MEMBERS = [
    (0, []),
    (1, []),
    (0, ["dropout=0.4"]),
    (2, ["dropout=0.1", "lr=0.5", "schedule=plateau", "decay=4", "clip=null"]),
    (0, ["lr=2.0", "clip=0.05", "test_weights=last", "embedding_std=0.1"]),
    (0, ["optimizer=adam", "lr=0.01", "schedule=cosine", "warmup=0.2", "lr_floor=0.1", "forget_bias=1"]),
    (0, ["order_seed=5", "init_seed=4", "dropout_seed=3"]),
    (3, ["order=text", "schedule=exponential", "decay=1.5", "decay_from=0.5"]),
]
MODELS = {
    "the better LSTM": ["model=better_lstm", "depth=2"],
    "an untied LSTM": ["model=lstm", "depth=1", "embedding=6"],
    "residual tanh layers": ["model=rnn", "depth=3", "residual=true"],
    "a scaled LSTM with a projection": ["model=lstm", "tie=true", "init=scaled", "projection=0.01"],
}
EACH_MODEL = [
    pytest.param(model, id=name, marks=[] if name == "an untied LSTM" else pytest.mark.slow)
    for name, model in MODELS.items()
]
# In fp32, after 50 updates: sums of products are taken in another order, and the updates carry that on.
TOLERANCE = 2e-4


def trials_of(model, *overrides, members=MEMBERS):
    common = [*TINY, *model, "optimizer=sgd", "lr=1.0", "clip=0.25", "dropout=0.2", "windows=50", "valid_every=10"]
    return [Trial(knobs_of(*common, "precision=fp32", *own, *overrides), seed) for seed, own in members]


def train(trials, folder, state_of=None, sink_of=None):
    """Train as one pack; each trial's events and outcome, without what a clock decides."""
    corpus = load_corpus(trials[0].config.data)
    events = [[] for _ in trials]

    def sink(into):
        def take(event, /, **values):
            into.append({"event": event, **values})
            return len(into)

        return take

    checkpoints = [Checkpoints(folder / str(i), "x") for i in range(len(trials))]
    for kept in checkpoints:
        kept.folder.mkdir(parents=True, exist_ok=True)
    states = None if state_of is None else [kept.newest(10**9, state_of)[0] for kept in checkpoints]
    outcomes = fit(trials, corpus, [sink(into) for into in events], checkpoints, states)
    clock = {"seconds": 0.0, "train_seconds": 0.0}
    for event in (event for each in events for event in each):
        event.pop("seconds")
        event.update(event.pop("values"))
        event.pop("tokens_per_s", None)
    return events, [replace(outcome, **clock) for outcome in outcomes]


def assert_alike(pack, alone, tolerance=TOLERANCE):
    for together, by_itself in zip(pack, alone, strict=True):
        assert together.keys() == by_itself.keys()
        for name, value in by_itself.items():
            assert together[name] == (pytest.approx(value, rel=tolerance) if isinstance(value, float) else value), name


@pytest.mark.parametrize("model", EACH_MODEL)
def test_each_trial_of_a_pack_is_the_one_trained_alone(model, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "LOG_EVERY", 1)
    trials = trials_of(model)
    curves, outcomes = train(trials, tmp_path / "pack")
    for number, trial in enumerate(trials):
        (curve,), (outcome,) = train([trial], tmp_path / f"alone {number}")
        assert len([e for e in curve if "train_nll" in e]) == 50
        assert_alike(curves[number], curve)
        rounded = {"values": {}, "sample": "", "blocks": None}
        assert replace(outcomes[number], **rounded) == replace(outcome, **rounded)
        assert outcomes[number].values == pytest.approx(outcome.values, rel=TOLERANCE)
        assert outcomes[number].values["clipped"] == outcome.values["clipped"]
        assert outcomes[number].blocks.sizes == outcome.blocks.sizes
        assert outcomes[number].blocks.totals == pytest.approx(outcome.blocks.totals, rel=10 * TOLERANCE)
    assert len({round(outcome.values["test_nll"], 4) for outcome in outcomes}) == len(trials), (
        "they are different trials"
    )


def test_a_trial_that_diverges_is_over_and_the_others_go_on_as_alone(tmp_path):
    members = [MEMBERS[0], (1, ["lr=1e38", "clip=null"]), MEMBERS[2]]
    trials = trials_of(MODELS["the better LSTM"], members=members)
    curves, (first, bad, third) = train(trials, tmp_path / "pack")
    assert (bad.status, bad.values["test_nll"], bad.sample) == ("DIVERGED", None, "")
    assert bad.diverged_at <= bad.steps == 10
    assert curves[1][-1]["step"] == 10
    _, (bad_alone,) = train(trials[1:2], tmp_path / "bad alone")
    # Of numbers that overflow, the window in which they do is a matter of rounding.
    assert replace(bad, diverged_at=0) == replace(bad_alone, diverged_at=0)
    assert Checkpoints(tmp_path / "pack" / "1", "x").last()["window"] == 10
    for together, trial in ((first, trials[0]), (third, trials[2])):
        _, (alone,) = train([trial], tmp_path / "alone")
        assert (together.status, together.values) == ("FINISHED", pytest.approx(alone.values, rel=TOLERANCE))


def test_a_pack_in_which_all_diverge_ends(tmp_path):
    trials = trials_of(MODELS["an untied LSTM"], "lr=1e38", "clip=null", members=[(0, []), (1, [])])
    _, outcomes = train(trials, tmp_path)
    assert [(outcome.status, outcome.steps) for outcome in outcomes] == [("DIVERGED", 10)] * 2


def test_a_pack_goes_on_from_its_checkpoints_to_the_same_bits(tmp_path):
    trials = trials_of(MODELS["the better LSTM"], "optimizer=adam", "lr=0.01", members=MEMBERS[:3])
    curves, outcomes = train(trials, tmp_path)
    rest, again = train(trials, tmp_path, state_of=40)
    assert again == outcomes
    assert all(outcome.blocks is not None for outcome in outcomes)
    assert [each[0]["step"] for each in rest] == [50] * 3
    assert [each for curve in rest for each in curve] == [e for curve in curves for e in curve if e["step"] == 50]


def test_what_a_pack_has_saved_goes_on_alone(tmp_path):
    trials = trials_of(MODELS["the better LSTM"], members=MEMBERS[:3])
    _, outcomes = train(trials, tmp_path)
    for number, trial in enumerate(trials):
        kept = Checkpoints(tmp_path / str(number), "x")
        state, refused = kept.newest(10**9, 40)
        assert (state["window"], refused) == (40, [])
        corpus = load_corpus(trial.config.data)
        (outcome,) = fit([trial], corpus, [lambda event, /, **values: 0], [kept], [state])
        assert outcome.values["test_nll"] == pytest.approx(outcomes[number].values["test_nll"], rel=TOLERANCE)


def test_a_checkpoint_of_a_pack_is_no_larger_than_one_of_a_trial_alone(tmp_path):
    trials = trials_of(MODELS["an untied LSTM"], members=[(seed, []) for seed in range(8)])
    train(trials, tmp_path / "pack")
    train(trials[:1], tmp_path / "alone")
    sizes = [
        sum(path.stat().st_size for path in (tmp_path / name / "0").glob("state-*.pt")) for name in ("pack", "alone")
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)


def test_seconds_are_a_share_of_the_pack(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(engine_module.time, "perf_counter", lambda: now[0])
    window = engine_module.train_window
    monkeypatch.setattr(engine_module, "train_window", lambda *a: (now.__setitem__(0, now[0] + 1.0), window(*a))[1])
    trials = trials_of(MODELS["an untied LSTM"], members=MEMBERS[:2])
    corpus = load_corpus(trials[0].config.data)
    checkpoints = [Checkpoints(tmp_path, "x")] * 2
    outcomes = fit(trials, corpus, [lambda event, /, **values: 0] * 2, checkpoints)
    assert [(outcome.seconds, outcome.train_seconds) for outcome in outcomes] == [(25.0, 25.0)] * 2


def plan_of(folder, *overrides, **levels):
    study = study_of(*TINY, *overrides, *(f"{k}={v}" for k, v in levels.items()))
    return make_plan(study, Folder(folder))


def packs_of(folder, *overrides):
    study = study_of(*TINY, *overrides)
    return make_packs(make_plan(study, Folder(folder)), study, CPU)


def plans_of(folder, *settings):
    return [planned for setting in settings for planned in plan_of(folder, *setting)]


def seeds_of(packs):
    return [[planned.trial.seed for planned in pack] for pack in packs]


def test_seeds_and_cells_that_differ_in_numbers_alone_are_packed(tmp_path):
    plan = plans_of(tmp_path, ["seeds=2", "pack=8"], ["dropout=0.5", "lr=0.1", "pack=8"], ["clip=null", "pack=8"])
    assert [len(pack) for pack in make_packs(plan, study_of(*TINY, "pack=8"), CPU)] == [4]
    shapes = ["depth=2"], ["tie=true"], ["batch=8"], ["windows=41"], ["data.seed=5"], ["rnn=tanh"]
    plan = plans_of(tmp_path, *([*shape, "pack=8"] for shape in ([], *shapes)))
    assert [len(pack) for pack in make_packs(plan, study_of(*TINY, "pack=8"), CPU)] == [1] * 7


def test_a_pack_holds_as_many_as_asked_for_and_on_a_cpu_one_by_itself(tmp_path):
    assert seeds_of(packs_of(tmp_path, "seeds=5", "pack=2")) == [[0, 1], [2, 3], [4]]
    assert seeds_of(packs_of(tmp_path, "seeds=3", "device=cpu")) == [[0], [1], [2]]


def test_auto_is_as_many_as_fit_into_a_cuda_device(tmp_path):
    plan = plan_of(tmp_path, "seeds=40", "hidden=650", "embedding=650", "data.vocab_size=10000", "data.tokens=20000")
    for gib, largest in ((80, 32), (8, 8), (0.1, 1)):
        size = len(make_packs(plan, study_of(*TINY), Machine("cuda", gib * 2**30))[0])
        assert (size == 32) if largest == 32 else (1 <= size <= 2 * largest), gib


def test_a_layer_that_cannot_be_packed_is_trained_alone(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, "seeds=3", "pack=3")
    monkeypatch.setattr(training, "can_pack", lambda rnn: False)
    assert seeds_of(make_packs(plan, study_of(*TINY, "pack=8"), CPU)) == [[0], [1], [2]]


def events_of(planned):
    return last_attempt(read_trial(planned.folder))


def test_a_pack_that_fails_leaves_its_trials_to_be_trained_alone(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, "seeds=3", "pack=3")
    real = LanguageModel.fit

    def fails_on_seed_1(task, trials, *rest):
        if any(trial.seed == 1 for trial in trials):
            raise MemoryError("seed 1 is too much")
        return real(task, trials, *rest)

    monkeypatch.setattr(LanguageModel, "fit", fails_on_seed_1)
    assert train_in_process(plan) == [worker.ALONE] * 3
    assert [train_in_process([planned]) for planned in plan] == [[worker.TRAINED]] * 3
    assert [status(events_of(planned)) for planned in plan] == ["FINISHED", "FAILED", "FINISHED"]


def killed_after(plan, windows, monkeypatch):
    """Train a pack until a kill comes after so many windows; a killed process writes no end."""
    window, done = engine_module.train_window, []

    def kill(*arguments):
        done.append(1)
        if len(done) > windows:
            raise KeyboardInterrupt
        return window(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "train_window", kill)
        train_in_process(plan)
    for planned in plan:
        journal = claim_folder(planned.folder) / JOURNAL
        journal.write_text("".join(line for line in journal.read_text().splitlines(True) if '"failed"' not in line))


def resumed_at(plan):
    return [[e["step"] for e in events_of(planned) if e["event"] == "resumed"] for planned in plan]


def test_a_pack_killed_between_two_checkpoints_goes_on_from_the_last_that_all_have(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, "seeds=2", "pack=2", "windows=80")
    killed_after(plan, 50, monkeypatch)
    (latest,) = plan[1].folder.glob("claim-*/state-0000000040-*.pt")
    latest.unlink()
    assert train_in_process(plan) == [worker.TRAINED] * 2
    assert resumed_at(plan) == [[20], [20]]
    undisturbed = plan_of(tmp_path / "undisturbed", "seeds=2", "pack=2", "windows=80")
    train_in_process(undisturbed)
    assert [events_of(p)[-1]["values"]["test_nll"] for p in plan] == [
        events_of(p)[-1]["values"]["test_nll"] for p in undisturbed
    ]


def test_trials_that_have_not_come_equally_far_go_on_alone_and_lose_nothing(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, "seeds=2", "pack=2", "windows=80")
    killed_after(plan[:1], 50, monkeypatch)
    killed_after(plan[1:], 10, monkeypatch)
    assert train_in_process(plan) == [worker.ALONE] * 2
    assert [train_in_process([planned]) for planned in plan] == [[worker.TRAINED]] * 2
    assert resumed_at(plan) == [[40], [0]]


def test_what_stands_or_is_busy_is_left_out_of_a_pack(tmp_path):
    plan = plan_of(tmp_path, "seeds=3", "pack=3")
    assert train_in_process(plan[:1]) == [worker.TRAINED]
    before = read_bytes(plan[0].folder), sorted(plan[0].folder.glob("claim-0001/*"))
    with claimed(plan[2].folder, "another launch"):
        assert train_in_process(plan) == [worker.STANDS, worker.TRAINED, worker.BUSY]
    assert (read_bytes(plan[0].folder), sorted(plan[0].folder.glob("claim-0001/*"))) == before
    assert read_trial(plan[2].folder) == []


@pytest.mark.slow
def test_a_pack_is_recorded_and_reported_like_the_same_trials_alone(tmp_path):
    study = ["-m", *TINY, "dropout=0,0.3", "seeds=2", "tracking=off", "report=false", "name=study", "model=better_lstm"]
    folders = tmp_path / "pack", tmp_path / "alone"
    for folder, pack in zip(folders, ("pack=4", "pack=1"), strict=True):
        folder.mkdir()
        code, _, err = inside(*study, pack, folder=folder)
        assert (code, err) == (0, "")
    together, alone = (journals(folder) for folder in folders)
    assert {path.name for path in together} == {path.name for path in alone}
    by_name = {path.name: events for path, events in alone.items()}
    for path, events in together.items():
        assert events[0]["facts"]["pack"] == "4"
        assert events[-1]["values"]["test_nll"] == pytest.approx(
            by_name[path.name][-1]["values"]["test_nll"], rel=TOLERANCE
        )
        blocks, of_alone = (each[-1]["blocks"] for each in (events, by_name[path.name]))
        assert blocks["sizes"] == of_alone["sizes"]
        assert blocks["totals"] == pytest.approx(of_alone["totals"], rel=10 * TOLERANCE)
    assert len({events[0]["process"] for events in together.values()}) == 1


@pytest.mark.slow
def test_a_worker_killed_with_a_pack_leaves_its_trials_to_be_trained_alone(tmp_path):
    long = [*TINY, "model=better_lstm", "hidden=16", "windows=800", "valid_every=200", "seeds=2", "pack=2"]

    def kill_the_worker(_):
        wait_until(lambda: sum(any(e.get("step", 0) >= 260 for e in of) for of in journals(tmp_path).values()) == 2)
        (pid,) = {e["process"].split(":")[1] for of in journals(tmp_path).values() for e in of if "process" in e}
        os.kill(int(pid), signal.SIGKILL)

    code, out, err = inside(*long, "tracking=off", "report=false", folder=tmp_path, meanwhile=kill_the_worker)
    assert (code, err) == (0, ""), out
    for events in journals(tmp_path).values():
        assert [e["event"] for e in events if e["event"] != "log"] == [
            "started",
            "started",
            "finished",
        ]
        assert last_attempt(events)[0]["anew"] == "pack changed (2 → 1)", "other products, other bits"
        assert math.isfinite(events[-1]["values"]["test_nll"])


@pytest.mark.parametrize(
    ("overrides", "cores", "gib", "workers"),
    [
        (["seeds=6"], 4, 16, 4),
        (["seeds=3"], 8, 16, 3),
        (["seeds=6", "hidden=650", "embedding=650"], 8, 16, 6),
        (["seeds=6", "hidden=650", "embedding=650"], 1, 16, 1),
        (["seeds=6", "threads=4"], 8, 16, 2),
        (["seeds=6"], 8, 1.6, 2),
        (["seeds=6"], 8, 0.1, 1),
        (["seeds=6", "pack=3"], 8, 16, 2),
    ],
)
def test_as_many_workers_as_cores_memory_and_packs_are_good_for(tmp_path, overrides, cores, gib, workers):
    study = study_of(*TINY, "threads=null", "device=cpu", "workers=auto", *overrides)
    demand = demand_of(make_packs(make_plan(study, Folder(tmp_path)), study, CPU), study)
    assert best_workers(demand, study.launch.threads, cores, gib * 2**30) == workers


def engine_of(*overrides):
    study = study_of(*TINY, *overrides)
    return LocalEngine(study.launch, study.task)


def test_cores_that_a_study_leaves_idle_are_told_with_what_to_type(monkeypatch):
    monkeypatch.setattr("ablate.engines.local.cores", lambda: 8)
    knobs = ["threads=null", "device=cpu", "workers=auto"]
    assert engine_of(*knobs).advice(Demand(2, 0)).startswith("2 of 8 cores train; threads=4 makes each trial faster")
    assert engine_of(*knobs).advice(Demand(5, 0)) is None, "fewer than two for each"
    assert engine_of(*knobs).advice(Demand(0, 0)) is None, "nothing is left to train"
    assert engine_of(*knobs, "threads=1").advice(Demand(2, 0)) is None, "it was asked for"


def test_a_number_of_workers_is_taken_as_it_is_and_other_values_are_refused(tmp_path):
    assert engine_of("workers=7").most(Demand(2, 0)) == 7
    for knob in ("workers", "pack"):
        for bad in ("0", "many", "1.5", "null"):
            with pytest.raises(KnobError, match=rf"{knob}={bad}: must be auto, or a whole number at least 1"):
                knobs_of(*TINY, f"{knob}={bad}")


def test_a_containers_limit_is_the_memory_that_it_has(tmp_path):
    assert container_memory(tmp_path / "none") == math.inf
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert container_memory(tmp_path) == math.inf
    (tmp_path / "memory.max").write_text("1000\n")
    assert container_memory(tmp_path) == 300
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert container_memory(tmp_path) == 450


def test_a_limit_of_every_group_that_a_process_is_in_counts(tmp_path):
    root = Path("/sys/fs/cgroup")
    (tmp_path / "cgroup").write_text("1:cpu:/x\n0::/slurm/job\n")
    assert control_groups(tmp_path / "cgroup") == [root / "slurm" / "job", root / "slurm", root]
    (tmp_path / "cgroup").write_text("0::/\n")
    assert control_groups(tmp_path / "cgroup") == control_groups(tmp_path / "none") == [root]


def with_gpus(engine, gpus, monkeypatch):
    monkeypatch.setattr("ablate.engines.local.visible_gpus", lambda: gpus)
    engine.__dict__["machine"] = Machine("cuda", 80.0 * 2**30)  # as if it had been asked
    return engine


@pytest.mark.parametrize("gpus", [["0"], ["0", "1", "2"]])
def test_packs_fill_a_cuda_device_so_that_one_worker_a_device_is_enough(gpus, monkeypatch):
    engine = with_gpus(engine_of("threads=null", "workers=auto"), gpus, monkeypatch)
    assert engine.most(Demand(6, 1e12)) == len(gpus)
    assert engine.most(Demand(1, 1e12)) == 1


def test_every_gpu_has_a_worker_that_sees_no_other_and_its_part_of_the_cores(monkeypatch):
    monkeypatch.setattr("ablate.engines.local.threads_of", lambda device: 9)
    engine = with_gpus(engine_of("threads=null", "workers=auto"), ["3", "5"], monkeypatch)
    given = []

    class Worker:
        is_alive = True

        def __init__(self, environment):
            self.environment = environment

        def start(self):
            pass

        leave = kill = start

        def give(self, pack):
            given.append((self.environment["CUDA_VISIBLE_DEVICES"], pack[0].threads))

        def result(self):
            return ["trained"]

        def end(self):
            pass

    monkeypatch.setattr("ablate.engines.local.WorkerProcess", Worker)
    engine.begin(Demand(4, 0))
    assert engine.room(4) == 2
    first, second = (engine.submit([assigned()]) for _ in range(2))
    second.result()
    engine.submit([assigned()])
    first.result()
    engine.submit([assigned()])
    assert given == [("3", 4), ("5", 4), ("5", 4), ("3", 4)]
    engine.close()


@pytest.mark.parametrize("instant", ["start", "give"])
def test_a_signal_while_a_trial_is_handed_out_leaves_no_worker(instant, monkeypatch):
    made = []

    class Worker(WorkerProcess):
        def start(self):
            super().start()
            made.append(self)
            comes("start")

        def give(self, pack):
            comes("give")

    def comes(here):
        if here == instant:
            raise KeyboardInterrupt

    monkeypatch.setattr("ablate.engines.local.WorkerProcess", Worker)
    engine = engine_of()
    engine.begin(Demand(2, 0))
    with pytest.raises(KeyboardInterrupt):
        engine.submit([assigned()])
    engine.close()
    assert [worker.is_alive for worker in made] == [False]


def assigned():
    return Assignment("t", {}, 0, "cuda", None, "f", Path("f"), {}, {}, {}, None, "c", "l", None, 300)


@pytest.mark.parametrize(
    ("said", "device", "threads"),
    [
        (None, "cpu", 1), ("4", "cpu", 1),
        (None, "cuda", 8), ("4", "cuda", 4), ("20", "cuda", 8), ("2,1", "cuda", 2), ("0", "cuda", 8),
        ("many", "cuda", 8),
    ],
)  # fmt: skip
def test_a_trial_has_one_thread_and_beside_a_cuda_device_all_cores_up_to_omp_num_threads(
    said, device, threads, monkeypatch
):
    monkeypatch.setattr("ablate.engines.cores.cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert threads_of(device) == threads
