"""The engine of a Ray cluster: a task of Ray's supervises, on its node, a worker process as this machine's are."""

from ablate.engines.ray.engine import RayEngine

__all__ = ["RayEngine"]
