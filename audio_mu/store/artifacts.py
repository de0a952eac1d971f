"""Artifacts of runs: reading tables, arrays and JSON, and listing files."""

from __future__ import annotations

import json
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from audio_mu.errors import UserError, one_line
from audio_mu.store.handle import Store

LARGEST_ARRAYS = 8 << 30


def local_folder(uri: str) -> Path | None:
    """The folder behind an artifact URI, None where it is not on this machine."""
    return Path(local_file_uri_to_path(uri)) if is_local_uri(uri) else None


def _artifacts(store: Store, run_id: str) -> ArtifactRepository:
    """Where a run's artifacts are.

    Not through the client's `download_artifacts`, which asks the store four times for each file.
    """
    if run_id not in store.artifact_roots:
        store.artifact_roots[run_id] = store.client.get_run(run_id).info.artifact_uri
    return get_artifact_repository(store.artifact_roots[run_id])


def read_npz(store: Store, run_id: str, path: str) -> dict[str, np.ndarray]:
    """The arrays of an artifact, at most `LARGEST_ARRAYS` bytes. Raises `UserError` where they cannot be read."""
    with _artifact(store, run_id, path) as local:
        with zipfile.ZipFile(local) as packed:
            if sum(member.file_size for member in packed.infolist()) > LARGEST_ARRAYS:
                raise ValueError(f"it unpacks to more than {LARGEST_ARRAYS:,} bytes")
        with np.load(local, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}


def read_csv(store: Store, run_id: str, path: str, **options: Any) -> pd.DataFrame:
    """The table of an artifact, numbers to the last digit. Raises `UserError` where it is none."""
    with _artifact(store, run_id, path) as local:
        return pd.read_csv(local, float_precision="round_trip", keep_default_na=False, **options)


def read_json(store: Store, run_id: str, path: str) -> Any:
    """The content of a JSON artifact. Raises `UserError` where it is none."""
    with _artifact(store, run_id, path) as local:
        return json.loads(local.read_text())


@contextmanager
def _artifact(store: Store, run_id: str, path: str) -> Iterator[Path]:
    """An artifact's file; whatever is wrong with it is told in one line."""
    try:
        place = _artifacts(store, run_id)
        if isinstance(place, LocalArtifactRepository):
            yield Path(place.download_artifacts(path))  # where it is: copies take most of a comparison's reading
        else:
            with tempfile.TemporaryDirectory() as folder:  # MLflow's own copy would stay behind
                yield Path(place.download_artifacts(path, folder))
    except (MlflowException, OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, MemoryError,
            zipfile.BadZipFile, zlib.error, struct.error) as error:  # fmt: skip
        raise UserError(
            f"{path} of run {run_id} cannot be read ({type(error).__name__}: {one_line(error)}): restore it, or make "
            "it again with force=true"
        ) from None


def list_files(store: Store, run_id: str, folder: str | None = None) -> list[str]:
    """Paths of a run's artifacts in a folder, or at the top."""
    return [entry.path for entry in _artifacts(store, run_id).list_artifacts(folder) if not entry.is_dir]
