"""An open tracking store."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mlflow.tracking import MlflowClient

SQLITE = "sqlite:///"


@dataclass(frozen=True)
class Store:
    """An open tracking store and the experiment that this command writes into; see `audio_mu.store.connect`."""

    client: MlflowClient
    experiment_id: str
    uri: str
    artifact_roots: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Run id → address of its artifacts, which never changes; filled by whoever reads a run."""

    @property
    def database(self) -> Path | None:
        """The SQLite file that the store is in, None for any other store."""
        return Path(self.uri.removeprefix(SQLITE)) if self.uri.startswith(SQLITE) else None
