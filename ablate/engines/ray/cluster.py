"""A Ray cluster as the study sees it: joined without noise, and its nodes as they come and go."""

from __future__ import annotations

import os
import re
import socket
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ablate.knobs import KnobError

# Read by Ray when it is first used. A connection that is cut without a word is noticed after ten seconds, not minutes.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_LOOK_SECONDS = 1.0  # between two looks at the nodes
_GONE_SECONDS = 20.0  # without an answer of its head; Ray ends this process after 60


@dataclass(frozen=True)
class Node:
    """A node that is alive.

    Attributes:
        name: its address, for people.
        resources: all that it has: CPU, GPU, and memory in bytes.
    """

    id: str
    name: str
    resources: Mapping[str, float]

    def slots(self, asked: Mapping[str, float]) -> int:
        """How many packs that each ask for so much it trains at a time."""
        counts = [int(self.resources.get(name, 0.0) / count + 1e-9) for name, count in asked.items() if count]
        return min(counts, default=0)


@dataclass
class _Seen:
    alive: Sequence[Node] = ()
    dead: frozenset[str] = frozenset()
    names: Mapping[str | None, str] = field(default_factory=dict)
    looked: float = field(default=-_LOOK_SECONDS)
    silent_since: float | None = None  # when its head gave no answer first; None: it gives one


class Cluster:
    """The cluster of an address, joined by this process.

    Args:
        address: HOST:PORT of its head; None: the cluster that this machine belongs to.

    Raises:
        KnobError: where there is none, or this machine is not part of it.
    """

    def __init__(self, address: str | None) -> None:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ImportError as error:
            raise KnobError("engine=ray: Ray is not installed here; pip install 'ablate-lm[ray]'") from error
        self._ray = ray
        self._is_own = not ray.is_initialized()
        if self._is_own:
            _join(ray, address)
        self.address: str = ray.get_runtime_context().gcs_address
        if address not in (None, self.address):
            raise KnobError(
                f"engine.address={address}: this process has joined the cluster at {self.address} already; name that "
                "one, or leave it (ray.shutdown())"
            )
        self._seen = _Seen()
        self._has_left = False

    @property
    def here(self) -> str:
        """The id of the node that this process is on."""
        return str(self._ray.get_runtime_context().get_node_id())

    @property
    def is_gone(self) -> bool:
        """Whether this machine's node is, or the head has given no answer for so long that none is expected."""
        silent = self._seen.silent_since
        return self._has_left or (silent is not None and time.monotonic() - silent > _GONE_SECONDS)

    def leave(self) -> None:
        """This machine's node has died, and with it the study's part in the cluster."""
        self._has_left = True

    def nodes(self) -> Sequence[Node]:
        """Those that are alive."""
        self.look()
        return self._seen.alive

    def is_dead(self, node: str) -> bool:
        """Whether a node is known to be gone."""
        self.look()
        return node in self._seen.dead

    def name_of(self, node: str | None) -> str:
        """A node as people call it."""
        return f"node {self._seen.names[node]}" if node in self._seen.names else "its node"

    def look(self) -> None:
        """See which nodes there are, once a second. Raises KnobError where the cluster is gone."""
        now = time.monotonic()
        if now - self._seen.looked >= _LOOK_SECONDS and not self._has_left:
            self._seen.looked = now
            # Ray would wait for a head that is gone, and end this process in the end.
            if _answers(self.address):
                self._take_in()
            elif self._seen.silent_since is None:
                self._seen.silent_since = now
        if self.is_gone:
            raise KnobError(
                f"engine.address={self.address}: the Ray cluster is gone, or this machine's node of it; once it runs "
                "again, the same command goes on with what is not finished"
            )

    def _take_in(self) -> None:
        self._seen.silent_since = None
        nodes = self._ray.nodes()
        self._seen.alive = [_node(each) for each in nodes if each["Alive"]]
        self._seen.names = {each["NodeID"]: each["NodeManagerAddress"] for each in nodes}
        self._seen.dead = frozenset(each["NodeID"] for each in nodes if not each["Alive"])

    def close(self) -> None:
        """Leave it."""
        if self._is_own and not self.is_gone:
            self._ray.shutdown()


def _node(record: Mapping[str, Any]) -> Node:
    return Node(record["NodeID"], record["NodeManagerAddress"], record["Resources"])


def _join(ray: Any, address: str | None) -> None:
    shown = f"engine.address={address}"
    if address is not None:
        if not re.fullmatch(r"[^\s/]+:\d+", address):
            raise KnobError(f"{shown}: HOST:PORT of the head, for example engine.address=10.0.0.1:6379")
        if not _answers(address):
            raise KnobError(
                f"{shown}: nothing answers there; on the head, ray start --head --port=6379 starts a cluster"
            )
        if os.environ.get("RAY_USE_TLS", "0") == "0" and not _speaks_grpc(address):  # Ray would try for two minutes
            raise KnobError(
                f"{shown}: what answers there is no head of Ray; its port is 6379 unless --port chose another"
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address or "auto", log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        if address is None and isinstance(error, ConnectionError):
            raise KnobError(
                "engine.address=null: this machine belongs to no Ray cluster; name one, engine.address=HOST:PORT, or "
                "start one here: ray start --head"
            ) from error
        if mismatch := re.search(r"[Vv]ersion mismatch", str(error)):
            raise KnobError(f"{shown}: {' '.join(str(error)[mismatch.start() :].split())}") from error
        raise KnobError(
            f"{shown}: this machine cannot join ({' '.join(str(error).split())[:200]}); the study is started on a node "
            f"of the cluster, which ray start --address={address} makes of this machine"
        ) from error
    _quiet()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=3.0):
            return True
    except (OSError, OverflowError):
        return False


def _speaks_grpc(address: str) -> bool:
    """Whether a server greets as gRPC's do, of which the head is one: with its settings, a frame of type 4."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10.0) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            return connection.recv(9)[3:4] == b"\4"
    except (OSError, OverflowError):
        return False


def _quiet() -> None:
    """Ray tells of every process that has died on the terminal, which is the view's; how packs end is in their results.

    There is no setting for it (Ray 2.60).
    """
    from ray._private import worker

    worker.print_to_stdstream = lambda *_, **__: None
