"""The results in a finished store, for tests that run whole commands."""

from __future__ import annotations

from pathlib import Path

from mlflow.tracking import MlflowClient


class Results:
    """A finished store, read with MLflow's own client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.client = MlflowClient(uri, uri)

    def runs(self, condition: str = "") -> list:
        return list(self.client.search_runs(["0"], condition, max_results=1000))

    def methods(self, request: str = "item-10") -> dict[tuple[str, str], object]:
        found = self.runs(f"tags.role = 'method' and tags.request = '{request}'")
        return {(run.data.tags["method"], run.data.tags["seed"]): run for run in found}

    def artifact(self, run: object, path: str) -> Path:
        return Path(self.client.download_artifacts(run.info.run_id, path))
