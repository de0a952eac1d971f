"""Where the files of models lie, and whether that is the store's own place, whoever has written the database."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository
from mlflow.tracking import MlflowClient

from audio_mu.errors import UserError
from audio_mu.store.files import Files
from audio_mu.store.places import is_own_model, is_own_run, outside

MODELS, RUNS = "models:/", "runs:/"
REFERENCES = 4  # a version may name another one
OF_MODEL = re.compile(r".*/models/([^/]+)/artifacts/?")
OF_RUN = re.compile(r"(.*/([^/]+)/artifacts)(/.*)?")


@dataclass(frozen=True)
class ModelPlace:
    """Where the files of a model lie. `is_own`: where this store keeps its own."""

    address: str
    is_own: bool

    @property
    def files(self) -> Files:
        """They themselves."""
        return Files(self.address)


def own_files(model_uri: str) -> Files:
    """The files of a model that this store has logged, `models:/<id>`.

    Raises `UserError`, before anything is read, for what lies elsewhere; MlflowException where there is none.
    """
    client, model_id = MlflowClient(), model_uri.removeprefix(MODELS)
    if not model_uri.startswith(MODELS) or "/" in model_id or "@" in model_id:
        raise UserError(outside("a model of this store", model_uri))
    model = client.get_logged_model(model_id)
    root = client.get_experiment(model.experiment_id).artifact_location
    if not is_own_model(root, model.artifact_location, model_id):
        raise UserError(outside(f"model {model_uri}", model.artifact_location))
    return Files(model.artifact_location)


def place_of(uri: str) -> ModelPlace:
    """The place of `models:/name/version`, `models:/name@alias`, `models:/<id>` or `runs:/<id>/name`.

    Raises MlflowException where the store has none.
    """
    client, address = MlflowClient(), uri
    for _ in range(REFERENCES):
        if address.startswith(MODELS):
            address = ModelsArtifactRepository.get_underlying_uri(address)
    if address.startswith(MODELS):
        raise MlflowException(f"{uri} refers to {address}, and that to others")
    if address.startswith(RUNS):
        run_id, _, path = address.removeprefix(RUNS).partition("/")
        address = _of_run(client, client.get_run(run_id), path)
    return ModelPlace(address, _is_own(client, address))


def _of_run(client: MlflowClient, run: StoredRun, path: str) -> str:
    """The address of a run's logged model of this name, or else of what lies there among its artifacts."""
    for output in run.outputs.model_outputs if run.outputs is not None else ():
        if (model := client.get_logged_model(output.model_id)).name == path:
            return str(model.artifact_location)
    return f"{run.info.artifact_uri.rstrip('/')}/{path}" if path else str(run.info.artifact_uri)


def _is_own(client: MlflowClient, address: str) -> bool:
    """Whether an address is of a logged model of this store, or within the artifacts of one of its runs."""
    try:
        if found := OF_MODEL.fullmatch(address):
            model = client.get_logged_model(found[1])
            return is_own_model(client.get_experiment(model.experiment_id).artifact_location, address, found[1])
        if (found := OF_RUN.fullmatch(address)) and ".." not in (found[3] or "").split("/"):
            info = client.get_run(found[2]).info
            return is_own_run(client.get_experiment(info.experiment_id).artifact_location, found[1], found[2])
    except MlflowException:  # nothing of that name in this store
        return False
    return False


def refuse_outside(name: str, version: str, source: str) -> None:
    """Raise `UserError`, before anything is read, where a version of ours names a place outside of the store.

    A `source` that names a model is asked for that model's place.
    """
    try:
        place = place_of(source) if source.startswith((MODELS, RUNS)) else ModelPlace(source, is_own=False)
    except MlflowException:  # the model is gone: reading it says so
        return
    if not place.is_own:
        raise UserError(outside(f"version {version} of {name}", place.address))
