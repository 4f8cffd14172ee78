"""Replicates of one model as one program.

A window of a small model leaves a large device almost idle; K of them side by side cost little more than one. That is
horizontal fusion (Wang et al. 2021, "Horizontally Fused Training Array", MLSys), here for recurrent layers.

Shape suffixes: K replicates, T time steps, B streams, D embedding size, H hidden size, N tokens (T·B), V words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.tasks.language_model.config import RECURRENT_LAYERS
from ablate.tasks.language_model.model.language_model import RecurrentLM
from ablate.tasks.language_model.model.layers import Dropout, State, detach
from ablate.tasks.language_model.model.output import cross_entropy_by_token

States = list[State]  # one a layer; of a program, with the replicates' dimension if it has one


def can_pack(rnn: str) -> bool:
    """Whether a recurrent layer can compute replicates together."""
    return hasattr(RECURRENT_LAYERS.load(rnn), "together")


class Program(Protocol):
    """K models that read windows of the same shape: each its own, or all the same one, [1, T, B]."""

    def train(self, mode: bool = True) -> object:
        """Switch dropout on or off."""

    def loss(self, inputs_KTB: Tensor, targets_KTB: Tensor, states: States | None) -> tuple[Tensor, States]:
        """Every model's mean cross-entropy over the window, [K], in nats; and the states after it.

        `states` are None at the start of a stream.
        """
        ...

    def losses(self, inputs_KTB: Tensor, targets_KTB: Tensor, states: States | None) -> tuple[Tensor, Tensor, States]:
        """The means, what they are the means of, nll_KTB, through which no gradient flows, and the states."""
        ...

    def backward(self, loss_K: Tensor) -> list[Tensor]:
        """Set the gradients of every model's loss and penalty; returns them, each [K, …]."""
        ...

    def split(self, states: States) -> list[States]:
        """The states of each model, as it has them when it is alone."""
        ...

    def join(self, states: Sequence[States]) -> States:
        """The opposite of `split`."""
        ...


def make_program(models: Sequence[RecurrentLM]) -> Program:
    """One model by itself, or many of the same shapes together."""
    return Packed(models) if len(models) > 1 else Alone(models[0])


class Alone:
    """One model, with the layers that are fastest for one."""

    def __init__(self, model: RecurrentLM) -> None:
        self.model = model

    def train(self, mode: bool = True) -> None:
        """Switch dropout on or off."""
        self.model.train(mode)

    def loss(self, inputs_KTB: Tensor, targets_KTB: Tensor, states: States | None) -> tuple[Tensor, States]:
        """Its mean cross-entropy, [1]."""
        loss, after = self.model.loss(inputs_KTB[0], targets_KTB[0], states)
        return loss.unsqueeze(0), after

    def losses(self, inputs_KTB: Tensor, targets_KTB: Tensor, states: States | None) -> tuple[Tensor, Tensor, States]:
        """Its mean cross-entropy, [1], and that of each token, [1, T, B]."""
        loss, nll_TB, after = self.model.losses(inputs_KTB[0], targets_KTB[0], states)
        return loss.unsqueeze(0), nll_TB.unsqueeze(0), after

    def backward(self, loss_K: Tensor) -> list[Tensor]:
        """Its gradients, [1, …]."""
        for p in self.model.parameters():
            p.grad = None
        penalty = self.model.penalty()
        (loss_K if penalty is None else loss_K + penalty).backward()  # type: ignore[no-untyped-call]
        return [p.grad.unsqueeze(0) for p in self.model.parameters() if p.grad is not None]

    def split(self, states: States) -> list[States]:
        """They are its own."""
        return [states]

    def join(self, states: Sequence[States]) -> States:
        """They are its own."""
        return states[0]


class Packed:
    """Models of the same shapes, computed together.

    Every parameter of theirs becomes a slice of one tensor with a leading replicate dimension. So each model can still
    be read, saved and updated as if it were alone, and all are computed as batched products.

    Args:
        models: on their device, with their initial values. They may differ in dropout, and in its random streams.
    """

    def __init__(self, models: Sequence[RecurrentLM]) -> None:
        self._models = list(models)
        self._stacked: dict[str, Tensor] = {}
        for name, parameters in self._by_name():
            stacked = torch.stack([p.detach() for p in parameters])
            for p, part in zip(parameters, stacked.unbind(0), strict=True):
                p.data = part
            self._stacked[name] = stacked.requires_grad_(parameters[0].requires_grad)
        # Made once: on a GPU a tensor made of numbers of the host waits for the device.
        weight_KVD = self._stacked["embedding.weight"].detach()
        self._scales_K = weight_KVD.new_tensor([model.input_scale for model in models])
        self._penalties_K = weight_KVD.new_tensor([model.penalty_weight for model in models])
        self._scaled = any(model.input_scale != 1 for model in models)

    def _by_name(self) -> Iterator[tuple[str, list[nn.Parameter]]]:
        for each in zip(*(model.named_parameters() for model in self._models), strict=True):
            yield each[0][0], [parameter for _, parameter in each]

    def train(self, mode: bool = True) -> None:
        """Switch dropout on or off."""
        for model in self._models:
            model.train(mode)

    def loss(self, inputs_KTB: Tensor, targets_KTB: Tensor, states: States | None) -> tuple[Tensor, States]:
        """Every model's mean cross-entropy, [K]; what `RecurrentLM.loss` computes for one."""
        loss_K, _, after = self.losses(inputs_KTB, targets_KTB, states)
        return loss_K, after

    def losses(self, inputs_KTB: Tensor, targets_KTB: Tensor, states: States | None) -> tuple[Tensor, Tensor, States]:
        """The same, and every model's cross-entropy of each token, [K, T, B]."""
        like = self._models[0]
        x_KTBD = self._embedding(inputs_KTB)
        if self._scaled:
            x_KTBD = x_KTBD * self._scales_K[:, None, None, None]
        x_KTBH = self._dropout(0, x_KTBD)
        after = []
        for i, layer in enumerate(like.layers):
            weights = {name: self._stacked[f"layers.{i}.{name}"] for name, _ in layer.named_parameters()}
            together = layer.together
            h_KTBH, state = together(weights, x_KTBH, None if states is None else states[i])  # type: ignore[operator]
            h_KTBH = self._dropout(i + 1, h_KTBH)
            x_KTBH = h_KTBH + x_KTBH if like.residual and i > 0 else h_KTBH
            after.append(detach(state))
        weight_KVH = self._stacked["embedding.weight" if like.is_tied else "output.weight"]
        x_KNH, targets_KN = self._projection(x_KTBH.flatten(1, 2)), targets_KTB.flatten(1, 2)
        loss_K, nll_KN = cross_entropy_by_token(x_KNH, weight_KVH, self._stacked["output.bias"], targets_KN)
        return loss_K, nll_KN.view(-1, *targets_KTB.shape[1:]), after

    def _projection(self, x_KNH: Tensor) -> Tensor:
        if self._models[0].projection is None:
            return x_KNH
        weight_KHH, bias_KH = self._stacked["projection.weight"], self._stacked["projection.bias"]
        return torch.matmul(x_KNH, weight_KHH.mT) + bias_KH.unsqueeze(1)

    def _embedding(self, inputs_KTB: Tensor) -> Tensor:
        weight_KVD = self._stacked["embedding.weight"]
        replicates, words, _ = weight_KVD.shape
        first_K11 = words * torch.arange(replicates, device=inputs_KTB.device)[:, None, None]
        return F.embedding(inputs_KTB + first_K11, weight_KVD.flatten(0, 1))

    def _dropout(self, place: int, x_KTBH: Tensor) -> Tensor:
        dropouts = [model.dropouts[place] for model in self._models]
        if not dropouts[0].training or all(dropout.p == 0 for dropout in dropouts):
            return x_KTBH
        exact = torch.promote_types(x_KTBH.dtype, torch.float32)
        masks = [dropout.mask(x_KTBH.shape[1:], exact) for dropout in dropouts if isinstance(dropout, Dropout)]
        return x_KTBH * torch.stack(masks)

    def backward(self, loss_K: Tensor) -> list[Tensor]:
        """Every parameter's gradients, [K, …], of which each model's own has a slice."""
        for stacked in self._stacked.values():
            stacked.grad = None
        (loss_K.sum() + self._penalties()).backward()  # type: ignore[no-untyped-call]
        gradients = []
        for name, parameters in self._by_name():
            stacked_grad = self._stacked[name].grad
            if stacked_grad is None:  # the bias that is frozen
                continue
            gradients.append(stacked_grad)
            for p, gradient in zip(parameters, stacked_grad.unbind(0), strict=True):
                p.grad = gradient
        return gradients

    def _penalties(self) -> Tensor | float:
        """Sum of every model's penalty."""
        if self._models[0].projection is None:
            return 0.0
        weight_KHH = self._stacked["projection.weight"]
        return (self._penalties_K * weight_KHH.square().sum((1, 2))).sum()

    def split(self, states: States) -> list[States]:
        """The states of each model, as it has them when it is alone."""
        return [[tuple(tensor[k] for tensor in layer) for layer in states] for k in range(len(self._models))]

    def join(self, states: Sequence[States]) -> States:
        """The opposite of `split`."""
        return [
            tuple(torch.stack(tensors) for tensors in zip(*layers, strict=True)) for layers in zip(*states, strict=True)
        ]
