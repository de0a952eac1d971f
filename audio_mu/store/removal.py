"""Taking things out of the store for good: MLflow's own deleting only hides them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

from mlflow.entities import LifecycleStage, LoggedModel, ViewType
from mlflow.entities import Run as StoredRun

from audio_mu.store.files import Files
from audio_mu.store.handle import Store
from audio_mu.store.places import is_own_model, is_own_run
from audio_mu.store.private import collect_model, collects, model_record
from audio_mu.store.queries import PAGE, every
from audio_mu.store.registry import Version


@dataclass(frozen=True)
class AnyRun:
    """A run of any status. `active`: not deleted; `models`: ids of the models that it logged.

    `root`: the address below which its experiment's artifacts lie; `is_own`: its own do. Where they do not, whoever
    wrote the run has named a folder of somebody else's.
    """

    id: str
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    artifact_uri: str
    active: bool
    status: str
    models: frozenset[str]
    root: str

    @cached_property
    def is_own(self) -> bool:
        """Whether its artifacts lie where MLflow puts them."""
        return is_own_run(self.root, self.artifact_uri, self.id)

    @property
    def files(self) -> Files:
        """Its artifacts."""
        return Files(self.artifact_uri)


def every_run(store: Store) -> list[AnyRun]:
    """All runs of the experiments that are ours, those that were deleted but not collected among them, oldest first.

    The registry and its ledger are one for all experiments: whatever was trained elsewhere may hold a recording too.
    """
    roots = _experiments_of_ours(store)
    logged: dict[str, set[str]] = {}  # run → its models, but for the deleted ones
    for model in every(store.client.search_logged_models, list(roots)):
        logged.setdefault(model.source_run_id or "", set()).add(model.model_id)
    found = every(
        store.client.search_runs,
        list(roots),
        run_view_type=ViewType.ALL,
        max_results=PAGE,
        order_by=["attributes.start_time ASC"],
    )
    return [_any_run(run, logged, roots[run.info.experiment_id]) for run in found]


def _experiments_of_ours(store: Store) -> dict[str, str]:
    """Id → artifact root of this command's experiment and of all that hold a run of this package."""
    found = every(store.client.search_experiments, ViewType.ALL, max_results=PAGE)
    roots = {experiment.experiment_id: experiment.artifact_location for experiment in found}

    def has_ours(id_: str) -> bool:
        ours = "tags.contract_version != ''"
        return bool(store.client.search_runs([id_], ours, run_view_type=ViewType.ALL, max_results=1))

    return {id_: root for id_, root in roots.items() if id_ == store.experiment_id or has_ours(id_)}


def _any_run(run: StoredRun, logged: Mapping[str, set[str]], root: str) -> AnyRun:
    info, data = run.info, run.data
    outputs = run.outputs.model_outputs if run.outputs is not None else []
    models = frozenset({*logged.get(info.run_id, ()), *(output.model_id for output in outputs)})
    return AnyRun(
        info.run_id, info.run_name, dict(data.tags), dict(data.params), info.artifact_uri,
        info.lifecycle_stage == LifecycleStage.ACTIVE, info.status, models, root,
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
    """The models of a run of which something can still be removed; see `logged_model`.

    None whose files lie elsewhere than where MLflow puts them: see `foreign`.
    """
    found = (logged_model(store, model_id) for model_id in sorted(run.models))
    return [model for model in found if model is not None and _is_own(run, model)]


def _is_own(run: AnyRun, model: LoggedModel) -> bool:
    return is_own_model(run.root, model.artifact_location, model.model_id)


def foreign(store: Store, run: AnyRun) -> dict[str, str]:
    """Address → what has it, of a run and its models, where it is not the store's own: nothing there is touched."""
    found = {} if run.is_own else {run.artifact_uri: f"run {run.name} ({run.id[:8]})"}
    models = (model_record(store.client, model_id, deleted=True) for model_id in sorted(run.models))
    elsewhere = (model for model in models if model is not None and not _is_own(run, model))
    return found | {model.artifact_location: f"model of run {run.name} ({run.id[:8]})" for model in elsewhere}


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
        address = f"file:{quote(str(store.database))}?mode=rw"  # never made where it is not
        with closing(sqlite3.connect(address, uri=True, timeout=60)) as database:
            database.execute("VACUUM")
