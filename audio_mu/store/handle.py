"""An open tracking store."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlflow.tracking import MlflowClient


@dataclass(frozen=True)
class Store:
    """An open tracking store and the experiment that this command writes into; see `audio_mu.store.connect`."""

    client: MlflowClient
    experiment_id: str
    uri: str
    artifact_roots: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Run id → address of its artifacts, which never changes; filled by whoever reads a run."""
