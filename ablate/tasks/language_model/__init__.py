"""Word-level language models: a task like any other, found by the entry point `ablate.task`. Torch comes late."""

from ablate.tasks.language_model.task import LANGUAGE_MODEL, METRICS

__all__ = ["LANGUAGE_MODEL", "METRICS"]
