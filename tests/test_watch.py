"""python -m ablate.track watch: a study followed from its journals alone."""

from __future__ import annotations

import pytest
from conftest import TINY
from program import inside

from ablate.knobs import KnobError
from ablate.track import claims
from ablate.track import watch as watch_module
from ablate.track.__main__ import main as track
from ablate.track.claims import claimed
from ablate.track.folder import Folder
from ablate.track.journal import Journal
from ablate.track.watch import watch

LAUNCH = {
    "id": "a launch",
    "time": "2026-01-01T00:00:00.000+00:00",
    "metrics": [{"name": "error"}],
    "task": {"step": "epoch"},
    "cells": [{"label": "width=1", "trials": [{"seed": seed, "fingerprint": str(seed + 1) * 64} for seed in (0, 1)]}],
}  # fmt: skip


def launched(tmp_path, **changes):
    folder = Folder(tmp_path / "runs")
    Journal(folder.study("s")).append("launched", **{**LAUNCH, **changes})
    return folder


def test_it_says_what_each_trial_does_and_ends_when_all_have_ended(tmp_path, monkeypatch):
    folder, said = launched(tmp_path), []

    def time_passes(_):
        with claimed(folder.trial("2" * 64), "a launch") as claim:
            claim.append("resumed", step=1, kept=1)
            claim.append("failed", reason="its disk was full")

    monkeypatch.setattr(watch_module.time, "sleep", time_passes)
    for fingerprint in ("1" * 64, "2" * 64):
        with claimed(folder.trial(fingerprint), "a launch") as claim:
            claim.append("started")
            claim.append("log", step=1, values={"valid_error": 0.5})
            if fingerprint == "1" * 64:
                values = {"valid_error": 0.25, "test_error": 0.5}
                claim.append("finished", status="FINISHED", values=values, seconds=61.0)
    watch(folder, "s", said.append)
    assert said == [
        "width=1 · seed 0: started",
        "width=1 · seed 0: epoch 1, valid error 0.5000",
        "width=1 · seed 0: valid 0.2500 · test 0.5000 · 1 min 01 s",
        "width=1 · seed 1: started",
        "width=1 · seed 1: epoch 1, valid error 0.5000",
        "width=1 · seed 1: goes on at epoch 1",
        "width=1 · seed 1: failed, its disk was full",
        "study s: 1 finished, 1 failed",
        "python -m ablate.report s writes the report, python -m ablate.track sync copies it to MLflow",
    ]


def test_a_failure_of_an_earlier_launch_is_no_end(tmp_path, monkeypatch):
    folder, looks = launched(tmp_path, time="2100-01-01T00:00:00.000+00:00"), []
    monkeypatch.setattr(
        watch_module.time, "sleep", lambda _: (looks.append(1), Journal(folder.study("s")).append("ended"))
    )
    for fingerprint in ("1" * 64, "2" * 64):
        with claimed(folder.trial(fingerprint), "a launch") as claim:
            claim.append("started")
            claim.append("failed", reason="its disk was full")
    watch(folder, "s", lambda line: None)
    assert looks == [1], "it ended when the launch did"


def test_what_a_journal_has_said_is_not_read_again(tmp_path, monkeypatch):
    folder, read = launched(tmp_path), []
    parse = claims.parse_events

    def parsed(lines):
        read.extend(events := parse(lines))
        return events

    def time_passes(_):
        with claimed(folder.trial("2" * 64), "a launch") as claim:
            claim.append("finished", status="FINISHED", values={"test_error": 0.5}, seconds=1.0)

    monkeypatch.setattr(watch_module.time, "sleep", time_passes)
    for fingerprint in ("1" * 64, "2" * 64):
        with claimed(folder.trial(fingerprint), "a launch") as claim:
            claim.append("started")
            if fingerprint == "1" * 64:
                claim.append("finished", status="FINISHED", values={"test_error": 0.5}, seconds=1.0)
    monkeypatch.setattr(claims, "parse_events", parsed)
    watch(folder, "s", lambda line: None)
    assert [event["event"] for event in read] == ["started", "finished", "started", "finished"]


def test_a_study_that_there_is_not_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(KnobError, match=r"t: no such study in .*runs; there are s"):
        watch(launched(tmp_path), "t", print)
    code, _, err = inside("sync", "s", folder=tmp_path, main=track)
    assert (code, err) == (2, "ablate.track: s: sync takes no study; it is for all of the runs folder\n")


def test_a_study_that_has_ended_is_told_as_it_was(tmp_path):
    assert inside(*TINY, "name=study", "tracking=off", "report=false", folder=tmp_path)[0] == 0
    code, out, err = inside("watch", folder=tmp_path, main=track)
    assert (code, err) == (0, "")
    assert "seed 0: started\n" in out
    assert "seed 0: window 40, valid perplexity" in out
    assert "study study: 1 finished\n" in out
