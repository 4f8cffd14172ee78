"""A study's run in MLflow, the parent of its trials' runs: its launch, its reports, its best cell, and its view."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.knobs import KnobError
from ablate.launch import FEWEST_SEEDS
from ablate.metric import Metric
from ablate.track.folder import Folder
from ablate.track.journal import Event, now, read_events
from ablate.track.mlflow.client import EXPERIMENT, LAUNCH, LAUNCHED, PARENT, connect, in_one_line, in_order, search
from ablate.track.mlflow.files import log_files
from ablate.track.mlflow.liveness import FOLDER, folder_id, owner, reopen
from ablate.track.mlflow.values import name_of, tags_of
from ablate.track.process import report_lock

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def digest(launched: Event) -> str:
    """The same for every launch of the same study over the same trials.

    With seeds=auto those of the seeds that every such launch begins with: it stays the same as seeds are added.
    """
    grows = launched.get("stopping") is not None
    counted = [trial for cell in launched["cells"] for trial in cell["trials"][: FEWEST_SEEDS if grows else None]]
    what = [launched["study"], *(["seeds=auto"] if grows else []), *sorted(trial["fingerprint"] for trial in counted)]
    return hashlib.sha256("|".join(what).encode()).hexdigest()


def find_or_create(
    client: MlflowClient, experiment: str, folder: str, launched: Event, began: Callable[[], int]
) -> str:
    """The id of the study's run, which is open again.

    Args:
        folder: the id of the runs folder, whose run it is.
        began: gives the start of a new run, in milliseconds.
    """
    query = f"tags.`ablate.study_digest` = '{digest(launched)}' and tags.`{FOLDER}` = '{folder}'"
    if found := in_order(search(client, experiment, query)):
        run_id = str(found[0].info.run_id)
        for other in found[1:]:
            for child in search(client, experiment, f"tags.`{PARENT}` = '{other.info.run_id}'"):
                client.set_tag(child.info.run_id, PARENT, run_id)
            client.delete_run(other.info.run_id)
        reopen(client, run_id)
        return run_id
    tags = {
        "mlflow.source.name": launched["command"],
        "mlflow.source.type": "LOCAL",
        "ablate.command": launched["command"],
        "ablate.study": launched["study"],
        "ablate.kind": "study",
        "ablate.study_digest": digest(launched),
        **owner(folder),
    }
    run = client.create_run(experiment, start_time=began(), run_name=name_of(launched["study"]), tags=tags_of(tags))
    return str(run.info.run_id)


def log_launch(client: MlflowClient, run_id: str, folder: Folder, launched: Event) -> None:
    """Give a study's run its newest launch, unless it has that already: another process may launch it again."""
    recorded = read_events(folder.study(launched["study"]))[0]
    same = [event for event in recorded if event["event"] == "launched" and digest(event) == digest(launched)]
    newest = same[-1] if same else {"time": now(), **launched}
    if client.get_run(run_id).data.tags.get(LAUNCHED) != newest["time"]:
        log_files(client, run_id, {LAUNCH: json.dumps(newest).encode()})
        client.set_tag(run_id, LAUNCHED, newest["time"])


def rename_study(folder: Folder, uri: str | None, old: str, launches: Sequence[Event]) -> bool:
    """Give the runs of a study another name; returns whether the store has any.

    Args:
        old: its name until now; launches: as they are recorded under the new one.

    Raises:
        KnobError: where there is a store that cannot be reached.
    """
    renamed = False
    for launched in launches:
        for client, run in _runs_of(folder, uri, launched | {"study": old}):
            run_id = str(run.info.run_id)
            client.set_tag(run_id, "mlflow.runName", name_of(launched["study"]))
            client.set_tag(run_id, "ablate.study", launched["study"])
            client.set_tag(run_id, "ablate.study_digest", digest(launched))
            log_files(client, run_id, {LAUNCH: json.dumps(launched).encode()})
            renamed = True
    return renamed


def delete_study(folder: Folder, uri: str | None, launches: Sequence[Event]) -> None:
    """Delete the runs of a study and of its trials, as MLflow deletes runs: `mlflow gc` removes them for good.

    Raises:
        KnobError: where there is a store that cannot be reached.
    """
    for launched in launches:
        for client, run in _runs_of(folder, uri, launched):
            for child in search(client, run.info.experiment_id, f"tags.`{PARENT}` = '{run.info.run_id}'"):
                client.delete_run(child.info.run_id)
            client.delete_run(run.info.run_id)


def _runs_of(folder: Folder, uri: str | None, launched: Event) -> Iterator[tuple[MlflowClient, Run]]:
    """The runs of a launch's study, of this runs folder; none where there is no store."""
    if uri is None and not folder.database().is_file():
        return
    try:
        client = connect(folder, uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        query = f"tags.`ablate.study_digest` = '{digest(launched)}' and tags.`{FOLDER}` = '{folder_id(folder)}'"
        found = [] if experiment is None else search(client, experiment.experiment_id, query)
    except KnobError:
        raise
    except Exception as error:
        raise KnobError(f"MLflow is not reachable ({in_one_line(error)})") from error
    yield from ((client, run) for run in found)


def log_report(client: MlflowClient, run_id: str, report: Path, on_copied: Callable[[], None]) -> None:
    """Attach a folder of report files, one by one: a server may be far away, and each is a sign of life."""
    with report_lock(report):
        for path in sorted(path for path in report.rglob("*") if path.is_file()):
            place = Path("report", path.parent.relative_to(report)).as_posix()
            client.log_artifact(run_id, str(path), artifact_path=place)
            on_copied()


def log_best(
    client: MlflowClient, run_id: str, metrics: Sequence[Metric], outcomes: Mapping[str, Sequence[Event]]
) -> None:
    """Give a study's run the results of its best cell, as means over its seeds.

    Args:
        outcomes: cell → how its finished trials ended; the first metric's validation score chooses among them.
    """
    first = metrics[0]
    scores = {
        label: _mean_score(first, "valid", of_cell)
        for label, of_cell in outcomes.items()
        if math.isfinite(_mean_score(first, "valid", of_cell) + _mean_score(first, "test", of_cell))
    }
    if not scores:
        return
    best = min(scores, key=scores.__getitem__)
    known = client.get_run(run_id).data.metrics
    for name, value in _results(metrics, outcomes[best]):
        if known.get(name) != value:
            client.log_metric(run_id, name, value)
    client.set_tag(run_id, "ablate.best_cell", best)


def _results(metrics: Sequence[Metric], of_cell: Sequence[Event]) -> Iterator[tuple[str, float]]:
    largest = sys.float_info.max  # what MLflow keeps of infinity
    for metric in metrics:
        for name, split in (("best_valid", "valid"), ("test", "test")):
            score = _mean_score(metric, split, of_cell)
            if math.isfinite(score):
                yield f"{name}_{metric.name}", max(-largest, min(metric.of_score(score), largest))


def _mean_score(metric: Metric, split: str, of_cell: Sequence[Event]) -> float:
    """NaN where one of the trials has no such value."""
    recorded = [outcome["values"].get(f"{split}_{metric.recorded}") for outcome in of_cell]
    return sum(math.nan if value is None else metric.score(value) for value in recorded) / len(recorded)


def view_name(folder: str, uri: str | None) -> str:
    """The name of a view of the table of runs that shows knobs and metrics, which MLflow's own view does not.

    It is of a runs folder's newest study: in a store that several folders may share, each has a view of its own.

    Args:
        folder: the id of the runs folder.
        uri: None where the store is that folder's own.
    """
    return "ablate" if uri is None else f"ablate-{folder[:8]}"


def shared_view(view: str, parent: str, launched: Event, metrics: Sequence[Metric]) -> tuple[str, str]:
    """Name and value of the tag that holds the shared view: our columns, the trials of this study, the best first, and
    in its charts the learning curves before everything else that was logged.

    A shared view cannot say which runs are unfolded; but runs that are searched for and sorted are shown one by one.
    """
    first = metrics[0]
    factors = dict.fromkeys(name for cell in launched["cells"] for name in cell["levels"])
    columns = [
        *(f"metrics.`{name}_{first.name}`" for name in ("test", "best_valid")),
        *(f"params.`{name}`" for name in {**factors, "seed": None}),
        *(f"tags.`ablate.{name}`" for name in ("cell", "status")),
    ]
    state = {
        "compareRunCharts": [_curves(f"{split}_{first.name}") for split in ("valid", "train")],
        "compareRunSections": [_section(_CURVES, True), _section(_ALL, False)],
        "selectedColumns": columns,
        "searchFilter": f"tags.`{PARENT}` = '{parent}'",
        "orderByKey": f"metrics.`test_{first.name}`",
        "orderByAsc": first.better == "lower",
    }
    return f"mlflow.sharedViewState.{view}", json.dumps(state)


_CURVES, _ALL = "Learning curves", "Model metrics"  # the latter is what MLflow calls the section of all metrics


def _section(name: str, is_open: bool) -> dict[str, object]:
    return {"uuid": name, "name": name, "display": is_open, "isReordered": False, "deleted": False, "isGenerated": True}


def _curves(metric: str) -> dict[str, object]:
    """A card of MLflow's charts, as its page stores one."""
    return {
        "type": "LINE",
        "uuid": metric,
        "metricKey": metric,
        "displayName": metric,
        "metricSectionId": _CURVES,
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": True,
        "lineSmoothness": 0,
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {},
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
