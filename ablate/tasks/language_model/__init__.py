"""Word-level language models."""

from ablate.metric import Metric

METRICS = (Metric("perplexity", better="lower", scale="log", logged="nll"),)

# What a launch records of the task. `budget`: knobs that set how much a trial trains on, first the one that scales a
# whole training. `presets`: knobs that name a preset, and the parts that it sets. `follows`: knobs that take another's
# value unless they are set. `idle`: knobs that change no result.
TASK = {
    "name": "language_model",
    "step": "window",
    "unit": "tokens",
    "budget": ["budget", "epochs", "windows", "train_tokens"],
    "presets": {"model": ["rnn", "depth", "dropout", "tie"], "recipe": []},
    "follows": {"embedding": "hidden"},
    "idle": ["sample_words"],
}
