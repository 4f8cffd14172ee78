"""Which parts of a small Transformer help? A language model of words, which learns from one gospel.

python examples/transformer.py -m design=leave_one_out seeds=5
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal

import pythonbible as bible
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

import ablate

WORDS = 1000  # the commonest; all others are <unk>
LEARNT = (bible.Book.MATTHEW,)  # 22,000 words to train on, which are read 18 times; the rest is valid
TESTED = (bible.Book.LUKE,)
STD = 0.02  # of word vectors


@dataclass
class Config:
    """Every field is a knob: depth=2 on the command line sets it, depth=1,2,4 compares three values."""

    width: Annotated[int, Field(ge=1, description="of word vectors and layers")] = 64
    depth: Annotated[int, Field(ge=1, description="blocks of attention and feed-forward layer")] = 3
    heads: Annotated[int, Field(ge=1, description="of attention, each width / heads wide")] = 4
    position: Annotated[Literal["learned", "sinusoidal", "none"], Field(description="what tells places apart")] = (
        "learned"
    )
    norm: Annotated[Literal["pre", "post", "none"], Field(description="layer normalisation")] = "pre"
    tie: Annotated[bool, Field(description="the output layer's weights are the word vectors")] = True
    dropout: Annotated[float, Field(ge=0, lt=1, description="of word vectors and of what each layer adds")] = 0.2
    lr: Annotated[float, Field(gt=0, description="the highest learning rate")] = 0.008
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    batch: Annotated[int, Field(ge=1)] = 8
    window: Annotated[int, Field(ge=2, description="words that the model sees at once")] = 64
    steps: Annotated[int, Field(ge=1)] = 800
    valid_every: Annotated[int, Field(ge=1)] = 100

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} must be a multiple of heads={self.heads}")


COMPONENTS = {
    "heads": "heads=1",
    "position": "position=none",
    "normalisation": "norm=none",
    "depth": "depth=1",
    "tying": "tie=false",
    "dropout": "dropout=0",
}


def chapters(books: tuple[bible.Book, ...]) -> list[tuple[bible.Book, int]]:
    return [(book, chapter) for book in books for chapter in range(1, bible.get_number_of_chapters(book) + 1)]


def words_of(book: bible.Book, chapter: int) -> list[str]:
    words: list[str] = []
    for verse in range(1, bible.get_number_of_verses(book, chapter) + 1):
        text = bible.get_verse_text(bible.get_verse_id(book, chapter, verse), version=bible.Version.KING_JAMES)
        words += [*re.findall(r"[a-z’-]+|[.,;:?!()]", text.lower()), "<end>"]
    return words


@cache
def texts() -> dict[str, Tensor]:
    """Word numbers (n,) of each split. Every fourth chapter of Matthew is valid; all of Luke is test."""
    splits: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for number, chapter in enumerate(chapters(LEARNT), 1):
        splits["valid" if number % 4 == 0 else "train"] += words_of(*chapter)
    for chapter in chapters(TESTED):
        splits["test"] += words_of(*chapter)
    known = {word: number for number, (word, _) in enumerate(Counter(splits["train"]).most_common(WORDS))}
    return {name: torch.tensor([known.get(word, WORDS) for word in words]) for name, words in splits.items()}


class Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=STD)


class Block(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.query_key_value = nn.Linear(width, 3 * width)
        self.gather = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norm1, self.norm2 = make_norm(config), make_norm(config)
        self.dropout = nn.Dropout(config.dropout)

    def attention(self, x: Tensor) -> Tensor:
        batch, window, width = x.shape
        heads = self.query_key_value(x).view(batch, window, 3, self.config.heads, -1).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(*heads, is_causal=True)
        return self.gather(x.transpose(1, 2).reshape(batch, window, width))

    def forward(self, x: Tensor) -> Tensor:
        if self.config.norm == "post":
            x = self.norm1(x + self.dropout(self.attention(x)))
            return self.norm2(x + self.dropout(self.feed_forward(x)))
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class Transformer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.words = Embedding(WORDS + 1, config.width)
        self.places = Embedding(config.window, config.width) if config.position == "learned" else None
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        self.norm = make_norm(config) if config.norm == "pre" else nn.Identity()
        # Tied or not, its weights are small: large ones would make the model sure of its first, random answers.
        self.output = self.words if config.tie else Embedding(WORDS + 1, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words) / STD + self.position(words.shape[1], words.device)
        return F.linear(self.norm(self.blocks(self.dropout(x))), self.output.weight)

    def position(self, window: int, device: torch.device) -> Tensor | float:
        if self.places is not None:
            return self.places.weight[:window] / STD
        return sinusoids(window, self.config.width).to(device) if self.config.position == "sinusoidal" else 0.0


def make_norm(config: Config) -> nn.Module:
    return nn.Identity() if config.norm == "none" else nn.LayerNorm(config.width)


def sinusoids(window: int, width: int) -> Tensor:
    rates = 10_000 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(window)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]


def nlls(model: Transformer, inputs: Tensor, targets: Tensor) -> Tensor:
    """−log p of each target, (batch · window,)."""
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="none")


@torch.no_grad()
def evaluate(model: Transformer, text: Tensor) -> Tensor:
    """−log p of each word of a text, which is cut into windows."""
    model.eval()
    window = model.config.window
    n = (len(text) - 1) // window * window
    inputs, targets = text[:n].view(-1, window), text[1 : n + 1].view(-1, window)
    found = [nlls(model, *pair) for pair in zip(inputs.split(32), targets.split(32), strict=True)]
    model.train()
    return torch.cat(found)


@ablate.task(
    Config,
    components=COMPONENTS,
    metric=ablate.Metric("perplexity", better="lower", scale="log", logged="nll"),
    data=lambda config: ablate.digest(*texts().values()),
    step="step",
)
def train(config: Config, run):
    splits = {name: text.to(run.device) for name, text in texts().items()}
    model = Transformer(config).to(run.device)
    run.initial_values(model)
    weights, betas = model.parameters(), (0.9, 0.98)
    optimizer = torch.optim.AdamW(weights, config.lr, betas=betas, weight_decay=config.weight_decay, fused=True)
    warmup = math.ceil(config.steps / 10)

    def rate(step: int) -> float:
        return min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / config.steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    recent: list[float] = []  # losses since the last log: kept, so that a resumed training logs the same mean
    run.keep(model=model, optimizer=optimizer, schedule=schedule, recent=recent)
    run.keep_best(model=model)

    offsets = torch.arange(config.window, device=run.device)
    for step in run.steps(config.steps):
        starts = torch.randint(len(splits["train"]) - config.window, (config.batch, 1)).to(run.device)
        inputs, targets = splits["train"][starts + offsets], splits["train"][starts + offsets + 1]
        loss = nlls(model, inputs, targets).mean()
        if step == 0:
            run.log(step=0, train_nll=loss)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(loss.item())
        if (step + 1) % config.valid_every == 0 or step + 1 == config.steps:
            run.log(train_nll=sum(recent) / len(recent), valid_nll=evaluate(model, splits["valid"]).mean())
            recent.clear()

    run.load_best()
    each = evaluate(model, splits["test"])
    run.examples(each)
    return {"test_nll": each.mean()}


if __name__ == "__main__":
    ablate.main(train)
