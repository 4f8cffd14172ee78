"""Word-level language models."""

from ablate.metric import Metric

METRICS = (Metric("perplexity", better="lower", scale="log", logged="nll"),)
