"""The hand-made gradients against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ablate.tasks.language_model.model import kernels, output
from ablate.tasks.language_model.model.layers import LSTMLayer

N, H, V, T, B = 12, 5, 9, 7, 4


def layer_inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    x, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=dtype, requires_grad=True) for shape in ((N, H), (V, H), (V,))
    )
    return (x, weight, bias), torch.randint(V, (N,), generator=generator)


def test_the_gradient_of_the_output_layer_is_the_one_of_finite_differences():
    inputs, targets = layer_inputs()
    assert torch.autograd.gradcheck(lambda *a: 3 * output.cross_entropy(*a, targets), inputs)


def test_the_loss_of_the_output_layer_is_torchs():
    inputs, targets = layer_inputs()
    x, weight, bias = inputs
    expected = F.cross_entropy(F.linear(x, weight, bias), targets)
    torch.testing.assert_close(output.cross_entropy(*inputs, targets), expected, rtol=1e-12, atol=1e-12)


def test_the_loss_of_each_token_is_torchs_and_their_mean_the_loss_to_the_bit():
    inputs, targets = layer_inputs(torch.float32)
    x, weight, bias = inputs
    mean, by_token = output.cross_entropy_by_token(*inputs, targets)
    expected = F.cross_entropy(F.linear(x, weight, bias), targets, reduction="none")
    torch.testing.assert_close(by_token, expected.detach())
    assert torch.equal(mean, output.cross_entropy(*inputs, targets))
    assert not by_token.requires_grad


def test_a_target_of_no_measurable_probability_has_a_loss_and_not_infinity():
    x, weight = torch.tensor([[1.0], [0.1]], requires_grad=True), torch.tensor([[0.0], [300.0]], requires_grad=True)
    bias, targets = torch.zeros(2, requires_grad=True), torch.tensor([0, 1])
    loss = output.cross_entropy(x, weight, bias, targets)
    assert loss.item() == pytest.approx(150.0)
    loss.backward()
    assert weight.grad.tolist() == [[-0.5], [0.5]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stays_one(bad):
    (x, weight, bias), targets = layer_inputs()
    loss = output.cross_entropy(x, weight.detach().mul(bad), bias, targets)
    assert not torch.isfinite(loss)


def test_bf16_products_change_loss_and_gradients_by_their_rounding_alone():
    inputs, targets = layer_inputs(torch.float32)
    exact = output.cross_entropy(*inputs, targets)
    expected = torch.autograd.grad(exact, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        loss = output.cross_entropy(*inputs, targets)
    assert (loss.dtype, loss.item()) == (torch.float32, pytest.approx(exact.item(), rel=0.01))
    for gradient, other in zip(torch.autograd.grad(loss, inputs), expected, strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - other).norm() < 0.02 * other.norm()


def make_layer(inputs, hidden, generator):
    layer = LSTMLayer(inputs, hidden)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) if p.requires_grad else torch.zeros(p.shape))
    return layer, [layer.kernel.weight_ih_l0, layer.kernel.weight_hh_l0, layer.kernel.bias_ih_l0]


@pytest.mark.parametrize("lay_out", [True, False])
def test_the_lstm_is_torchs_up_to_the_rounding_of_bf16(monkeypatch, lay_out):
    monkeypatch.setattr(kernels, "_LAYS_OUT", lay_out and kernels._LAYS_OUT)
    generator = torch.Generator().manual_seed(4)
    layer, weights = make_layer(H, 6, generator)
    x = torch.randn(T, B, H, generator=generator, requires_grad=True)
    h, c = torch.randn(2, 1, B, 6, generator=generator)
    out, (h_last, c_last) = layer(x, (h, c))
    with torch.autocast("cpu", torch.bfloat16):
        ours, h_ours, c_ours = kernels.lstm(x, h, c, *weights)
    for a, b in ((ours, out), (h_ours, h_last), (c_ours, c_last)):
        torch.testing.assert_close(a.float(), b, rtol=0.05, atol=0.05)
    along = torch.randn(out.shape, generator=generator)
    expected = torch.autograd.grad((out * along).sum(), [x, *weights])
    for a, b in zip(torch.autograd.grad((ours * along).sum(), [x, *weights]), expected, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert (a - b).norm() < 0.03 * b.norm()


def test_the_gradient_of_the_lstm_is_the_one_of_finite_differences():
    generator = torch.Generator().manual_seed(4)
    layer, _ = make_layer(3, 2, generator)
    layer.double()
    weights = [layer.kernel.weight_ih_l0, layer.kernel.weight_hh_l0, layer.kernel.bias_ih_l0]
    x = torch.randn(4, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    h, c = torch.randn(2, 1, 2, 2, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(kernels.lstm(x, h, c, *weights)[0], layer(x, (h, c))[0], rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x, *weights: kernels.lstm(x, h, c, *weights)[0], (x, *weights))


def test_a_wide_layer_in_bf16_takes_ours_in_training_alone(monkeypatch):
    seen = []
    monkeypatch.setattr(kernels, "lstm", lambda x, *_: (seen.append(x.shape), x, x[-1:], x[-1:])[1:])
    # Torch's own layer, which a processor without bf16 refuses to run in it, is not what is tested.
    monkeypatch.setattr(torch.nn.LSTM, "forward", lambda self, x, state: (x, state))
    narrow, wide = LSTMLayer(4, 4), LSTMLayer(4, 400)
    x = torch.zeros(T, B, 4)
    wide(x, None)
    with torch.autocast("cpu", torch.bfloat16):
        narrow(x, None)
        wide(x, None)
        with torch.no_grad():
            wide(x, None)
    assert len(seen) == 1


def stacked(*shape, replicates=3):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(replicates, *shape, generator=generator, dtype=torch.float64, requires_grad=True)


KERNELS = {
    "cross_entropy": (output.cross_entropy, [stacked(N, H), stacked(V, H), stacked(V)], [torch.arange(N) % V]),
    "lstm": (
        lambda *a: kernels.lstm(a[0], a[4], a[5], *a[1:4])[0],
        [stacked(T, B, H), stacked(24, H), stacked(24, 6), stacked(24)],
        [stacked(1, B, 6).detach(), stacked(1, B, 6).detach() + 1],
    ),
    "tanh": (
        lambda *a: kernels.tanh(a[0], a[4], *a[1:4]),
        [stacked(T, B, H), stacked(6, H), stacked(6, 6), stacked(6)],
        [stacked(1, B, 6).detach()],
    ),
}


@pytest.mark.parametrize("name", KERNELS)
def test_replicates_together_are_each_by_itself(name):
    kernel, trained, given = KERNELS[name]
    together = kernel(*trained, *given)
    along = torch.randn(together.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad((together * along).sum(), trained)
    for k in range(3):
        own = [tensor[k].detach().requires_grad_() for tensor in trained]
        alone = kernel(*own, *(tensor if tensor.dtype == torch.long else tensor[k] for tensor in given))
        torch.testing.assert_close(together[k], alone, rtol=1e-12, atol=1e-12)
        expected = torch.autograd.grad((alone * along[k]).sum(), own)
        torch.testing.assert_close([gradient[k] for gradient in gradients], list(expected), rtol=1e-10, atol=1e-12)


def test_the_tanh_layer_is_torchs():
    layer = torch.nn.RNN(3, 2).double()
    layer.bias_hh_l0.data.zero_()
    weights = [layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0]
    x, h = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True), torch.randn(1, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(kernels.tanh(x, h, *weights), layer(x, h)[0], rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x, *weights: kernels.tanh(x, h, *weights), (x, *weights))


def test_replicates_with_a_target_of_no_measurable_probability_have_a_loss_each():
    x = torch.tensor([[[1.0], [0.1]], [[0.5], [0.1]]], requires_grad=True)
    weight = torch.tensor([[[0.0], [300.0]]] * 2, requires_grad=True)
    loss = output.cross_entropy(x, weight, torch.zeros(2, 2, requires_grad=True), torch.tensor([0, 1]))
    assert loss.tolist() == pytest.approx([150.0, 75.0])
