"""The model against a NumPy reference written from the equations, and its parts by what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import knobs_of
from reference import ReferenceLM

from ablate.protocol import Trial
from ablate.tasks.language_model.engine import Pack
from ablate.tasks.language_model.model import RecurrentLM
from ablate.tasks.language_model.model.language_model import log_unigram, stream
from ablate.tasks.language_model.model.layers import Dropout
from ablate.tasks.language_model.model.packed import Alone
from ablate.tasks.language_model.optim import clip_gradients, sgd

V, H, T, B = 13, 6, 5, 3


def make(
    rnn="lstm", depth=2, tie=False, dropout=0.0, embedding=H, hidden=H, seed=1, vocabulary=V, residual=False, **more
):
    model = RecurrentLM(
        vocabulary=vocabulary, rnn=rnn, depth=depth, hidden=hidden, embedding=embedding, dropout=dropout, tie=tie,
        residual=residual, **more,
    )  # fmt: skip
    model.initialize(seed, 0.01)
    model.seed_dropout(seed)
    return model


def reference_of(model, rnn, depth, tie, residual):
    """Biases get random values first: at zero, a gate in the wrong place would not show."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad:
                p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
            else:
                assert not p.any(), f"{name} is frozen at zero"
    parameters = {"embedding": model.embedding.weight, "output": model.output.weight, "bias": model.output.bias}
    for i, layer in enumerate(model.layers):
        parameters[f"Wx.{i}"] = layer.kernel.weight_ih_l0
        parameters[f"Wh.{i}"] = layer.kernel.weight_hh_l0
        parameters[f"b.{i}"] = layer.kernel.bias_ih_l0
    if tie:
        del parameters["output"]
    tensors = parameters
    values = {n: t.detach().numpy().copy() for n, t in tensors.items()}
    return ReferenceLM(values, rnn=rnn, depth=depth, tie=tie, residual=residual), tensors


@pytest.mark.parametrize("rnn", ["tanh", "lstm"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_three_windows_of_training_equal_the_reference_to_1e_9(rnn, depth, tie, residual):
    model = make(rnn, depth, tie, residual=residual).double()
    reference, tensors = reference_of(model, rnn, depth, tie, residual)
    optimizer = sgd(model.parameters(), lr=0.7)
    states = None
    rng = np.random.default_rng(3)
    for _ in range(3):
        inputs, targets = rng.integers(V, size=(2, T, B))
        loss, states = model.loss(torch.from_numpy(inputs), torch.from_numpy(targets), states)
        expected_loss, expected = reference.window(inputs, targets)
        assert loss.item() == pytest.approx(expected_loss, abs=1e-9)
        optimizer.zero_grad()
        loss.backward()
        for name, gradient in expected.items():
            np.testing.assert_allclose(tensors[name].grad.numpy(), gradient, atol=1e-9, err_msg=name)
        # The limit is below the norm, so that clipping really scales.
        (norm,) = clip_gradients(gradients(model), torch.tensor([0.1], dtype=torch.float64))
        assert norm.item() == pytest.approx(reference.sgd_step(expected, 0.7, 0.1), abs=1e-9)
        assert norm.item() > 0.1
        optimizer.step()
        for name, value in reference.p.items():
            np.testing.assert_allclose(tensors[name].detach().numpy(), value, atol=1e-9, err_msg=name)


def gradients(model):
    return [p.grad.unsqueeze(0) for p in model.parameters() if p.grad is not None]


def test_a_gradient_below_the_limit_is_left_alone():
    model = make().double()
    model.loss(torch.zeros(T, B, dtype=torch.long), torch.ones(T, B, dtype=torch.long), None)[0].backward()
    before = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    (norm,) = clip_gradients(gradients(model), torch.tensor([1e3]))
    after = [p.grad for p in model.parameters() if p.grad is not None]
    assert 0 < norm < 1e3
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_without_a_limit_the_norm_is_still_measured():
    model = make()
    model.loss(torch.zeros(T, B, dtype=torch.long), torch.ones(T, B, dtype=torch.long), None)[0].backward()
    squares = sum(p.grad.double().square().sum() for p in model.parameters() if p.grad is not None)
    (norm,) = clip_gradients(gradients(model), torch.tensor([torch.inf]))
    assert norm.item() == pytest.approx(squares.sqrt().item(), rel=1e-5)


def test_without_a_limit_a_gradient_stays_as_it_is_even_where_its_norm_overflows():
    gradient = torch.full((1, 4), 1e30)
    assert clip_gradients([gradient], torch.tensor([torch.inf])).isinf()
    assert torch.equal(gradient, torch.full((1, 4), 1e30))


def test_tied_weights_are_one_tensor_after_initialisation_and_count_once():
    tied, untied = make(tie=True), make(tie=False)
    assert tied.output.weight is tied.embedding.weight
    assert untied.parameter_count() - tied.parameter_count() == V * H


@pytest.mark.parametrize(
    ("vocabulary", "settings", "parameters"),
    [
        (418, {"rnn": "tanh", "depth": 1, "hidden": 100, "embedding": 100}, 104_118),
        (10_000, {"rnn": "lstm", "depth": 1, "hidden": 100, "embedding": 100}, 2_090_400),
        (10_000, {"rnn": "lstm", "depth": 2, "hidden": 650, "embedding": 650, "tie": True}, 13_275_200),
        (10_000, {"rnn": "lstm", "depth": 2, "hidden": 650, "embedding": 650, "tie": False}, 19_775_200),
    ],
)
def test_the_books_models_have_the_books_parameter_counts(vocabulary, settings, parameters):
    with torch.device("meta"):
        model = RecurrentLM(vocabulary=vocabulary, dropout=0.0, **{"tie": False, **settings})
    assert model.parameter_count() == parameters


@pytest.mark.parametrize("rnn", ["tanh", "lstm"])
def test_initial_values_have_the_books_spread(rnn):
    model = make(rnn, depth=2, vocabulary=2000, embedding=64, hidden=96)
    assert model.embedding.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert model.output.weight.std().item() == pytest.approx(96**-0.5, rel=0.02)
    assert model.layers[0].kernel.weight_ih_l0.std().item() == pytest.approx(64**-0.5, rel=0.05)
    assert model.layers[1].kernel.weight_ih_l0.std().item() == pytest.approx(96**-0.5, rel=0.05)
    assert model.layers[0].kernel.weight_hh_l0.std().item() == pytest.approx(96**-0.5, rel=0.05)
    biases = [p for name, p in model.named_parameters() if "bias" in name]
    assert len(biases) == 5
    assert not any(p.any() for p in biases)


def test_a_tensor_of_the_same_name_and_shape_starts_alike_in_models_that_differ():
    shallow, deep = make(depth=1, tie=False, dropout=0.0), make(depth=3, tie=False, dropout=0.5)
    there = dict(deep.named_parameters())
    for name, tensor in shallow.named_parameters():
        assert torch.equal(tensor, there[name]), name
    assert not torch.equal(make(seed=1).embedding.weight, make(seed=2).embedding.weight)


def test_dropout_zeroes_its_share_and_scales_the_rest_exactly():
    dropout = Dropout(0.3)
    dropout.generator = torch.Generator().manual_seed(0)
    y = dropout(torch.full((400, 500), 2.0))
    assert set(y.unique().tolist()) == {0.0, torch.tensor(2.0).mul(1 / torch.tensor(0.7)).item()}
    n, dropped = y.numel(), (y == 0).sum().item()
    # Five standard deviations of a binomial: fails once in two million if the share is right.
    assert abs(dropped - 0.3 * n) < 5 * (n * 0.3 * 0.7) ** 0.5
    assert (dropout(torch.ones(400, 500)) == 0).ne(y == 0).any(), "a fresh mask at every call"


def test_dropout_draws_a_mask_of_its_own_at_every_time_step():
    dropout = Dropout(0.5)
    dropout.generator = torch.Generator().manual_seed(0)
    y_TBD = dropout(torch.ones(35, 20, 50))
    assert not torch.equal(y_TBD[0], y_TBD[1])


def test_dropout_passes_its_input_in_evaluation_and_with_share_zero():
    x = torch.randn(3, 4)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_dropout_reaches_embedding_layers_and_output():
    model = make(depth=3, dropout=0.999)
    with torch.no_grad():
        logits, _ = model(torch.zeros(T, B, dtype=torch.long), None)
    # Next to everything dropped before the output: logits are the bias, which starts at zero.
    assert (logits.abs().amax(dim=2) == 0).float().mean() > 0.9
    assert len(model.dropouts) == 4


def test_eight_layers_and_more_learn_something():
    model = make(depth=12)
    loss, states = model.loss(torch.zeros(T, B, dtype=torch.long), torch.ones(T, B, dtype=torch.long), None)
    loss.backward()
    assert len(states) == 12
    assert all(p.grad is not None and p.grad.any() for p in model.layers[0].parameters() if p.requires_grad)


def test_the_carried_state_is_cut_off_from_the_graph():
    model = make()
    _, states = model.loss(torch.zeros(T, B, dtype=torch.long), torch.ones(T, B, dtype=torch.long), None)
    assert all(not tensor.requires_grad for state in states for tensor in state)


@pytest.mark.parametrize("hidden", [50, 200, 650])
@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("rnn", ["tanh", "lstm"])
def test_models_start_alike_whatever_they_are_made_of(rnn, residual, tie, depth, hidden):
    """init=scaled: the first loss is ln V, and what the first layer reads has the same scale."""
    vocabulary = 5000
    knobs = knobs_of(
        f"rnn={rnn}", f"tie={str(tie).lower()}", f"depth={depth}", f"hidden={hidden}", "init=scaled",
        f"residual={str(residual).lower()}", "embedding_std=0.1", "output_bias=zero", "precision=fp32",
    )  # fmt: skip
    (training,) = Pack([Trial(knobs, 0)], vocabulary, torch.device("cpu")).trainings
    model = training.model
    words_TB, targets_TB = torch.randint(vocabulary, (2, 35, 20), generator=stream(0, "words"))
    read = []
    model.layers[0].register_forward_hook(lambda _, given, __: read.append(given[0]))
    with torch.no_grad():
        loss, _ = model.loss(words_TB, targets_TB, None)
    # Tanh layers give values as large as 1, which residual connections add up.
    near = 0.05 if rnn == "tanh" and residual and depth > 1 else 0.02
    assert loss.item() == pytest.approx(math.log(vocabulary), abs=near)
    assert read[0].std().item() == pytest.approx(0.1, rel=0.05)


def test_an_output_bias_of_unigrams_starts_every_model_at_the_entropy_of_words():
    ids = np.array([0] * 70 + [1] * 20 + [2] * 10, dtype=np.int32)
    share = np.array([71, 21, 11]) / 103
    assert log_unigram(ids, 3).tolist() == pytest.approx(np.log(share))
    model = make(vocabulary=3, embedding=4, hidden=4)
    model.initialize(0, 0.1, output_std=1e-6, output_bias_V=log_unigram(ids, 3))
    loss, _ = model.loss(torch.tensor(ids[:, None]).long(), torch.tensor(ids[:, None]).long(), None)
    entropy = -float((np.array([70, 20, 10]) / 100 * np.log(share)).sum())
    assert loss.item() == pytest.approx(entropy, abs=1e-3)


def test_uniform_values_fill_their_range_and_leave_the_layers_biases_at_zero():
    model = make(depth=2, vocabulary=500, embedding=32, hidden=32)
    model.initialize(0, init_range=0.1)
    for name, tensor in model.named_parameters():
        if name.startswith("layers.") and tensor.dim() == 1:
            assert not tensor.any(), name
        else:
            assert -0.1 <= tensor.min() < -0.08 < 0.08 < tensor.max() <= 0.1, name
    assert model.embedding.weight.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.02)


def test_a_forget_bias_is_that_of_the_forget_gates_alone():
    model = make(depth=2)
    model.initialize(0, 0.1, forget_bias=1.5)
    for layer in model.layers:
        i, f, g, o = layer.kernel.bias_ih_l0.chunk(4)
        assert (f == 1.5).all()
        assert not any(gate.any() for gate in (i, g, o, layer.kernel.bias_hh_l0))
    make("tanh").initialize(0, 0.1, forget_bias=1.5)  # it has none


def test_projection_regularization_adds_a_matrix_and_its_penalty_to_what_is_minimised():
    plain, model = make(tie=False), make(tie=False, projection=0.5)
    hidden = model.output.in_features
    assert model.parameter_count() - plain.parameter_count() == hidden * hidden + hidden
    assert plain.penalty() is None
    assert model.penalty().item() == pytest.approx(0.5 * model.projection.weight.square().sum().item())
    with torch.no_grad():
        model.projection.weight.copy_(torch.eye(hidden))
    words_TB = torch.randint(V, (5, 2), generator=stream(0, "words"))
    assert torch.allclose(plain(words_TB, None)[0], model(words_TB, None)[0])
    before = model.projection.weight.clone()
    program = Alone(model)
    loss_K, _ = program.loss(words_TB[None], words_TB[None], None)
    program.backward(loss_K)
    of_both = model.projection.weight.grad.clone()
    model.penalty_weight = 0.0
    loss_K, _ = program.loss(words_TB[None], words_TB[None], None)
    program.backward(loss_K)
    assert torch.allclose(of_both - model.projection.weight.grad, before, atol=1e-6)  # 2 · 0.5 · P
