"""One recurrent language model, of which the RNN, the LSTM and the better LSTM are three settings.

Shape suffixes: T time steps, B streams, D embedding size, H hidden size, V words.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.tasks.language_model.config import RECURRENT_LAYERS
from ablate.tasks.language_model.model.layers import Dropout, State, detach
from ablate.tasks.language_model.model.output import cross_entropy_by_token


class RecurrentLM(nn.Module):
    """Embedding → dropout → (recurrent layer → dropout) × depth → projection, if there is one → output.

    Args:
        vocabulary: number of words V.
        rnn: name of the recurrent layer.
        depth: recurrent layers.
        hidden: units H of each.
        embedding: size D of a word vector.
        dropout: share of elements dropped after the embedding and after every layer.
        tie: the output matrix is the embedding (Press & Wolf 2017; Inan et al. 2017); needs D = H.
        residual: from the second layer on, what a layer reads is added to what it gives (Wu et al. 2016, "Google's
            Neural Machine Translation System", section 3.1). The first layer, whose sizes may differ, has none.
        projection: weight λ of the penalty λ‖P‖² on a square matrix P (with a bias) before the output layer (Press &
            Wolf 2017, section 3.3, "projection regularization"); None: there is no such matrix.
        input_scale: what word vectors are multiplied by when they are read (Vaswani et al. 2017, section 3.4): a tied
            matrix can then have the scale that an output needs, and its rows the scale that an input needs.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        rnn: str,
        depth: int,
        hidden: int,
        embedding: int,
        dropout: float,
        tie: bool,
        residual: bool = False,
        projection: float | None = None,
        input_scale: float = 1.0,
    ) -> None:
        super().__init__()
        layer = RECURRENT_LAYERS.load(rnn)
        # `initialize` draws the values; torch's own, on the device where plans take sizes, import its compiler.
        self.embedding = nn.Embedding(vocabulary, embedding, _weight=torch.empty(vocabulary, embedding))
        self.layers = nn.ModuleList(layer(embedding if i == 0 else hidden, hidden) for i in range(depth))
        self.dropouts = nn.ModuleList(Dropout(dropout) for _ in range(depth + 1))
        self.projection = None if projection is None else nn.Linear(hidden, hidden)
        self.penalty_weight = projection or 0.0
        self.output = nn.Linear(hidden, vocabulary)
        self.residual = residual
        self.input_scale = input_scale
        if tie:
            assert embedding == hidden, "config refuses tie with embedding != hidden"
            self.output.weight = self.embedding.weight

    def forward(self, inputs_TB: Tensor, states: list[State] | None) -> tuple[Tensor, list[State]]:
        """Logits, and every layer's state, detached, to go on with at the next window.

        Args:
            inputs_TB: word ids.
            states: one a layer; None at the start of a stream.

        Returns:
            logits_TBV, states.
        """
        x_TBH, after = self._features(inputs_TB, states)
        return self.output(x_TBH), after

    def _features(self, inputs_TB: Tensor, states: list[State] | None) -> tuple[Tensor, list[State]]:
        """What the output layer reads, and every layer's state, detached."""
        x_TBD = self.embedding(inputs_TB)
        x_TBH = self.dropouts[0](x_TBD if self.input_scale == 1 else x_TBD * self.input_scale)
        after = []
        for i, layer in enumerate(self.layers):
            h_TBH, state = layer(x_TBH, None if states is None else states[i])
            h_TBH = self.dropouts[i + 1](h_TBH)
            x_TBH = h_TBH + x_TBH if self.residual and i > 0 else h_TBH
            after.append(detach(state))
        return x_TBH if self.projection is None else self.projection(x_TBH), after

    def loss(self, inputs_TB: Tensor, targets_TB: Tensor, states: list[State] | None) -> tuple[Tensor, list[State]]:
        """Mean cross-entropy over the window's T·B tokens, in nats, in fp32 at least; and the states after it."""
        mean, _, after = self.losses(inputs_TB, targets_TB, states)
        return mean, after

    def losses(
        self, inputs_TB: Tensor, targets_TB: Tensor, states: list[State] | None
    ) -> tuple[Tensor, Tensor, list[State]]:
        """The mean, what it is the mean of, nll_TB, through which no gradient flows, and the states."""
        x_TBH, after = self._features(inputs_TB, states)
        x_NH, targets_N = x_TBH.flatten(0, 1), targets_TB.flatten()
        if x_NH.device.type == "cpu":
            mean, nll_N = cross_entropy_by_token(x_NH, self.output.weight, self.output.bias, targets_N)
        else:
            logits_NV = self.output(x_NH)
            exact = torch.promote_types(logits_NV.dtype, torch.float32)
            log_p_NV = logits_NV.to(exact).log_softmax(-1)
            mean, nll_N = F.nll_loss(log_p_NV, targets_N), -log_p_NV.detach().gather(-1, targets_N[:, None])
        return mean, nll_N.view(targets_TB.shape), after

    def initialize(
        self,
        seed: int,
        embedding_std: float | None = None,
        *,
        output_std: float | None = None,
        init_range: float | None = None,
        forget_bias: float = 0.0,
        output_bias_V: Tensor | None = None,
    ) -> None:
        """Draw the initial values.

        Each tensor has its own stream, from the seed, its name and its shape: whatever else two models differ in, a
        tensor that both have starts with the same values (common random numbers).

        Args:
            embedding_std: what the first layer reads is N(0, embedding_std²), recurrent weights and the projection are
                N(0, 1/inputs), biases 0, as in the book, whose embedding_std is 0.01.
            output_std: of the output's weights where they are not tied; None: N(0, 1/inputs) too.
            init_range: instead, everything is U(−init_range, init_range) but the recurrent layers' biases, which are 0
                (Zaremba et al. 2014 as in TensorFlow r0.8's ptb_word_lm).
            forget_bias: of layers that have forget gates (Gers et al. 2000; Jozefowicz et al. 2015).
            output_bias_V: what the output's bias starts from, in place of the above; for example `log_unigram`.
        """
        with torch.no_grad():
            if init_range is None:
                assert embedding_std is not None, "normal values have a standard deviation"
                std = self._stds(embedding_std, output_std)
                for name, tensor in self.named_parameters():  # a tied tensor comes once, as embedding.weight
                    if name in std:
                        tensor.copy_(torch.randn(tensor.shape, generator=stream(seed, name, *tensor.shape)) * std[name])
                    else:
                        tensor.zero_()
            else:
                for name, tensor in self.named_parameters():
                    if name.startswith("layers.") and tensor.dim() == 1:
                        tensor.zero_()
                    else:
                        uniform = torch.rand(tensor.shape, generator=stream(seed, name, *tensor.shape))
                        tensor.copy_((2 * uniform - 1) * init_range)
            for layer in self.layers:
                if hasattr(layer, "set_forget_bias"):
                    layer.set_forget_bias(forget_bias)  # type: ignore[operator]
            if output_bias_V is not None:
                self.output.bias.copy_(output_bias_V)

    def _stds(self, embedding_std: float, output_std: float | None) -> dict[str, float]:
        """Parameter → standard deviation of its normal initial values; the others are 0."""
        std = {
            "embedding.weight": embedding_std / self.input_scale,
            "output.weight": output_std or 1 / math.sqrt(self.output.in_features),
            "projection.weight": 1 / math.sqrt(self.output.in_features),
        }
        for i, layer in enumerate(self.layers):
            for name, inputs in layer.fan_in().items():  # type: ignore[operator]
                std[f"layers.{i}.{name}"] = 1 / math.sqrt(inputs)
        return std

    def penalty(self) -> Tensor | None:
        """λ‖P‖² of the projection, which training adds to the loss; None: there is none."""
        return None if self.projection is None else self.penalty_weight * self.projection.weight.square().sum()

    def seed_dropout(self, seed: int) -> None:
        """Give every dropout its own stream, from the seed and its place."""
        for i, dropout in enumerate(self.dropouts):
            assert isinstance(dropout, Dropout)
            dropout.generator = stream(seed, f"dropouts.{i}", device=self.output.weight.device)

    def streams(self) -> dict[str, torch.Generator]:
        """The generators that training draws from, by place."""
        generators = {f"dropouts.{i}": dropout.generator for i, dropout in enumerate(self.dropouts)}
        return {name: generator for name, generator in generators.items() if isinstance(generator, torch.Generator)}

    @property
    def is_tied(self) -> bool:
        """Whether the output matrix is the embedding."""
        return self.output.weight is self.embedding.weight

    def parameter_count(self) -> int:
        """Trained numbers; a tied matrix counts once."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def log_unigram(ids: NDArray[np.int32], vocabulary: int) -> Tensor:
    """Logarithm of how often each word comes in a text, shape [V], with one added to every count.

    As the output's initial bias it spares a model the first hundreds of updates, in which it would learn nothing else
    (Meister et al. 2023, "A Natural Bias for Language Generation Models").
    """
    counts_V = torch.from_numpy(np.bincount(ids, minlength=vocabulary)).double() + 1
    return (counts_V / counts_V.sum()).log().float()


def stream(seed: int, *key: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for every (seed, key): the same on every machine, independent of all others."""
    digest = hashlib.sha256(repr((seed, *key)).encode()).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)
