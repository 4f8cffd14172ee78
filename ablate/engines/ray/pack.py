"""A pack that Ray has: whether it runs, where, and how it ended."""

from __future__ import annotations

import time
from typing import Any

from ablate.engines.engine import Died, Lost
from ablate.engines.ray.cluster import Cluster
from ablate.engines.ray.node import End

_FORCE_SECONDS = 10.0  # in which a task that is cancelled should have ended
_GRACE_SECONDS = 5.0  # in which a node that took a worker process with it is known to be dead


class RayPack:
    """Implements `ablate.engines.engine.Submitted`.

    Args:
        launch: the id of the launch that it was handed over by.
        stream: of the task, which gives first the id of its node, then its end.

    Attributes:
        is_settled: whether its result was asked for.
    """

    def __init__(self, launch: str, stream: Any, cluster: Cluster) -> None:
        self.launch = launch
        self.stream = stream
        self._cluster = cluster
        self._node: str | None = None
        self._failure: Exception | None = None  # before it ran
        self.is_settled = False
        self._killed: float | None = None

    @property
    def where(self) -> str:
        """See `Submitted`, as for all below."""
        return "" if self._node is None else self._cluster.name_of(self._node)

    @property
    def is_running(self) -> bool:
        self._look()
        return self._node is not None

    @property
    def has_ended(self) -> bool:
        self._look()
        if self.is_settled or self._failure is not None:
            return True
        # After a cut of the network, what was to come from a node that is dead never comes.
        return self._node is not None and (self._is_ready() or self._cluster.is_dead(self._node))

    def result(self) -> list[str]:
        self._look()
        self.is_settled = True
        if self._failure is not None:
            raise self._reason(self._failure) from self._failure
        if self._node is not None and self._cluster.is_dead(self._node) and not self._is_ready():
            raise self._lost()
        try:
            end = self._next()
        except Exception as error:
            raise self._reason(error) from error
        assert isinstance(end, End), "comes after the node"
        if end.died:
            raise Died(end.died)
        if end.raised:
            raise RuntimeError(end.raised)
        return list(end.results)

    def kill(self) -> None:
        import ray

        if self._killed is None and not self._cluster.is_gone:
            self._killed = time.monotonic()
            ray.cancel(self.stream)  # the task kills its child, and ends

    def force(self) -> None:
        """Once it was killed: end a task that has not heard of it. Its child ends with it."""
        import ray

        if self._killed is not None and time.monotonic() - self._killed > _FORCE_SECONDS and not self.has_ended:
            ray.cancel(self.stream, force=True)

    def _look(self) -> None:
        if self._node is None and self._failure is None and self._is_ready():
            try:
                self._node = str(self._next())
            except Exception as error:
                self._failure = error

    def _is_ready(self) -> bool:
        import ray

        ready, _ = ray.wait([self.stream], timeout=0, fetch_local=False)
        return bool(ready)

    def _next(self) -> Any:
        import ray

        return ray.get(next(self.stream))

    def _lost(self) -> Lost:
        return Lost(f"{self._cluster.name_of(self._node)} is gone")

    def _reason(self, error: Exception) -> Exception:
        """Whose fault it was that a task did not come to its end."""
        from ray import exceptions

        if isinstance(error, exceptions.LocalRayletDiedError):  # of this machine
            self._cluster.leave()
            return self._lost()
        if isinstance(error, exceptions.NodeDiedError):
            return self._lost()
        if isinstance(error, exceptions.OutOfMemoryError):
            return Died(
                "Ray ended its process, for the node had run out of memory; engine.memory=… says what a pack needs"
            )
        if isinstance(error, exceptions.WorkerCrashedError):
            deadline = time.monotonic() + _GRACE_SECONDS
            while time.monotonic() < deadline:
                if self._node is not None and self._cluster.is_dead(self._node):
                    return self._lost()
                time.sleep(0.1)
            return Died("Ray's process, which supervised it, was killed; the node may have run out of memory")
        return Died(" ".join(str(getattr(error, "cause", None) or error).split())[:300])
