"""The recurrent language model and its parts. No Hydra, no MLflow."""

from ablate.tasks.language_model.model.language_model import RecurrentLM

__all__ = ["RecurrentLM"]
