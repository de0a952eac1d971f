"""Taking things out of the store for good: MLflow's own deleting only hides them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from mlflow.entities import LifecycleStage, LoggedModel, ViewType
from mlflow.entities import Run as StoredRun

from audio_mu.store.artifacts import Files
from audio_mu.store.handle import Store
from audio_mu.store.private import collect_model, collects, model_record
from audio_mu.store.queries import PAGE, every
from audio_mu.store.registry import Version


@dataclass(frozen=True)
class AnyRun:
    """A run of any status. `active`: not deleted; `models`: ids of the models that it logged."""

    id: str
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    artifact_uri: str
    active: bool
    status: str
    models: frozenset[str]

    @property
    def files(self) -> Files:
        """Its artifacts."""
        return Files(self.artifact_uri)


def every_run(store: Store) -> list[AnyRun]:
    """All runs of the experiment, those that were deleted but not collected among them, the oldest first."""
    logged: dict[str, set[str]] = {}  # run → its models, but for the deleted ones
    for model in every(store.client.search_logged_models, [store.experiment_id]):
        logged.setdefault(model.source_run_id or "", set()).add(model.model_id)
    found = every(
        store.client.search_runs,
        [store.experiment_id],
        run_view_type=ViewType.ALL,
        max_results=PAGE,
        order_by=["attributes.start_time ASC"],
    )
    return [_any_run(run, logged) for run in found]


def _any_run(run: StoredRun, logged: Mapping[str, set[str]]) -> AnyRun:
    info, data = run.info, run.data
    outputs = run.outputs.model_outputs if run.outputs is not None else []
    models = frozenset({*logged.get(info.run_id, ()), *(output.model_id for output in outputs)})
    return AnyRun(
        info.run_id, info.run_name, dict(data.tags), dict(data.params), info.artifact_uri,
        info.lifecycle_stage == LifecycleStage.ACTIVE, info.status, models,
    )  # fmt: skip


def logged_model(store: Store, model_id: str) -> LoggedModel | None:
    """A logged model of which something can still be removed from here, whether it was deleted before or not.

    None where the store has nothing of it. None too for a model that was deleted behind a tracking server and has no
    files left: its record stays hidden until `mlflow gc` runs on the server.
    """
    model = model_record(store.client, model_id, deleted=True)
    if model is None or collects(store.client) or model_record(store.client, model_id, deleted=False) is not None:
        return model
    return model if any(Files(model.artifact_location).paths()) else None


def logged_models(store: Store, run: AnyRun) -> list[LoggedModel]:
    """The models of a run of which something can still be removed; see `logged_model`."""
    found = (logged_model(store, model_id) for model_id in sorted(run.models))
    return [model for model in found if model is not None]


def remove_model(store: Store, model: LoggedModel) -> None:
    """Delete a logged model's files, then its record, so that an interruption leaves something to find."""
    Files(model.artifact_location).delete()
    if collects(store.client):
        collect_model(store.client, model.model_id)
    elif model_record(store.client, model.model_id, deleted=False) is not None:
        store.client.delete_logged_model(model.model_id)


def aliases_of(store: Store, version: Version) -> list[str]:
    """The aliases that point to a version."""
    return sorted(store.client.get_model_version(version.name, version.version).aliases)


def remove_version(store: Store, version: Version) -> None:
    """Delete a registered version with its tags and aliases; MLflow keeps its number and nothing else."""
    for alias in aliases_of(store, version):
        store.client.delete_registered_model_alias(version.name, alias)
    for tag in version.tags:
        store.client.delete_model_version_tag(version.name, version.version, tag)
    store.client.delete_model_version(version.name, version.version)


def compact(store: Store) -> None:
    """Rewrite an SQLite file without what was deleted in it."""
    if store.database is not None:
        with closing(sqlite3.connect(store.database, timeout=60)) as database:
            database.execute("VACUUM")
