"""Connecting to the tracking store, and runs as something to write into."""

from __future__ import annotations

import io
import json
import logging
import os
import platform
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

# Before mlflow is imported: neither may code be unpickled from a model, nor anything be reported to others.
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from audio_mu.errors import UserError
from audio_mu.files import locked

CONTRACT_VERSION = "1"
BATCH_LIMIT = 1_000  # metrics that one call may carry
DIGEST_LENGTH = 32  # MLflow keeps 36 characters of a data set's digest


@dataclass(frozen=True)
class Store:
    """An open tracking store and the experiment that this command writes into."""

    client: MlflowClient
    experiment_id: str
    uri: str

    @classmethod
    def connect(cls) -> Store:
        """Open the configured store, or `mlflow.db` in the current folder, creating it once.

        Raises `UserError` where it cannot be opened.
        """
        _quiet()
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"
        if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
            uri = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        client = MlflowClient()
        try:
            if uri.startswith("sqlite:///"):
                with locked(Path(uri.removeprefix("sqlite:///"))):  # two creators at once break the schema
                    experiment_id = _experiment(client)
            else:
                experiment_id = _experiment(client)
        except (MlflowException, OSError) as error:
            raise UserError(
                f"MLFLOW_TRACKING_URI={uri!r} cannot be used ({_one_line(error)}): "
                "is the server up, the file writable, the schema of this MLflow version?"
            ) from None
        return cls(client, experiment_id, uri)

    def open_run(self, stage: str, name: str, tags: Mapping[str, str], params: Mapping[str, str]) -> Run:
        """The entry point's run: the one that `mlflow run` has made, or a new one."""
        given = os.environ.pop("MLFLOW_RUN_ID", None)
        all_tags = {**_common_tags(), "stage": stage, "role": "parent", **tags}
        if given is None:
            run = self._create(name, all_tags)
        else:
            run = Run(self, given, name)
            run.tags({**all_tags, "mlflow.runName": name})
        # MLflow has logged what was given as parameters already; the whole is in an artifact.
        run.text("config.yaml", "".join(f"{key}: {json.dumps(value)}\n" for key, value in params.items()))
        return run

    def child_run(
        self, parent: Run, stage: str, role: str, name: str, tags: Mapping[str, str], params: Mapping[str, str]
    ) -> Run:
        """A run below another one, with the resolved parameters under their plain names."""
        run = self._create(
            name, {**_common_tags(), "stage": stage, "role": role, "mlflow.parentRunId": parent.id, **tags}
        )
        run.params(params)
        return run

    def lone_run(self, stage: str, role: str, name: str, tags: Mapping[str, str]) -> Run:
        """A run that belongs to no command's: it stays when that is deleted."""
        return self._create(name, {**_common_tags(), "stage": stage, "role": role, **tags})

    def _create(self, name: str, tags: Mapping[str, str]) -> Run:
        created = self.client.create_run(self.experiment_id, run_name=name, tags=dict(tags))
        return Run(self, created.info.run_id, name)


def _experiment(client: MlflowClient) -> str:
    given = os.environ.get("MLFLOW_EXPERIMENT_ID")
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if given is None and name:
        found = client.get_experiment_by_name(name)
        return found.experiment_id if found else client.create_experiment(name)
    return client.get_experiment(given or "0").experiment_id


def _quiet() -> None:
    for logger in ("alembic", "mlflow.store.db.utils", "mlflow.utils.requirements_utils", "mlflow.models.model"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    # torch's own exporter warns about itself on every model that MLflow saves.
    warnings.filterwarnings("ignore", message=".*No complete tensor found in the group.*")
    warnings.filterwarnings("ignore", message=".*given buffer is not writable.*")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@cache
def _git_tags() -> tuple[tuple[str, str], ...]:
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        return ("git_commit", git("rev-parse", "HEAD")), (
            "git_dirty",
            str(bool(git("status", "--porcelain", "--untracked-files=no"))).lower(),
        )
    except (OSError, subprocess.SubprocessError):
        return (("git_commit", "unknown"), ("git_dirty", "unknown"))


def _common_tags() -> dict[str, str]:
    return {
        "contract_version": CONTRACT_VERSION,
        "host": platform.node(),
        "pid": str(os.getpid()),
        **dict(_git_tags()),
    }


class Run:
    """A run of the store, written to through its id; as a context it ends FINISHED, FAILED or KILLED."""

    def __init__(self, store: Store, run_id: str, name: str) -> None:
        self.store, self.id, self.name = store, run_id, name

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            status = "FINISHED"
        else:
            status = "FAILED" if issubclass(kind, Exception) else "KILLED"
        self.store.client.set_terminated(self.id, status)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, all in one call."""
        self.store.client.log_batch(self.id, tags=[RunTag(key, value) for key, value in tags.items()])

    def params(self, params: Mapping[str, str]) -> None:
        """Log parameters, all in one call."""
        self.store.client.log_batch(self.id, params=[Param(key, value) for key, value in params.items()])

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log numbers, all in one call."""
        self.curves({name: [(0, value)] for name, value in values.items()})

    def curves(self, curves: Mapping[str, Iterable[tuple[int, float]]]) -> None:
        """Log numbers by step, as many in a call as the store takes."""
        now = int(time.time() * 1000)
        rows = [Metric(name, float(value), now, step) for name, points in curves.items() for step, value in points]
        for start in range(0, len(rows), BATCH_LIMIT):
            self.store.client.log_batch(self.id, metrics=rows[start : start + BATCH_LIMIT])

    def text(self, path: str, text: str) -> None:
        """Write a text artifact."""
        self.bytes(path, text.encode())

    def csv(self, path: str, frame: pd.DataFrame) -> None:
        """Write a table; numbers keep every digit."""
        self.text(path, frame.to_csv(index=False))

    def npz(self, path: str, **arrays: np.ndarray) -> None:
        """Write arrays; nothing in them needs unpickling."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        self.bytes(path, buffer.getvalue())

    def bytes(self, path: str, data: bytes) -> None:
        """Write an artifact of any kind."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / Path(path).name
            local.write_bytes(data)
            parent = Path(path).parent.as_posix()
            self.store.client.log_artifact(self.id, str(local), None if parent == "." else parent)

    def note(self, markdown: str) -> None:
        """The run's description in the UI."""
        self.tags({"mlflow.note.content": markdown})

    def dataset(self, name: str, digest: str, n_clips: int, context: str) -> None:
        """Log a data set as this run's input."""
        entity = Dataset(
            name=name,
            digest=digest[:DIGEST_LENGTH],
            source_type="recordings",
            source=json.dumps({"name": name}),
            profile=json.dumps({"clips": n_clips}),
        )
        self.store.client.log_inputs(
            self.id, datasets=[DatasetInput(entity, [InputTag("mlflow.data.context", context)])]
        )


@contextmanager
def _at_hand(store: Store, run_id: str, path: str) -> Iterator[Path]:
    """A local copy of an artifact for as long as it is read: MLflow would leave one behind in the temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(store.client.download_artifacts(run_id, path, folder))


def read_npz(store: Store, run_id: str, path: str) -> dict[str, np.ndarray]:
    """The arrays of an artifact."""
    with _at_hand(store, run_id, path) as local, np.load(local, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def read_csv(store: Store, run_id: str, path: str, **options: Any) -> pd.DataFrame:
    """The table of an artifact, numbers to the last digit."""
    with _at_hand(store, run_id, path) as local:
        return pd.read_csv(local, float_precision="round_trip", keep_default_na=False, **options)


def read_json(store: Store, run_id: str, path: str) -> Any:
    """The content of a JSON artifact."""
    with _at_hand(store, run_id, path) as local:
        return json.loads(local.read_text())


def list_files(store: Store, run_id: str, folder: str | None = None) -> list[str]:
    """Paths of a run's artifacts in a folder, or at the top."""
    return [entry.path for entry in store.client.list_artifacts(run_id, folder) if not entry.is_dir]
