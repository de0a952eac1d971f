"""Finding runs by their tags."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from mlflow.entities import LifecycleStage, ViewType
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList

from audio_mu.errors import UserError
from audio_mu.store.handle import Store

PAGE = 1_000
RUNNING = "attributes.status = 'RUNNING'"
Found = TypeVar("Found")


@dataclass(frozen=True)
class Finished:
    """A finished run: its tags, last metrics and parameters."""

    id: str
    name: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    start_time: int
    params: Mapping[str, str] = field(default_factory=dict)


def every(search: Callable[..., PagedList[Found]], *arguments: Any, **options: Any) -> Iterator[Found]:
    """Everything that a search of MLflow's client finds, which gives it a page at a time."""
    token = None
    while True:
        page = search(*arguments, **options, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def experiments(store: Store, view: int = ViewType.ACTIVE_ONLY) -> list[str]:
    """Ids of the experiments of the store, of MLflow's `ViewType`: those that are not deleted, unless told."""
    found = every(store.client.search_experiments, view_type=view, max_results=PAGE)
    return [experiment.experiment_id for experiment in found]


def find(
    store: Store, tags: Mapping[str, str], limit: int | None = None, everywhere: bool = False, status: str = "FINISHED"
) -> list[Finished]:
    """Finished runs that carry all these tags, the newest first; of the experiment, or `everywhere` of all."""
    found = every(
        store.client.search_runs,
        experiments(store) if everywhere else [store.experiment_id],
        " and ".join([f"attributes.status = '{status}'", *has_tags(tags)]),
        max_results=min(PAGE, limit or PAGE),
        order_by=["attributes.start_time DESC"],
    )
    return [_finished(store, run) for run in islice(found, limit)]


def run_of(store: Store, run_id: str) -> Finished | None:
    """A run by its id, deleted or not; None where it was collected by `mlflow gc`."""
    try:
        return _finished(store, store.client.get_run(run_id))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def find_deleted(store: Store, tags: Mapping[str, str]) -> list[Finished]:
    """Finished runs with these tags that were deleted, alone or with their experiment, and not collected yet."""
    found = every(
        store.client.search_runs,
        experiments(store, ViewType.ALL),
        " and ".join(["attributes.status = 'FINISHED'", *has_tags(tags)]),
        run_view_type=ViewType.DELETED_ONLY,
        max_results=PAGE,
    )
    return [_finished(store, run) for run in found]


def restored_by(store: Store, run: Finished) -> str:
    """The command that brings a deleted run back."""
    experiment = store.client.get_experiment(store.client.get_run(run.id).info.experiment_id)
    if experiment.lifecycle_stage == LifecycleStage.ACTIVE:
        return f"mlflow runs restore --run-id {run.id}"
    return f"mlflow experiments restore -x {experiment.experiment_id}"


def _finished(store: Store, run: StoredRun) -> Finished:
    info, data = run.info, run.data
    store.artifact_roots[info.run_id] = (info.experiment_id, info.artifact_uri)
    tags, metrics = dict(data.tags), dict(data.metrics)
    if wrong := [name for name, value in metrics.items() if not isinstance(value, float | int)]:
        raise UserError(
            f"run {info.run_name} ({info.run_id[:8]}) has the metric {wrong[0]}={metrics[wrong[0]]!r}, which is no "
            "number: somebody wrote into the store; mend the metric or delete the run"
        )
    return Finished(info.run_id, info.run_name, tags, metrics, info.start_time, dict(data.params))


def has_tags(tags: Mapping[str, str]) -> list[str]:
    """The conditions of a search for runs with these tags."""
    return ["tags.`{}` = '{}'".format(key, value.replace("'", "\\'")) for key, value in tags.items()]


def newest(store: Store, tags: Mapping[str, str]) -> Finished | None:
    """The newest finished run with these tags, or None."""
    return next(iter(find(store, tags, limit=1)), None)


def newest_by(runs: Iterable[Finished], *keys: str) -> dict[tuple[str, ...], Finished]:
    """Of runs ordered newest first, the first for each combination of these tags."""
    chosen: dict[tuple[str, ...], Finished] = {}
    for run in runs:
        chosen.setdefault(tuple(run.tags.get(key, "") for key in keys), run)
    return chosen
