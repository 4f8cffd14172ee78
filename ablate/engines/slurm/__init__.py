"""The engine of a SLURM cluster: every pack is a job, which outlives the command that submitted it."""

from ablate.engines.slurm.engine import SlurmEngine

__all__ = ["SlurmEngine"]
