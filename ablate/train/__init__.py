"""The engine: one loop, schedules, evaluation, checkpoints, seeding. No Hydra, no MLflow."""

from ablate.train.engine import Outcome, Sink, Trial, fit

__all__ = ["Outcome", "Sink", "Trial", "fit"]
