"""Taking things out of the store for good: MLflow's own deleting only hides them."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import LifecycleStage, LoggedModel, ViewType
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from audio_mu.store.handle import Store
from audio_mu.store.queries import PAGE
from audio_mu.store.registry import Version

SQLITE = "sqlite:///"
HALF_WRITTEN = ".artifact.uploading."
"""How MLflow's names of files begin that are being written."""


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
    def finished(self) -> bool:
        """Whether it has ended well."""
        return self.status == "FINISHED"

    @property
    def files(self) -> Files:
        """Its artifacts."""
        return Files(self.artifact_uri)


def every_run(store: Store) -> list[AnyRun]:
    """All runs of the experiment, those that were deleted but not collected among them, the oldest first."""
    logged = _models_of_runs(store)
    found: list[AnyRun] = []
    token = None
    while True:
        page = store.client.search_runs(
            [store.experiment_id],
            run_view_type=ViewType.ALL,
            max_results=PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        found += [_any_run(run, logged) for run in page]
        token = page.token
        if not token:
            return found


def _any_run(run: StoredRun, logged: Mapping[str, set[str]]) -> AnyRun:
    info, data = run.info, run.data
    outputs = run.outputs.model_outputs if run.outputs is not None else []
    models = frozenset({*logged.get(info.run_id, ()), *(output.model_id for output in outputs)})
    active = info.lifecycle_stage == LifecycleStage.ACTIVE
    uri = info.artifact_uri
    return AnyRun(info.run_id, info.run_name, dict(data.tags), dict(data.params), uri, active, info.status, models)


class Files:
    """The artifacts below one address, as paths; writing replaces a file as a whole."""

    def __init__(self, uri: str) -> None:
        self._repository = get_artifact_repository(uri)

    def paths(self, folder: str | None = None) -> Iterator[str]:
        """Paths of all files, those in folders too."""
        for entry in self._repository.list_artifacts(folder):
            if entry.is_dir:
                yield from self.paths(entry.path)
            else:
                yield entry.path

    def read(self, path: str) -> bytes:
        """The bytes of a file; nothing of it is left behind."""
        with tempfile.TemporaryDirectory() as folder:
            return Path(self._repository.download_artifacts(path, folder)).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        """Replace a file."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / Path(path).name
            local.write_bytes(data)
            parent = Path(path).parent.as_posix()
            self._repository.log_artifact(str(local), None if parent == "." else parent)

    def delete(self, path: str | None = None) -> None:
        """Delete a file, or everything."""
        self._repository.delete_artifacts(path)

    def half_written(self) -> list[Path]:
        """Files that a killed writer has left, which no listing shows; a store on another machine has its own."""
        if not isinstance(self._repository, LocalArtifactRepository):
            return []
        return sorted(Path(self._repository.artifact_dir).rglob(f"{HALF_WRITTEN}*"))


def _models_of_runs(store: Store) -> dict[str, set[str]]:
    """Run id → ids of the models that it logged and that are not deleted."""
    found: dict[str, set[str]] = {}
    token = None
    while True:
        page = store.client.search_logged_models([store.experiment_id], page_token=token)
        for model in page:
            found.setdefault(model.source_run_id or "", set()).add(model.model_id)
        token = page.token
        if not token:
            return found


def logged_model(store: Store, model_id: str) -> LoggedModel | None:
    """A logged model, deleted but not collected ones too; None where nothing of it is in the store.

    Nor is a record of which this process can remove no more: deleted, without files, behind a tracking server.
    """
    model = _record(store, model_id, allow_deleted=True)
    if model is None or collects(store) or _record(store, model_id, allow_deleted=False) is not None:
        return model
    return model if any(Files(model.artifact_location).paths()) else None


def remove_model(store: Store, model: LoggedModel) -> None:
    """Delete a logged model's files, then its record, so that an interruption leaves something to find."""
    Files(model.artifact_location).delete()
    if collects(store):  # as `mlflow gc` does
        _backend(store)._hard_delete_logged_model(model.model_id)
    elif _record(store, model.model_id, allow_deleted=False) is not None:  # the server's `mlflow gc` collects it
        store.client.delete_logged_model(model.model_id)


def _record(store: Store, model_id: str, allow_deleted: bool) -> LoggedModel | None:
    try:
        return _backend(store).get_logged_model(model_id, allow_deleted=allow_deleted)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            return None
        raise


def collects(store: Store) -> bool:
    """Whether records can be removed for good; a tracking server only hides them."""
    return hasattr(_backend(store), "_hard_delete_logged_model")


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


def compact(store: Store) -> bool:
    """Rewrite an SQLite file without what was deleted in it; whether the store is one."""
    if not store.uri.startswith(SQLITE):
        return False
    with closing(sqlite3.connect(store.uri.removeprefix(SQLITE), timeout=60)) as database:
        database.execute("VACUUM")
    return True


def _backend(store: Store):
    return store.client._tracking_client.store
