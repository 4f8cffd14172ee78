"""What every task needs to train: checkpoints, the machine. No Hydra, no MLflow."""

from ablate.train.checkpoint import Checkpoints

__all__ = ["Checkpoints"]
