"""Reading a text with a trained model: its cross-entropy, and a sample of what it writes."""

from __future__ import annotations

import torch
from torch import Tensor

from ablate.tasks.language_model.config import Config
from ablate.tasks.language_model.data import Corpus, Windows
from ablate.tasks.language_model.data.corpus import END_OF_SENTENCE, UNKNOWN, Ids
from ablate.tasks.language_model.model import RecurrentLM
from ablate.tasks.language_model.model.language_model import stream
from ablate.tasks.language_model.model.packed import Program
from ablate.train.machine import on_device


def evaluate(
    program: Program, ids: Ids, config: Config, device: torch.device, streams: int | None = None
) -> list[float]:
    """Each model's cross-entropy of a stream, in nats a token; perplexity is its exponential.

    `streams` readers side by side (None: `eval_batch`), the state carried from zero, the tail that fills no window
    dropped (the book's eval_perplexity: 210 windows of PTB's valid text, 235 of its test text).
    """
    return evaluate_by_token(program, ids, config, device, streams)[0]


@torch.inference_mode()
def evaluate_by_token(
    program: Program, ids: Ids, config: Config, device: torch.device, streams: int | None = None
) -> tuple[list[float], Tensor]:
    """`evaluate`, and what it is the mean of: each token's cross-entropy in the order of the text, shape [K, N].

    A reader's part of the text follows the one before it, without the few tokens that fill no window of its own.
    """
    windows = Windows(ids, streams or config.eval_batch, config.eval_window)
    program.train(False)
    total_K = torch.zeros((), device=device, dtype=torch.float64)
    states, windows_KBT = None, []
    for number in range(windows.per_epoch):
        inputs_1TB, targets_1TB = (on_device(ids, device) for ids in windows.at(number))
        with autocast(config, device):
            loss_K, nll_KTB, states = program.losses(inputs_1TB, targets_1TB, states)
        total_K = total_K + loss_K
        windows_KBT.append(nll_KTB.mT)
    program.train()
    by_token_KN = torch.cat(windows_KBT, -1).flatten(1)
    return [total / windows.per_epoch for total in total_K.tolist()], by_token_KN


@torch.inference_mode()
def sample(model: RecurrentLM, corpus: Corpus, words: int, seed: int, device: torch.device) -> str:
    """Text that the model writes, word by word from its own distribution without <unk>; <eos> ends a line."""
    ids = {word: i for i, word in enumerate(corpus.words)}
    generator = stream(seed, "sample")
    model.eval()
    word = ids.get(END_OF_SENTENCE, 0)
    states = None
    text = []
    for _ in range(words):
        logits_11V, states = model(torch.tensor([[word]], device=device), states)
        probabilities_V = logits_11V.flatten().softmax(0).cpu()
        if UNKNOWN in ids:
            probabilities_V[ids[UNKNOWN]] = 0
        word = int(torch.multinomial(probabilities_V, 1, generator=generator))
        text.append("\n" if corpus.words[word] == END_OF_SENTENCE else corpus.words[word])
    model.train()
    return " ".join(text).replace(" \n ", "\n").strip()


def autocast(config: Config, device: torch.device) -> torch.autocast:
    """The products' precision: bf16 where `precision` says so; weights and loss stay fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16")
