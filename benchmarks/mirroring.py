"""What a run and a point of a curve cost on their way into MLflow: SQLite, and servers before SQLite and PostgreSQL."""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ablate.track.folder import Folder
from ablate.track.mlflow.mirror import Mirror
from benchmarks.common import ROOT, Table, spread
from benchmarks.kill_and_resume import server
from benchmarks.report_scale import synthesise

_RUNS, _SHORT, _LONG = 40, 10, 1000  # measurements on train data, of each run
_VALUES = 5.2  # points a measurement: five of train data, and two of valid data at every tenth


def mirroring(rounds: int = 3) -> Table:
    """Milliseconds of studies that are copied whole, one store after the other."""
    times: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch, postgresql() as on_postgresql:
        place = Path(scratch)
        with server(place) as on_sqlite:
            stores = {"SQLite": None, "a server before SQLite": on_sqlite, "a server before PostgreSQL": on_postgresql}
            for name, uri in stores.items():  # the first copy makes the store, and opens connections
                _copied(place / f"first {name}", uri, _SHORT)
            for turn in range(rounds):
                for name, uri in stores.items():
                    short, long = (_copied(place / f"{turn} {name} {n}", uri, n) for n in (_SHORT, _LONG))
                    run, point = short / _RUNS, (long - short) / (_RUNS * _VALUES * (_LONG - _SHORT))
                    times.setdefault(name, []).append((1e3 * run, 1e3 * point))
    return Table(
        title="What MLflow costs a run and a point",
        command="python -m benchmarks mirroring",
        headings=["store", "ms a run (range)", "ms a point (range)", "points a second"],
        rows=[
            [
                name,
                spread([run for run, _ in found], 0),
                spread([point for _, point in found], 3),
                f"{1e3 / statistics.median(point for _, point in found):,.0f}",
            ]
            for name, found in times.items()
        ],
        note=f"Studies of {_RUNS} finished trials, copied at once by one process: a run is a trial with {_SHORT} "
        f"measurements, its knobs and its files; a point, one value at one step of {_LONG:,} measurements. "
        f"{rounds} rounds in turn, medians; servers with one worker.",
    )


def _copied(runs: Path, uri: str | None, points: int) -> float:
    """Seconds in which a study of so many points is copied."""
    folder = Folder(runs)
    study = synthesise(folder, _RUNS, 1, points, f"{runs.name}".replace(" ", "-"))
    launched = folder.launch(study)
    assert launched is not None, "written above"
    started = time.perf_counter()
    Mirror(folder, uri, launched, print).sync()
    return time.perf_counter() - started


@contextmanager
def postgresql() -> Iterator[str]:
    """MLflow on PostgreSQL, as deploy/mlflow_server.py starts it; its address."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)  # PostgreSQL may run as another user
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1], other.getsockname()[1]]
    command = [sys.executable, str(ROOT / "deploy" / "mlflow_server.py")]
    options = ["--port", str(ports[0]), "--postgres-port", str(ports[1]), "--workers", "1"]
    try:
        subprocess.run([*command, "start", str(place / "mlflow"), *options], check=True, stdout=subprocess.DEVNULL)
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        subprocess.run([*command, "stop", str(place / "mlflow")], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(place)
