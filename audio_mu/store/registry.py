"""Models in the store: logging, registering as versions, finding by alias, reading weights back."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec

from audio_mu.errors import UserError, one_line
from audio_mu.printable import printable, storable
from audio_mu.progress import say_once
from audio_mu.store import queries
from audio_mu.store.artifacts import way_back
from audio_mu.store.faults import machine_fault, refuse_full_temporary, refuse_machine_fault, temporary_folder
from audio_mu.store.files import Files
from audio_mu.store.handle import Store
from audio_mu.store.model_files import own_files, place_of
from audio_mu.store.places import outside
from audio_mu.store.private import traced_as
from audio_mu.store.runs import Run
from audio_mu.system.writing import flush

if TYPE_CHECKING:  # `report` and `erase` look versions up and need no torch
    import torch
    from torch import Tensor, nn

SPARE = 2 << 20  # bytes of a model in the pt2 format beside its weights
SERVED_BY = ("mlflow", "numpy", "torch", "torchaudio")  # packages that a served model needs, as they are here


class Traced:
    """A module from float32 [n, n_inputs] to float32 [n, outputs], traced once for many models that differ in weights.

    The traced graph holds the module's own tensors: what `load_state_dict` puts into `module` is what is logged next.
    """

    def __init__(self, module: nn.Module, n_inputs: int) -> None:
        self.module, self.n_inputs = module.eval(), n_inputs
        # Two rows: the exporter does not see from one that their number may vary.
        self.example = np.zeros((2, n_inputs), dtype=np.float32)

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The graph, as MLflow would have it traced."""
        import torch

        rows_vary = [{0: torch.export.Dim.AUTO}]
        return torch.export.export(self.module, (torch.from_numpy(self.example),), dynamic_shapes=rows_vary)


def log_model(run: Run, traced: Traced, name: str, n_outputs: int, metadata: Mapping[str, object]) -> str:
    """Log a module as it is at this moment in the pt2 format; return its URI.

    It can be loaded without this project's code and without unpickling any.
    """
    with _in_pt2(traced, n_outputs) as served:
        info = mlflow.pytorch.log_model(
            **served,
            name=name,
            metadata=dict(metadata),
            run_id=run.id,
            # It would load every model again to answer the example: a third of the time of logging one.
            validate_serving_input=False,
        )
    # On the disk before the run says FINISHED: the machine may be switched off.
    folder = Files(run.store.client.get_logged_model(info.model_id).artifact_location).folder
    if folder is not None:
        flush(folder)
    return info.model_uri


def try_writing(traced: Traced, n_outputs: int) -> None:
    """Write a module as `log_model` does, for nobody: what the first one waits for is read and traced then."""
    with temporary_folder() as folder, _in_pt2(traced, n_outputs) as served:
        mlflow.pytorch.save_model(**served, path=f"{folder}/model")


@contextmanager
def _in_pt2(traced: Traced, n_outputs: int) -> Iterator[dict[str, Any]]:
    """What MLflow's writers are told of a module; within, they write its graph as it was traced."""
    refuse_full_temporary(SPARE + sum(value.nbytes for value in traced.module.state_dict().values()))
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("float32"), (-1, traced.n_inputs))]),
        Schema([TensorSpec(np.dtype("float32"), (-1, n_outputs))]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter about itself
        with traced_as(traced.program):
            yield {
                "pytorch_model": traced.module,
                "input_example": traced.example,
                "signature": signature,
                "pip_requirements": [f"{package}=={version(package)}" for package in SERVED_BY],
            }


def logged_model(store: Store, run_id: str) -> str | None:
    """The URI of the first model that a run has logged, or None."""
    outputs = store.client.get_run(run_id).outputs
    return f"models:/{outputs.model_outputs[0].model_id}" if outputs and outputs.model_outputs else None


def load_state(model_uri: str) -> dict[str, Tensor]:
    """The weights of a logged model by name, read by `read_weights`: nothing of the model is run or unpickled.

    Raises `UserError` where the store does not have it, or has something else in its place.
    """
    from audio_mu.store.weights import BadWeights, read_weights

    try:
        with own_files(model_uri).opened("data/model.pt2") as local:
            return read_weights(local)
    except (MlflowException, BadWeights, OSError) as error:
        refuse_machine_fault(error)
        raise _unreadable(model_uri, one_line(error)) from None


@contextmanager
def fetched(uri: str, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """The wanted files of `models:/…` or `runs:/…`, a model or artifacts of a run, in a folder that is gone afterwards.

    A version that the user names may lie outside of the store, which is told; that must be a model of MLflow. No link
    is followed. Raises `UserError` where the store does not have them.
    """
    with temporary_folder() as folder:
        try:
            place = place_of(uri)
            if not place.is_own:
                if "MLmodel" not in place.files.listed():
                    raise UserError(outside(repr(uri), place.address))
                say_once(f"note: {uri} lies outside of this store: its weights are read from {place.address!r}")
            for path in filter(wanted, place.files.paths()):
                with place.files.opened(path) as local:
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(local, folder / path)
        except (MlflowException, OSError) as error:
            if machine_fault(error) is not None:
                raise
            raise UserError(
                f"{uri!r} cannot be read from this store ({one_line(error)}): give models:/name/version, or "
                "runs:/<id>/<name of its model>"
            ) from None
        yield folder


def made_by(uri: str) -> str:
    """The run that has logged the model of `models:/…` or `runs:/…`; empty where nobody knows."""
    if uri.startswith("runs:/"):
        return uri.removeprefix("runs:/").partition("/")[0]
    try:
        return mlflow.models.get_model_info(uri).run_id or ""
    except (MlflowException, OSError):
        return ""


def check_weights(model_uri: str) -> None:
    """Raise `UserError` where the weights of a logged model cannot be read, or are not all finite numbers."""
    for name, value in load_state(model_uri).items():
        if not value.isfinite().all():
            raise _unreadable(model_uri, f"{name} is not finite")


def _unreadable(model_uri: str, why: str) -> UserError:
    client, back = MlflowClient(), "restore it from a backup"
    with suppress(MlflowException):  # nobody knows what has made it
        back = way_back(client, client.get_logged_model(model_uri.removeprefix("models:/")).source_run_id or "")
    return UserError(f"model {model_uri} of this store cannot be read ({why}): {back}")


@dataclass(frozen=True)
class Served:
    """What a served model answers with, in the order of its logits, and the samples of the clips that it wants."""

    classes: tuple[str, ...]
    clip_samples: int


def served(model_uri: str) -> Served:
    """Of a model of this project. Raises `UserError` for any other, and where there is none."""
    try:
        place = place_of(model_uri)
        if not place.is_own:
            raise UserError(outside(f"model {model_uri!r}", place.address))
        info = mlflow.models.get_model_info(model_uri)
        wanted: Any = info.signature.inputs.inputs[0] if info.signature else None
        return Served(tuple((info.metadata or {})["class_names"]), int(wanted.shape[1]))
    except (MlflowException, OSError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"model {model_uri!r} is none of this project's registry: {one_line(error)}") from None


def in_service(store: Store, alias: str) -> list[str]:
    """The addresses of all registered models that have a version behind an alias."""
    models = queries.every(store.client.search_registered_models)
    return sorted(f"models:/{model.name}@{alias}" for model in models if alias in model.aliases)


def aliases(store: Store, prefix: str) -> list[tuple[str, Mapping[str, str]]]:
    """The registered models whose names begin so, and the version behind each of their aliases."""
    models = queries.every(store.client.search_registered_models)
    behind = {model.name: model.aliases for model in models if model.name.startswith(prefix)}
    return [(name, {key: str(number) for key, number in found.items()}) for name, found in sorted(behind.items())]


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    version: str
    run_id: str
    source: str
    tags: Mapping[str, str]


def _version(found: ModelVersion) -> Version:
    return Version(found.name, str(found.version), found.run_id or "", found.source or "", dict(found.tags))


def register(store: Store, name: str, model_uri: str, run_id: str, tags: Mapping[str, str], about: str) -> Version:
    """Add a logged model as a version of a registered model, which is created where it is missing."""
    try:
        store.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model_id = model_uri.removeprefix("models:/")
    taken = {key: storable(value) for key, value in tags.items()}
    created = store.client.create_model_version(
        name, source=model_uri, run_id=run_id, tags=taken, description=printable(about), model_id=model_id
    )
    return _version(created)


def set_alias(store: Store, version: Version, alias: str) -> None:
    """Point an alias to a version."""
    store.client.set_registered_model_alias(version.name, alias, version.version)


def by_alias(store: Store, name: str, alias: str) -> Version | None:
    """The version behind an alias, or None."""
    return _or_none(store.client.get_model_version_by_alias, name, alias)


def by_number(store: Store, name: str, version: str) -> Version | None:
    """A version by its number, or None where it is deleted."""
    return _or_none(store.client.get_model_version, name, version)


def _or_none(get: Callable[[str, str], ModelVersion], *names: str) -> Version | None:
    try:
        return _version(get(*names))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def of_run(store: Store, name: str, run_id: str) -> Version | None:
    """The version that a run registered, or None."""
    found = store.client.search_model_versions(f"name='{name}' and run_id='{run_id}'")
    return _version(found[0]) if found else None


def versions_of(store: Store, run_id: str, model_ids: Iterable[str]) -> list[Version]:
    """All versions of a run or of its models, whatever they are registered as and by whom."""
    conditions = [f"run_id='{run_id}'", *(f"source_path='models:/{model_id}'" for model_id in sorted(model_ids))]
    found = [version for condition in conditions for version in store.client.search_model_versions(condition)]
    return list({(version.name, version.version): _version(version) for version in found}.values())


def as_numpy(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Weights that can travel between processes without torch's shared memory."""
    return {name: value.detach().cpu().contiguous().numpy() for name, value in state.items()}


def as_tensors(state: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The reverse of `as_numpy`."""
    import torch

    return {name: torch.from_numpy(value) for name, value in state.items()}
