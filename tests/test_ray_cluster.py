"""When a study takes its Ray cluster for gone; Ray itself has no part in it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ablate.engines.ray import cluster
from ablate.knobs import KnobError


def test_a_cluster_is_gone_after_looks_without_an_answer_and_not_after_a_time_without_looks(monkeypatch):
    made, clock, heard = object.__new__(cluster.Cluster), [0.0], [True]
    made.address, made._ray, made._has_left = "head:1", SimpleNamespace(nodes=list), False
    monkeypatch.setattr(cluster.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(cluster, "_answers", lambda address: heard[0])
    made._seen = cluster._Seen()

    def look(at, answers):
        clock[0], heard[0] = at, answers
        made.look()

    look(1, True)
    look(100, True)  # meanwhile nodes were asked, or the study was held by Ctrl-Z
    look(102, False)
    look(119, False)
    look(150, True)
    look(152, False)
    with pytest.raises(KnobError, match="the Ray cluster is gone"):
        look(173, False)
