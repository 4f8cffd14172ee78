"""seeds=auto: as many seeds as it takes, looked at after every one that all cells have trained."""

from __future__ import annotations

import re
import shutil

import pytest
from conftest import TINY, study_of
from program import inside, journals, kill_tree, start, wait_until

from ablate.knobs import KnobError
from ablate.report import __main__ as report_main
from ablate.track.folder import Folder
from ablate.track.journal import read_events
from ablate.track.mlflow.mirror import Mirror
from ablate.track.mlflow.store import Store
from ablate.track.mlflow.study_run import digest
from ablate.track.read import read_studies, read_study

pytestmark = pytest.mark.slow  # whole studies, again and again

# The error is the effect, and a noise that follows from seed and effect.
TASKS = """
import random
import time
from dataclasses import dataclass
import ablate

@dataclass
class Config:
    effect: float = 0.0
    noise: float = 1.0
    slow: float = 0.0
    fails: str = ""

@ablate.task(Config, metric=ablate.Metric("error", unit="%"))
def train(config, run):
    for _ in run.epochs(2):
        time.sleep(config.slow)
        run.log(valid_error=1.0)
    if f"{run.seed}:{config.effect:g}" in config.fails.split():
        raise RuntimeError("no signal")
    noise = random.Random(f"{run.seed} {config.effect}").gauss(0, config.noise)
    return {"test_error": 50 + config.effect + noise}

@ablate.task(Config, metric=ablate.Metric("accuracy", better="higher"))
def shares(config, run):
    return {"test_accuracy": 0.5}
"""
AUTO = ["-m", "task=tasks.py:train", "seeds=auto", "tracking=off", "report=false", "name=s"]
BIG, NONE = "effect=0,100", "effect=0,0.001"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tasks.py").write_text(TASKS)
    return tmp_path


def launches(folder, study="s"):
    events = read_events(folder / f"runs/studies/{study}.jsonl")[0]
    return [event for event in events if event["event"] == "launched"]


def seeds_of(launched):
    (seeds,) = {tuple(trial["seed"] for trial in cell["trials"]) for cell in launched["cells"]}
    return len(seeds)


def looks(out):
    return [line for line in out.splitlines() if re.match(r"\d+ seeds: ", line)]


def test_a_big_effect_takes_three_seeds(folder):
    code, out, err = inside(*AUTO, BIG, folder=folder)
    assert (code, err) == (0, "")
    assert looks(out) == ["3 seeds: 1 of 1 comparisons decided; no more seeds are needed"]
    assert "study s: 2 cells, 6 trials" in out
    assert len(journals(folder)) == 6
    first, last = launches(folder)
    assert first["stopping"] == {"seeds": "auto", "max_seeds": 20, "look": None}
    found = {"seeds": 3, "comparisons": 1, "decided": ["effect=100"], "undecided": []}
    assert last["stopping"] == {"seeds": "auto", "max_seeds": 20, "look": found}
    assert (seeds_of(first), seeds_of(last), last["worth"]) == (3, 3, None)
    assert first["began"] == last["began"] <= last["time"]
    results = read_study(Folder(folder / "runs"))
    assert (results.stopping, results.launched) == (last["stopping"], first["began"])


def test_no_effect_takes_all_that_may_be_and_no_seed_begins_before_the_look_says_so(folder):
    code, out, err = inside(*AUTO, NONE, "max_seeds=6", "workers=2", folder=folder)
    assert (code, err) == (0, "")
    undecided = "0 of 1 comparisons decided, 1 undecided (effect=0.001)"
    assert looks(out) == [
        *(f"{n} seeds: {undecided}; one more seed of every cell" for n in (3, 4, 5)),
        f"6 seeds: {undecided}; stopped by max_seeds=6",
    ]
    assert [seeds_of(launched) for launched in launches(folder)] == [3, 4, 5, 6, 6]
    times = {}
    for events in journals(folder).values():
        assert [e["event"] for e in events if e["event"] != "log"] == ["started", "finished"]
        times.setdefault(events[0]["seed"], []).append((events[0]["time"], events[-1]["time"]))
    assert [len(times[seed]) for seed in range(6)] == [2] * 6
    for seed in range(3, 6):
        before = [end for earlier in range(seed) for _, end in times[earlier]]
        assert max(before) <= min(begun for begun, _ in times[seed])


def test_a_difference_that_is_worth_nothing_needs_no_more_seeds(folder):
    code, out, err = inside(*AUTO, NONE, "worth=3", folder=folder)
    assert (code, err) == (0, "")
    assert looks(out)[-1].endswith("1 of 1 comparisons decided; no more seeds are needed")
    last = launches(folder)[-1]
    assert (seeds_of(last), last["worth"]) == (6, 3.0)


def test_a_restart_finds_nothing_to_do_and_stops_at_the_same_place_or_goes_on(folder):
    few = [*AUTO, NONE, "max_seeds=5"]
    assert inside(*few, folder=folder)[0] == 0
    before = journals(folder)
    once = read_study(Folder(folder / "runs"))
    code, out, err = inside(*few, folder=folder)
    assert (code, err) == (0, "")
    assert journals(folder) == before
    assert out.count("finished before, not trained again") == 10
    assert len(looks(out)) == 1
    again = read_study(Folder(folder / "runs"))
    assert again.stopping == once.stopping
    assert again.trials.equals(once.trials)
    _, out, _ = inside(*AUTO, NONE, "max_seeds=4", folder=folder)
    assert looks(out) == ["4 seeds: 0 of 1 comparisons decided, 1 undecided (effect=0.001); stopped by max_seeds=4"]
    assert seeds_of(launches(folder)[-1]) == 4
    assert inside(*AUTO, NONE, "max_seeds=6", folder=folder)[0] == 0
    assert len(journals(folder)) == 12
    assert journals(folder).items() >= before.items()
    # A margin under which the first seeds had been enough.
    _, out, _ = inside(*AUTO, NONE, "worth=40", folder=folder)
    assert looks(out) == ["3 seeds: 1 of 1 comparisons decided; no more seeds are needed"]
    assert len(journals(folder)) == 12


def test_killed_while_seeds_are_added_a_study_stops_where_it_would_have(folder, tmp_path_factory):
    undisturbed = tmp_path_factory.mktemp("undisturbed")
    (undisturbed / "tasks.py").write_text(TASKS)
    study = [*AUTO, NONE, "worth=3", "slow=0.05", "workers=1"]
    code, out, _ = inside(*study, folder=undisturbed)
    assert code == 0
    reached = launches(undisturbed)[-1]
    assert seeds_of(reached) == 6
    process = start(["ablate", *study], folder)
    path = folder / "runs/studies/s.jsonl"
    wait_until(lambda: path.exists() and len(path.read_text().splitlines()) > 1)
    kill_tree(process)
    finished = {place for place, events in journals(folder).items() if events[-1]["event"] == "finished"}
    assert 6 <= len(finished) < 2 * seeds_of(reached)
    code, again, err = inside(*study, folder=folder)
    assert (code, err) == (0, "")
    assert launches(folder)[-1]["stopping"] == reached["stopping"]
    assert looks(again)[-1] == looks(out)[-1]
    kept = [
        read_study(Folder(place / "runs")).trials[["cell", "seed", "test_error"]] for place in (folder, undisturbed)
    ]
    assert kept[0].equals(kept[1])


def test_a_seed_with_a_failure_is_a_finished_block_that_the_comparison_leaves_out(folder):
    code, out, err = inside(*AUTO, NONE, "max_seeds=5", "fails=0:0 3:0.001", folder=folder)
    assert (code, err) == (1, "")
    assert [line.partition(":")[0] for line in looks(out)] == ["3 seeds", "4 seeds", "5 seeds"]
    assert len(journals(folder)) == 10
    last = launches(folder)[-1]
    assert (seeds_of(last), last["stopping"]["look"]["seeds"]) == (5, 5)


def test_where_every_trial_fails_no_more_are_begun(folder):
    code, out, _ = inside(*AUTO, NONE, "fails=0:0 1:0 2:0", folder=folder)
    assert code == 1
    assert looks(out) == ["3 seeds: no comparison has a result; no more seeds are trained"]


def test_force_trains_and_looks_anew(folder):
    assert inside(*AUTO, BIG, folder=folder)[0] == 0
    code, out, _ = inside(*AUTO, BIG, "force=true", folder=folder)
    assert code == 0
    assert "not trained again" not in out
    assert [[e["event"] for e in events].count("finished") for events in journals(folder).values()] == [2] * 6


def test_mlflow_has_one_run_of_the_study_which_grows(folder, empty_store):
    (folder / "runs").mkdir()
    shutil.copy(empty_store, folder / "runs/mlflow.db")
    study = [word for word in AUTO if word not in ("tracking=off", "report=false")]
    for most in ("max_seeds=4", "max_seeds=5"):
        code, _, err = inside(*study, NONE, most, folder=folder)
        assert (code, err) == (0, "")
    store, runs = Store(f"sqlite:///{folder}/runs/mlflow.db"), Folder(folder / "runs")
    assert len(store._parents()) == 1
    assert store._parents()[0].data.tags["ablate.trials"] == "10 of 10 finished"
    here, there = read_study(runs), read_study(store)
    assert here.trials.equals(there.trials)
    assert len(here.trials) == 10
    assert (here.stopping, here.worth, here.launched) == (there.stopping, there.worth, there.launched)
    assert here.stopping["look"]["seeds"] == 5
    assert (folder / "reports/s/index.html").exists()


def test_a_mirror_takes_in_what_a_launch_adds_and_no_other_launch(folder, empty_store):
    assert inside(*AUTO, NONE, "max_seeds=4", folder=folder)[0] == 0
    shutil.copy(empty_store, folder / "runs/mlflow.db")
    first, *_, last = launches(folder)
    assert digest(first) == digest(last)
    fixed = {name: value for name, value in last.items() if name not in ("began", "stopping")}
    assert digest(fixed) != digest(last)
    Mirror(Folder(folder / "runs"), None, first, print).sync()
    assert len(read_study(Store(f"sqlite:///{folder}/runs/mlflow.db")).trials) == 8


def test_a_plan_says_the_least_and_the_most(folder):
    code, out, err = inside(*AUTO, NONE, "plan=true", "workers=1", folder=folder)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "study s: 2 cells, 6 trials: 6 to train" in lines
    assert "seeds=auto: at least these 3 seeds; at most 20, then 40 trials with 40 to train" in lines
    assert not (folder / "runs").exists()
    assert inside(*AUTO, NONE, "max_seeds=4", folder=folder)[0] == 0
    _, out, _ = inside(*AUTO, NONE, "plan=true", "workers=1", folder=folder)
    assert "study s: 2 cells, 10 trials: 8 done, 2 to train" in out
    assert re.search(r"at least these 5 seeds; at most 20, then 40 trials with 32 to train, about (< 1|\d+) s", out)
    _, out, _ = inside(*AUTO, NONE, "plan=true", "max_seeds=4", folder=folder)
    assert "study s: 2 cells, 8 trials: 8 done" in out
    assert "4 seeds: 0 of 1 comparisons decided, 1 undecided (effect=0.001); stopped by max_seeds=4" in out


def test_the_language_model_takes_the_seeds_that_it_takes(tmp_path):
    study = ["-m", *TINY, "lr=0.00001,0.03", "seeds=auto", "max_seeds=5", "tracking=off", "seed=4"]
    code, out, err = inside(*study, folder=tmp_path)
    assert (code, err) == (0, "")
    assert looks(out)[-1].endswith("1 of 1 comparisons decided; no more seeds are needed")
    last = launches(tmp_path, "lr")[-1]
    assert [trial["seed"] for trial in last["cells"][0]["trials"]][:3] == [4, 5, 6]
    assert len(journals(tmp_path)) == 2 * last["stopping"]["look"]["seeds"]
    assert "report: reports/lr/index.html" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seeds=auto", BIG, "seed=0,1"],
         "seed=0,1: seeds=auto gives every cell the same seeds; for example seed=0"),
        (["seeds=3,auto", BIG], "seeds=3,auto: seeds=auto gives every cell the same seeds; for example seeds=3"),
        (["seeds=auto"], "seeds=auto: one cell has nothing to be compared with; add another one, or use seeds=3"),
        (["seeds=3", "max_seeds=20", BIG],
         "max_seeds=20: only used by seeds=auto; add seeds=auto, or leave out max_seeds"),
        (["seeds=auto", "max_seeds=2", BIG],
         "max_seeds=2: must be a whole number at least 3 and at most 1000, or null; for example 20"),
        (["seeds=automatic", BIG], "seeds=automatic: must be auto, or a whole number at least 1 and at most 10000"),
        (["worth=-1", BIG], "worth=-1: must be a percentage, or a finite number above 0, or null; for example 1%"),
        (["worth=-1%", BIG], "worth=-1%: must be a percentage, or a finite number above 0, or null; for example 1%"),
        (["worth=0%", BIG], "worth=0%: must be a percentage, or a number, above 0; for example worth=0.5"),
        (["task=tasks.py:shares", "worth=1%", BIG],
         "worth=1%: accuracy is compared by differences; use a number, worth=0.5"),
        (["worth=1%,2%", BIG], "worth=1%,2%: a study has one worth; start one study for each"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_before_anything_is_trained(arguments, message, folder):
    named = [] if any(argument.startswith("task=") for argument in arguments) else ["task=tasks.py:train"]
    code, out, err = inside("-m", *named, *arguments, folder=folder)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (folder / "runs/trials").exists()


def test_perplexity_is_worth_a_percentage():
    assert study_of(*TINY, "worth=2%").launch.worth == "2%"
    with pytest.raises(KnobError, match=r"worth=0\.5: perplexity is compared by ratios; use a percentage, worth=1%"):
        study_of(*TINY, "worth=0.5")


def test_a_report_may_be_asked_for_another_worth(folder):
    assert inside(*AUTO, BIG, "worth=2", "name=one", folder=folder)[0] == 0
    assert inside(*AUTO, BIG, "worth=3", "name=two", folder=folder)[0] == 0
    runs = Folder(folder / "runs")
    assert read_studies(runs, ["one"]).worth == 2.0
    assert read_studies(runs, ["two", "one"]).worth == 2.0, "the least"
    assert read_studies(runs, ["two", "one"]).stopping == {"seeds": "auto", "studies": 2}
    assert read_studies(runs, ["two", "one"], "0.5").worth == "0.5"

    def report(*arguments):
        return inside(folder=folder, main=lambda: report_main.main(["one", *arguments]))

    assert report("--worth", "0.5%")[0] == 0
    code, _, err = report("--worth", "none")
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith(
        "ablate.report: worth=none: must be a percentage, or a number, above 0; for example worth=0.5"
    )
