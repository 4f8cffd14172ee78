"""Recurrent layers: one layer each, one bias each.

Shape suffixes: T time steps, B streams, D input size, H hidden size, G gates × H.

A layer that a user registers under `ablate.rnn` is an nn.Module with this interface:

    layer = Layer(input_size, hidden_size)
    layer.fan_in()                          parameter name → number of inputs, for the initial values
    layer(x_TBD, state) -> (h_TBH, state)   state is None at the start of a stream, else a tuple of tensors
    layer.set_forget_bias(value)            only where it has forget gates: their bias before training

One that can compute K replicates at once has one method more; a layer without it is trained alone:

    Layer.together(weights, x_KTBD, state) -> (h_KTBH, state)   weights: parameter name → K of them, stacked
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ablate.tasks.language_model.model import kernels

State = tuple[Tensor, ...]


class _TorchLayer(nn.Module):
    """One layer of torch's own recurrent kernels.

    They add two biases; training both would double the bias' effective learning rate and count twice in the norm of
    the gradient, so the second is frozen at zero.
    """

    kernel: nn.RNNBase

    def __init__(self, kernel: nn.RNNBase) -> None:
        super().__init__()
        self.kernel = kernel
        kernel.bias_hh_l0.requires_grad_(False)

    def fan_in(self) -> dict[str, int]:
        """Inputs that each weight matrix sums over."""
        return {"kernel.weight_ih_l0": self.kernel.input_size, "kernel.weight_hh_l0": self.kernel.hidden_size}


_TRAINED = ("kernel.weight_ih_l0", "kernel.weight_hh_l0", "kernel.bias_ih_l0")

_WIDE = 400  # units from which kernels.lstm is the faster; benchmarks/RESULTS.md


class LSTMLayer(_TorchLayer):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    i, f, o = σ(W x + U h + b), g = tanh(W x + U h + b), c ← f c + i g, h ← o tanh c.
    The gates are stored in the order i, f, g, o.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(nn.LSTM(input_size, hidden_size))

    def set_forget_bias(self, value: float) -> None:
        """Set the bias of the forget gates."""
        _, forget_H, _, _ = self.get_parameter("kernel.bias_ih_l0").chunk(4)
        forget_H.fill_(value)

    def forward(self, x_TBD: Tensor, state: State | None) -> tuple[Tensor, State]:
        """h_TBH and the state (h_1BH, c_1BH) after the last step."""
        if self._ours_is_faster(x_TBD):
            zero = x_TBD.new_zeros(1, x_TBD.shape[1], self.kernel.hidden_size)
            h_TBH, h_1BH, c_1BH = kernels.lstm(x_TBD, *(state or (zero, zero)), *map(self.get_parameter, _TRAINED))
            return h_TBH, (h_1BH, c_1BH)
        h_TBH, state = self.kernel(x_TBD, state)
        return h_TBH, state

    @staticmethod
    def together(weights: Mapping[str, Tensor], x_KTBD: Tensor, state: State | None) -> tuple[Tensor, State]:
        """h_KTBH and the state (h_K1BH, c_K1BH) after the last step."""
        before = state or _zeros(x_KTBD, weights, 2)
        h_KTBH, *after = kernels.lstm(x_KTBD, *before, *(weights[name] for name in _TRAINED))
        return h_KTBH, tuple(after)

    def _ours_is_faster(self, x_TBD: Tensor) -> bool:
        """Torch's own bf16 backward pass on a CPU is slow for wide layers."""
        return (
            x_TBD.device.type == "cpu"
            and torch.is_grad_enabled()
            and kernels.products_dtype(x_TBD) == torch.bfloat16
            and self.kernel.hidden_size >= _WIDE
        )


class TanhLayer(_TorchLayer):
    """Elman's recurrent layer: h ← tanh(W x + U h + b)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(nn.RNN(input_size, hidden_size, nonlinearity="tanh"))

    def forward(self, x_TBD: Tensor, state: State | None) -> tuple[Tensor, State]:
        """h_TBH and the state (h_1BH,) after the last step."""
        h_TBH, h_1BH = self.kernel(x_TBD, None if state is None else state[0])
        return h_TBH, (h_1BH,)

    @staticmethod
    def together(weights: Mapping[str, Tensor], x_KTBD: Tensor, state: State | None) -> tuple[Tensor, State]:
        """h_KTBH and the state (h_K1BH,) after the last step."""
        (before,) = state or _zeros(x_KTBD, weights, 1)
        h_KTBH = kernels.tanh(x_KTBD, before, *(weights[name] for name in _TRAINED))
        return h_KTBH, (h_KTBH[:, -1:],)


def _zeros(x_KTBD: Tensor, weights: Mapping[str, Tensor], count: int) -> State:
    """The state at the start of a stream."""
    replicates, _, streams, _ = x_KTBD.shape
    return (x_KTBD.new_zeros(replicates, 1, streams, weights["kernel.weight_hh_l0"].shape[-1]),) * count


def detach(state: State) -> State:
    """The same state, cut off from the graph: gradients stop here, values go on."""
    return tuple(tensor.detach() for tensor in state)


class Dropout(nn.Module):
    """Inverted dropout: each element is zeroed with probability p, the others are scaled by 1/(1 − p).

    A fresh mask for every element at every step (Zaremba et al. 2014), drawn from the layer's own generator, so that
    what else draws random numbers does not change it. In evaluation the input passes unchanged.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x with a new mask in training, x itself in evaluation or with p = 0."""
        if not self.training or self.p == 0:
            return x
        return x * self.mask(x.shape, torch.promote_types(x.dtype, torch.float32))

    def mask(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """A new one, on the generator's device: 0 for what is dropped, 1/(1 − p) for the others."""
        device = "cpu" if self.generator is None else self.generator.device
        if self.p == 0:
            return torch.ones(shape, dtype=dtype, device=device)
        # Two uniform numbers of 32 bits in each draw: several times faster than `bernoulli_`. What p = 0.3 drops,
        # p = 0.5 drops too: cells are compared under common random numbers.
        pairs = torch.empty((shape.numel() + 1) // 2, dtype=torch.int64, device=device)
        uniform = pairs.random_(-(2**63), None, generator=self.generator).view(torch.int32)
        keep = (uniform[: shape.numel()] >= int(self.p * 2**32) - 2**31).view(shape)
        return keep.to(dtype).div_(1 - self.p)
