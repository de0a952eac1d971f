"""An open tracking store."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mlflow.tracking import MlflowClient
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from audio_mu.store.files import Files

SQLITE = "sqlite:///"


def sqlite_file(uri: str) -> Path | None:
    """The SQLite file that an address means, as SQLAlchemy reads it: decoded, without its query; None for others."""
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):  # the latter of a port that is no number
        return None
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    name = str(url.database)
    return Path(name.removeprefix("file:") if "uri" in url.query else name).absolute()


def sqlite_address(file: Path, query: str = "") -> str:
    """The address of an SQLite file, with as little encoded as SQLAlchemy needs: MLflow decodes none of it.

    It makes the folder that the address names as it stands.
    """
    name = str(file).replace("%", "%25").replace("?", "%3F")
    return f"{SQLITE}{name}" + (f"?{query}" if query else "")


@dataclass(frozen=True)
class Store:
    """An open tracking store and the experiment that this command writes into; see `audio_mu.store.connect`."""

    client: MlflowClient
    experiment_id: str
    uri: str
    artifact_roots: dict[str, tuple[str, str]] = field(default_factory=dict, compare=False, repr=False)
    """Run id → its experiment and the address of its artifacts, which never change; filled by whoever reads a run."""
    roots: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Experiment → address below which the artifacts of its runs lie."""
    files: dict[str, Files] = field(default_factory=dict, compare=False, repr=False)
    """Run id → its artifacts, where they are the store's own; see `audio_mu.store.artifacts.files_of`."""
    failed: list[str] = field(default_factory=list, compare=False, repr=False)
    """The tasks of this command that gave no result, each with the reason; see `audio_mu.store.failed`."""
    answer: list[str] = field(default_factory=list, compare=False, repr=False)
    """The last block of this command's output; see `audio_mu.report.answer`."""
    damaged: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Run id → why this command left the run out: a part of it cannot be read."""
    references: dict[str, list[dict[str, np.ndarray]]] = field(default_factory=dict, compare=False, repr=False)
    """Family → what its reference models answered, read once for all requests; see `audio_mu.store.references`."""
    served_told: set[str] = field(default_factory=set, compare=False, repr=False)
    """The data sets of which this command has told what is in service; see `audio_mu.erasure.in_service`."""

    @property
    def database(self) -> Path | None:
        """The SQLite file that the store is in, None for any other store."""
        return sqlite_file(self.uri)
