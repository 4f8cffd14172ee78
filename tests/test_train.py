"""The engine: the book's rules, one by one, on a corpus that trains in a blink."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest
import torch
from conftest import TINY, knobs_of
from reference import ReferenceLM

from ablate.knobs import plain
from ablate.protocol import Blocks, Trial
from ablate.tasks.language_model import engine as engine_module
from ablate.tasks.language_model.build import make_model
from ablate.tasks.language_model.data import Corpus, Windows, load_corpus
from ablate.tasks.language_model.engine import fit
from ablate.tasks.language_model.evaluate import evaluate, evaluate_by_token, sample
from ablate.tasks.language_model.model import RecurrentLM
from ablate.tasks.language_model.model.packed import Alone
from ablate.tasks.language_model.training import settle
from ablate.train import Checkpoints
from ablate.train.examples import BLOCKS, EXAMPLES, blocks_of, save_examples
from ablate.train.machine import check_device, machine_facts


def run(tmp_path, *overrides, seed=0, corpus=None):
    knobs = knobs_of(*TINY, *overrides)
    events = []

    def sink(event, /, **values):
        events.append({"event": event, **values})
        return len(events)

    corpus = corpus or load_corpus(knobs.data).slice(knobs.train_tokens, knobs.vocabulary)
    (outcome,) = fit([Trial(knobs, seed)], corpus, [sink], [Checkpoints(tmp_path, "x")])
    return outcome, events


def of(events, split):
    """The points of a curve, with what was measured at each."""
    return [{**e, **e["values"]} for e in events if f"{split}_nll" in e["values"]]


def test_a_model_learns_a_source_and_stays_above_its_floor(tmp_path):
    corpus = load_corpus(knobs_of(*TINY).data)
    outcome, events = run(tmp_path, "windows=600", "lr=0.02", "valid_every=100", "data.tokens=20000")
    assert outcome.status == "FINISHED"
    assert corpus.floor_nll - 0.05 < outcome.values["test_nll"] < corpus.floor_nll + 0.6 < math.log(30)
    valid = [e["valid_nll"] for e in of(events, "valid")]
    assert valid[-1] < valid[0]


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path):
    first, again, other = (run(tmp_path, "dropout=0.3", "depth=2", seed=s)[0] for s in (3, 3, 4))
    same = {"seconds": 0.0, "train_seconds": 0.0}
    assert replace(first, **same) == replace(again, **same)
    assert first.values["test_nll"] != other.values["test_nll"]


def test_a_point_of_the_train_curve_is_the_mean_since_the_last_one(tmp_path, monkeypatch):
    _, coarse = run(tmp_path, "windows=40")
    monkeypatch.setattr(engine_module, "LOG_EVERY", 1)
    _, fine = run(tmp_path, "windows=40")
    single = [e["train_nll"] for e in of(fine, "train")]
    means = [e["train_nll"] for e in of(coarse, "train")]
    assert [e["step"] for e in of(coarse, "train")] == [20, 40]
    assert means == pytest.approx([np.mean(single[:20]), np.mean(single[20:])], rel=1e-6)


def test_tokens_and_windows_are_counted_and_an_odd_rest_is_reported(tmp_path):
    outcome, events = run(tmp_path, "windows=50", "valid_every=30")
    assert [e["step"] for e in of(events, "train")] == [20, 30, 40, 50]
    assert [e["step"] for e in of(events, "valid")] == [30, 50]
    assert outcome.seen == 50 * 4 * 5 == of(events, "train")[-1]["seen"]


def test_validations_come_evenly_or_at_doubled_distances(tmp_path):
    _, events = run(tmp_path, "windows=50", "valid_every=3", "valid_spacing=doubling")
    assert [e["step"] for e in of(events, "valid")] == [3, 6, 12, 24, 48, 50]
    _, events = run(tmp_path, "windows=50", "valid_every=70", "valid_spacing=doubling")
    assert [e["step"] for e in of(events, "valid")] == [50]
    _, events = run(tmp_path, "windows=40", "valid_every=10")
    assert [e["step"] for e in of(events, "valid")] == [10, 20, 30, 40]


def test_an_epoch_is_the_whole_windows_of_the_stream(tmp_path):
    outcome, events = run(tmp_path, "windows=null", "epochs=2", "valid_every=null")
    per_epoch = 3999 // 20
    assert outcome.steps == 2 * per_epoch
    assert [e["step"] for e in of(events, "valid")] == [per_epoch, 2 * per_epoch]


def test_the_rate_is_divided_after_each_validation_without_a_new_best(tmp_path, monkeypatch):
    curve = iter([3.0, 2.0, 2.5, 2.0, 1.0, 9.0, 0.0])  # best, best, worse, equal, best, worse; the last is the test
    monkeypatch.setattr(engine_module, "evaluate", lambda *_: [next(curve)])
    outcome, events = run(tmp_path, "windows=60", "valid_every=10", "schedule=plateau", "decay=4", "lr=0.016")
    assert [e["lr"] for e in of(events, "train") if e["step"] % 10 == 0 and e["step"] % 20 == 10] == [
        0.016, 0.016, 0.001,
    ]  # fmt: skip
    assert [e["lr"] for e in of(events, "valid")] == [0.016, 0.016, 0.016, 0.004, 0.001, 0.001]
    assert (outcome.values["best_valid_nll"], outcome.best_step) == (1.0, 50)


@pytest.mark.parametrize(("test_weights", "valid"), [("best", 1.0), ("last", 5.0)])
def test_the_test_text_is_read_once_with_the_weights_asked_for(tmp_path, monkeypatch, test_weights, valid):
    curve = iter([1.0, 5.0])
    seen = []

    def test(program, ids, knobs, device, streams=None):
        assert ids.size == 601
        seen.append(program.model.output.bias.detach().clone())
        return [7.0], torch.tensor([[6.0, 8.0]])

    monkeypatch.setattr(engine_module, "evaluate", lambda *_: [next(curve)])
    monkeypatch.setattr(engine_module, "evaluate_by_token", test)
    corpus = load_corpus(knobs_of(*TINY).data)
    corpus = replace(corpus, test=np.concatenate([corpus.test, corpus.test[:1]]))
    outcome, _ = run(tmp_path, f"test_weights={test_weights}", corpus=corpus)
    assert len(seen) == 1
    assert outcome.blocks == Blocks([1, 1], [6.0, 8.0])
    assert (outcome.values["valid_nll"], outcome.values["test_nll"]) == (valid, 7.0)
    checkpoints = Checkpoints(tmp_path, "x")
    saved = checkpoints.best(20) if test_weights == "best" else checkpoints.last()
    assert torch.equal(saved["model"]["output.bias"], seen[0])
    assert saved["window"] == (20 if test_weights == "best" else 40)


def test_carry_decides_whether_position_and_state_restart_with_the_epoch(tmp_path, monkeypatch):
    places, fresh = [], []
    at, loss = Windows.at, RecurrentLM.loss
    monkeypatch.setattr(Windows, "at", lambda self, n: (places.append(n), at(self, n))[1])
    monkeypatch.setattr(RecurrentLM, "loss", lambda self, x, y, s: (fresh.append(s is None), loss(self, x, y, s))[1])
    monkeypatch.setattr(engine_module, "evaluate", lambda *_: [1.0])
    monkeypatch.setattr(engine_module, "evaluate_by_token", lambda *_: ([1.0], torch.ones(1, 1)))
    # 100 train tokens are 4 windows of 4 × 5.
    run(tmp_path, "train_tokens=100", "windows=9", "carry=true")
    assert places == list(range(9))
    assert [i for i, new in enumerate(fresh) if new] == [0]
    places.clear(), fresh.clear()
    run(tmp_path, "train_tokens=100", "windows=9", "carry=false")
    assert places == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert [i for i, new in enumerate(fresh) if new] == [0, 4, 8]


def test_evaluation_is_the_books_to_the_last_digit():
    knobs = knobs_of(*TINY, "depth=2", "tie=true", "dropout=0.5", "eval_batch=3", "eval_window=4")
    ids = np.random.default_rng(0).integers(30, size=101).astype(np.int32)
    model = make_model(knobs, 30)
    model.initialize(0, 0.01)
    model.double()
    (got,) = evaluate(Alone(model), ids, knobs, torch.device("cpu"))
    # From the words of the book: 8 whole windows, rows jump = 100 // 3 apart, state carried, the tail dropped.
    layer = {
        f"{n}.{i}": getattr(model.layers[i].kernel, t).detach().numpy()
        for i in range(2)
        for n, t in (("Wx", "weight_ih_l0"), ("Wh", "weight_hh_l0"), ("b", "bias_ih_l0"))
    }
    parameters = {
        "embedding": model.embedding.weight.detach().numpy(),
        "bias": model.output.bias.detach().numpy(),
        **layer,
    }
    reference = ReferenceLM(parameters, rnn="lstm", depth=2, tie=True)
    losses = []
    for n in range(8):
        rows = [[i * 33 + n * 4 + t for i in range(3)] for t in range(4)]
        losses.append(reference.window(ids[np.array(rows)], ids[np.array(rows) + 1])[0])
    assert got == pytest.approx(np.mean(losses), abs=1e-9)
    assert model.training, "evaluation gives the model back as it was"


def test_what_each_token_scored_comes_in_the_order_of_the_text():
    knobs = knobs_of(*TINY, "eval_batch=3", "eval_window=4")
    ids = np.random.default_rng(0).integers(30, size=101).astype(np.int32)
    model = make_model(knobs, 30)
    model.initialize(0, 0.01)
    model.double()
    means, by_token = evaluate_by_token(Alone(model), ids, knobs, torch.device("cpu"))
    assert means == evaluate(Alone(model), ids, knobs, torch.device("cpu"))
    assert by_token.shape == (1, 96)
    assert means[0] == pytest.approx(by_token.mean().item(), abs=1e-12)
    # The three readers, one after the other: 8 windows of 4 from 0, 33 and 66 on.
    model.eval()
    for reader in range(3):
        part = torch.from_numpy(ids[33 * reader : 33 * reader + 33]).long()
        logits, _ = model(part[:-1, None], None)
        expected = torch.nn.functional.cross_entropy(logits[:, 0], part[1:], reduction="none")
        torch.testing.assert_close(by_token[0, 32 * reader : 32 * (reader + 1)], expected.detach())


@pytest.mark.parametrize(
    "overrides", [[], ["test_batch=1"], ["eval_batch=7", "eval_window=3", "test_batch=null"], ["test_weights=last"]]
)
def test_blocks_of_the_test_text_add_up_to_the_test_loss_and_each_tokens_is_in_a_file(tmp_path, overrides):
    outcome, _ = run(tmp_path, *overrides)
    by_token = np.load(tmp_path / EXAMPLES)
    sizes, totals = np.array(outcome.blocks.sizes), np.array(outcome.blocks.totals)
    assert by_token.dtype == np.float16
    assert sizes.size == BLOCKS
    assert sizes.sum() == by_token.size > 500
    assert sizes.max() - sizes.min() <= 1
    assert totals.sum() / sizes.sum() == pytest.approx(outcome.values["test_nll"], rel=1e-6)
    ends = np.cumsum(sizes)
    expected = [by_token[end - size : end].astype(float).sum() for size, end in zip(sizes, ends, strict=True)]
    assert totals == pytest.approx(expected, rel=1e-3), "half precision is all that is lost"


def test_a_text_of_few_tokens_has_a_block_for_each():
    blocks = blocks_of(np.array([1.0, 2.0, 4.0], np.float32))
    assert blocks == Blocks([1, 1, 1], [1.0, 2.0, 4.0])
    assert blocks_of(np.array([1.0, np.nan])) is None


def test_a_loss_too_large_for_half_precision_is_kept_as_it_is(tmp_path):
    save_examples(tmp_path, np.array([1e6, 1.5]))
    assert np.load(tmp_path / EXAMPLES).tolist() == [1e6, 1.5]
    Checkpoints(tmp_path, "x").clear()
    assert not list(tmp_path.iterdir())


def test_divergence_is_a_result_with_its_first_window(tmp_path, monkeypatch):
    outcome, events = run(tmp_path, "optimizer=sgd", "lr=1e38", "clip=null", "windows=100")
    assert outcome.status == "DIVERGED"
    assert outcome.steps == 20
    assert outcome.values["test_nll"] is outcome.blocks is None
    assert not (tmp_path / EXAMPLES).exists()
    assert not math.isfinite(of(events, "train")[-1]["train_nll"])
    monkeypatch.setattr(engine_module, "LOG_EVERY", 1)
    exact, fine = run(tmp_path, "optimizer=sgd", "lr=1e38", "clip=null", "windows=100")
    finite = [math.isfinite(e["train_nll"]) for e in of(fine, "train")]
    assert 1 < outcome.diverged_at == exact.diverged_at == len(finite) < 20
    assert finite == [True] * (len(finite) - 1) + [False]


def test_a_sample_is_text_without_unk_and_the_same_for_the_same_seed():
    ids = np.zeros(10, dtype=np.int32)
    corpus = Corpus("x", ("<unk>", "<eos>", "word"), ids, ids, ids)
    model = make_model(knobs_of(*TINY), 3)
    model.initialize(0, 0.01)
    texts = [sample(model, corpus, 200, seed, torch.device("cpu")) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert set(texts[0].split()) == {"word"}
    assert "\n" in texts[0]


def test_what_the_machine_cannot_do_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device=cuda: torch sees no CUDA device"):
        check_device("cuda")
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False)
    with pytest.raises(ValueError, match="precision=bf16: this processor has no bf16"):
        settle(knobs_of("precision=bf16"), "cpu")
    assert settle(knobs_of("precision=auto"), "auto").precision == "fp32"


def test_auto_is_bf16_where_the_processor_has_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert settle(knobs_of("precision=auto"), "cpu").precision == "bf16"
    assert settle(knobs_of("precision=fp32"), "cpu").precision == "fp32"


def test_bf16_products_stay_close_to_fp32(tmp_path):
    # Torch has an LSTM in bf16 only where the processor has bf16; it has the other layer everywhere.
    rnn = "lstm" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "tanh"
    exact, rounded = (run(tmp_path, f"precision={p}", f"rnn={rnn}")[0] for p in ("fp32", "bf16"))
    assert exact.values["test_nll"] != rounded.values["test_nll"]
    assert rounded.values["test_nll"] == pytest.approx(exact.values["test_nll"], rel=0.02)


def test_the_machine_is_described():
    facts = machine_facts("cpu")
    assert facts["torch"] == torch.__version__
    assert facts["device"]
    assert facts["threads"] == str(torch.get_num_threads())


def test_a_validation_that_is_no_number_is_divergence_too(tmp_path, monkeypatch):
    curve = iter([2.0, math.nan])
    monkeypatch.setattr(engine_module, "evaluate", lambda *_: [next(curve)])
    outcome, _ = run(tmp_path, "windows=60", "valid_every=20")
    assert (outcome.status, outcome.steps) == ("DIVERGED", 40)
    assert (outcome.values["best_valid_nll"], outcome.best_step, outcome.values["test_nll"]) == (2.0, 20, None)


ALONE = """
import json, sys
for name in sys.argv[3:]:
    sys.modules[name] = None  # whoever imports it is told that it is not there
from pathlib import Path
from ablate.tasks.language_model.config import Config
from ablate.knobs import read
from ablate.tasks.language_model.data import load_corpus
from ablate.protocol import Trial
from ablate.tasks.language_model.engine import fit
from ablate.train import Checkpoints
knobs = read(Config, json.loads(sys.argv[1]))
corpus = load_corpus(knobs.data)
pack, folder = [Trial(knobs, 0), Trial(knobs, 1)], Path(sys.argv[2])
for outcome in fit(pack, corpus, [lambda event, /, **values: 0] * 2, [Checkpoints(folder, "x")] * 2):
    print(outcome.status, outcome.values["test_nll"])
"""


def test_a_machine_with_torch_and_numpy_alone_trains(tmp_path):
    values = json.dumps(plain(knobs_of(*TINY, "test_weights=last")))
    needed = {re.match(r"[\w-]+", line)[0].lower() for line in metadata.requires("ablate-lm") if "extra ==" not in line}
    there = {"torch", "numpy", "pydantic", "threadpoolctl", "filelock", "jinja2"}  # the last two are torch's own
    absent = [
        name for name, of in metadata.packages_distributions().items() if {o.lower() for o in of} & needed - there
    ]
    assert {"hydra", "mlflow", "pandas", "platformdirs", "pooch", "omegaconf"} <= {*absent}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, values, str(tmp_path), *absent], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["FINISHED"] * 2
