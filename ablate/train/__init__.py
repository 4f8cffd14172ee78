"""The engine: one loop, schedules, evaluation, checkpoints, seeding. No Hydra, no MLflow."""

from ablate.train.checkpoint import Checkpoints
from ablate.train.engine import Outcome, Sink, Trial, fit

__all__ = ["Checkpoints", "Outcome", "Sink", "Trial", "fit"]
