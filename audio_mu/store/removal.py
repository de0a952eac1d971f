"""Taking things out of the store for good: MLflow's own deleting only hides them."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from mlflow.entities import LoggedModel, ViewType
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import _TEMP_ARTIFACT_PREFIX, LocalArtifactRepository

from audio_mu.store.queries import PAGE
from audio_mu.store.registry import Version, _version
from audio_mu.store.runs import Store

SQLITE = "sqlite:///"


def every_run(store: Store) -> list[StoredRun]:
    """All runs of the experiment, whatever their status, those that were deleted but not collected among them."""
    found: list[StoredRun] = []
    token = None
    while True:
        page = store.client.search_runs(
            [store.experiment_id], run_view_type=ViewType.ALL, max_results=PAGE, page_token=token
        )
        found += page
        token = page.token
        if not token:
            return found


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
        return sorted(Path(self._repository.artifact_dir).rglob(f"{_TEMP_ARTIFACT_PREFIX}*"))


def models_of_runs(store: Store) -> dict[str, set[str]]:
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
    """A logged model, deleted but not collected ones too; None where nothing of it is in the store."""
    try:
        return _backend(store).get_logged_model(model_id, allow_deleted=True)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            return None
        raise


def remove_model(store: Store, model: LoggedModel) -> None:
    """Delete a logged model's files, then its record, so that an interruption leaves something to find."""
    Files(model.artifact_location).delete()
    backend = _backend(store)
    if hasattr(backend, "_hard_delete_logged_model"):  # as `mlflow gc` does
        backend._hard_delete_logged_model(model.model_id)
    else:  # a tracking server: its own `mlflow gc` collects the record
        store.client.delete_logged_model(model.model_id)


def versions_of(store: Store, run_id: str) -> list[Version]:
    """All registered versions of a run's models."""
    return [_version(found) for found in store.client.search_model_versions(f"run_id='{run_id}'")]


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
