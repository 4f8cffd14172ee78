"""A Markov source whose perplexity is known exactly.

The last `order` words choose a state; each state has `branching` successors, of which the j-th commonest is drawn
with probability proportional to 1/(j + 1), alike in every state. The entropy rate is thus that of these weights, for
any size of vocabulary: `exp(entropy(weights))` is the perplexity that no model can beat.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from ablate.knobs import KnobError
from ablate.tasks.language_model.config import Synthetic
from ablate.tasks.language_model.data.corpus import Corpus, Ids
from ablate.tasks.language_model.data.encode import cached

# Contexts of two words or more share so many states, chosen by a hash of the context.
_MOST_STATES = 100_000


def load(data: Synthetic) -> Corpus:
    """The sampled corpus; `floor_nll` is the exact mean surprise of its test stream under the source, in nats."""
    if data.branching > data.vocab_size:
        raise KnobError(
            f"data.branching={data.branching} data.vocab_size={data.vocab_size}: a word cannot have more successors "
            f"than there are words; use data.branching={data.vocab_size} at most"
        )
    key = hashlib.sha256(repr(tuple(data.model_dump().values())).encode()).hexdigest()[:32]
    return cached(f"synthetic-{key}", lambda: _build(data))


def weights(branching: int) -> NDArray[np.float64]:
    """Probabilities of a state's successors, commonest first; shape [branching]."""
    raw: NDArray[np.float64] = 1.0 / np.arange(1, branching + 1)
    p: NDArray[np.float64] = raw / raw.sum()
    return p


def entropy_rate(branching: int) -> float:
    """Nats a token of the source: the cross-entropy of a perfect model on an endless text."""
    p = weights(branching)
    return float(-(p * np.log(p)).sum())


def _build(data: Synthetic) -> Corpus:
    successors = _successors(data)
    sizes = (data.tokens, data.eval_tokens, data.eval_tokens)
    (train, _), (valid, _), (test, test_nll) = (
        _sample(data, successors, size, split) for split, size in enumerate(sizes, start=1)
    )
    words = tuple(f"w{i}" for i in range(data.vocab_size))
    return Corpus("synthetic", words, train, valid, test, floor_nll=test_nll)


def _states(data: Synthetic) -> int:
    return data.vocab_size if data.order == 1 else min(data.vocab_size**data.order, _MOST_STATES)


def _successors(data: Synthetic) -> list[list[int]]:
    rng = np.random.default_rng([data.seed, 0])
    return [rng.choice(data.vocab_size, size=data.branching, replace=False).tolist() for _ in range(_states(data))]


def _sample(data: Synthetic, successors: list[list[int]], size: int, split: int) -> tuple[Ids, float]:
    rng = np.random.default_rng([data.seed, split])
    p = weights(data.branching)
    ranks = rng.choice(data.branching, size=size, p=p)
    context = rng.integers(data.vocab_size, size=data.order).tolist()
    states = len(successors)
    ids = np.empty(size, dtype=np.int32)
    for position, rank in enumerate(ranks.tolist()):
        state = 0
        for word in context:
            state = (state * data.vocab_size + word) % states
        word = successors[state][rank]
        ids[position] = word
        context = [*context[1:], word]
    return ids, float(-np.log(p[ranks]).mean())
