"""Runs of the store as something to write into."""

from __future__ import annotations

import gc
import io
import json
import os
import platform
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from audio_mu.store.artifacts import local_folder
from audio_mu.store.faults import PATIENCE
from audio_mu.store.handle import Store
from audio_mu.system.processes import since
from audio_mu.system.writing import write_atomic

CONTRACT_VERSION = "1"
GIVEN_RUN = "MLFLOW_RUN_ID"  # where `mlflow run` puts the id of the run that it has made
HTTP_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
RUNNING = "attributes.status = 'RUNNING'"
BATCH_LIMIT = 1_000  # metrics that one call may carry
DIGEST_LENGTH = 32  # MLflow keeps 36 characters of a data set's digest


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
            self.store.client.set_terminated(self.id, "FINISHED")
            return
        # What ended the run is to be told, not that the store does not take its end: the next command mends that.
        if not issubclass(kind, Exception):
            _drop_transactions()
        with suppress(Exception), _in_a_hurry(self.store.client):
            self.store.client.set_terminated(self.id, "FAILED" if issubclass(kind, Exception) else "KILLED")

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, all in one call."""
        self.store.client.log_batch(self.id, tags=[RunTag(key, value) for key, value in tags.items()])

    def params(self, params: Mapping[str, str]) -> None:
        """Log parameters, all in one call."""
        self.store.client.log_batch(self.id, params=[Param(key, value) for key, value in params.items()])

    def metrics(self, values: Mapping[str, float], model_uri: str | None = None) -> None:
        """Log numbers, all in one call; with `model_uri` as those of a logged model too."""
        self.curves({name: [(0, value)] for name, value in values.items()}, model_uri)

    def curves(self, curves: Mapping[str, Iterable[tuple[int, float]]], model_uri: str | None = None) -> None:
        """Log numbers by step, as many in a call as the store takes."""
        now = int(time.time() * 1000)
        model = model_uri.removeprefix("models:/") if model_uri else None
        rows = [
            Metric(name, float(value), now, step, model_id=model)
            for name, points in curves.items()
            for step, value in points
        ]
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
        """Write an artifact of any kind, whole or not at all."""
        folder = self._folder
        if folder is not None:
            write_atomic(folder / path, data)
            return
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / Path(path).name
            local.write_bytes(data)
            parent = Path(path).parent.as_posix()
            self.store.client.log_artifact(self.id, str(local), None if parent == "." else parent)

    def address(self, path: str) -> str:
        """Where an artifact can be opened: its file if it is on this machine, else its URI."""
        return f"{self.store.client.get_run(self.id).info.artifact_uri.removeprefix('file://')}/{path}"

    @cached_property
    def _folder(self) -> Path | None:
        return local_folder(self.store.client.get_run(self.id).info.artifact_uri)

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


def open_run(
    store: Store, stage: str, name: str, tags: Mapping[str, str], params: Mapping[str, str], config: Mapping[str, str]
) -> Run:
    """The entry point's run: the one that `mlflow run` has made, or a new one that logs the parameters in force.

    `config`, all parameters of the command, becomes the artifact config.yaml.
    """
    given = os.environ.pop(GIVEN_RUN, None)
    all_tags = {**_common_tags(), "stage": stage, "role": "parent", **tags}
    if given is None:
        run = _create(store, name, all_tags)
        run.params(params)
    else:
        run = Run(store, given, name)
        run.tags({**all_tags, "mlflow.runName": name})
    # MLflow has logged the parameters that were given to `mlflow run` already, and none can be changed.
    run.text("config.yaml", "".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items()))
    return run


def child_run(
    store, parent: Run, stage: str, role: str, name: str, tags: Mapping[str, str], params: Mapping[str, str]
) -> Run:
    """A run below another one, with the resolved parameters under their plain names."""
    run = _create(
        store, name, {**_common_tags(), "stage": stage, "role": role, "mlflow.parentRunId": parent.id, **tags}
    )
    run.params(params)
    return run


def lone_run(store, stage: str, role: str, name: str, tags: Mapping[str, str]) -> Run:
    """A run that belongs to no command's: it stays when that is deleted."""
    return _create(store, name, {**_common_tags(), "stage": stage, "role": role, **tags})


def _create(store, name: str, tags: Mapping[str, str]) -> Run:
    created = store.client.create_run(store.experiment_id, run_name=name, tags=dict(tags))
    return Run(store, created.info.run_id, name)


def end_own_runs(store, error: BaseException) -> None:
    """End what is RUNNING of this process: an interrupt may come between the making of a run and its work."""
    if not isinstance(error, Exception):
        _drop_transactions()
    own = (f"tags.`{key}` = '{value}'" for key, value in process_tags().items())
    with suppress(Exception), _in_a_hurry(store.client):
        for run in store.client.search_runs([store.experiment_id], " and ".join([RUNNING, *own])):
            Run(store, run.info.run_id, run.info.run_name).__exit__(type(error), error, None)


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
    return {"contract_version": CONTRACT_VERSION, **process_tags(), **dict(_git_tags())}


def process_tags() -> dict[str, str]:
    return {"host": platform.node(), "pid": str(os.getpid()), "pid_started": since(os.getpid())}


def _drop_transactions() -> None:
    """Roll back what an interrupt has broken off in this process: it would lock the SQLite store against its end."""
    for thing in gc.get_objects():
        if type(thing) is sqlite3.Connection:
            with suppress(sqlite3.Error):
                thing.rollback()


@contextmanager
def _in_a_hurry(client: MlflowClient) -> Iterator[None]:
    """Try once: nobody waits minutes for the end of what has failed."""
    client.patience = 0.0
    before = os.environ.get(HTTP_RETRIES)
    os.environ[HTTP_RETRIES] = "1"
    try:
        yield
    finally:
        client.patience = PATIENCE
        os.environ.pop(HTTP_RETRIES) if before is None else os.environ.update({HTTP_RETRIES: before})
