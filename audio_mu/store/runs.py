"""Connecting to the tracking store, and runs as something to write into."""

from __future__ import annotations

import gc
import io
import json
import logging
import os
import platform
import socket
import sqlite3
import struct
import subprocess
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from urllib.parse import quote, urlsplit

# Before mlflow is imported: neither may code be unpickled from a model, nor anything be reported to others.
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from audio_mu.errors import UserError
from audio_mu.files import locked, sweep, write_atomic
from audio_mu.processes import is_gone, since, users_of
from audio_mu.progress import say
from audio_mu.store.faults import PATIENCE, Patient, explain

CONTRACT_VERSION = "1"
GIVEN_RUN = "MLFLOW_RUN_ID"  # where `mlflow run` puts the id of the run that it has made
HTTP_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
RUNNING = "attributes.status = 'RUNNING'"
MOST_RUNNING = 10_000  # runs looked at for processes that are gone
CLOCK_TOLERANCE = 0.1  # seconds
FILLED_AT_CREATION = {"experiments", "workspaces"}  # tables with a row before anybody has written one
SECONDS_OF_CREATION = 30  # after which another process is no longer waited for
BATCH_LIMIT = 1_000  # metrics that one call may carry
LARGEST_ARRAYS = 8 << 30
DIGEST_LENGTH = 32  # MLflow keeps 36 characters of a data set's digest


@dataclass(frozen=True)
class Store:
    """An open tracking store and the experiment that this command writes into."""

    client: MlflowClient
    experiment_id: str
    uri: str
    artifact_roots: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Run id → address of its artifacts, which never changes; filled by whoever reads a run."""

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
        _tell_silence(uri)
        try:
            if uri.startswith("sqlite:///"):
                client, experiment_id = _open_sqlite(Path(uri.removeprefix("sqlite:///")))
            else:
                client, experiment_id = _open()
        except Exception as error:
            told = explain(error) or f"is it a tracking store of this MLflow version? ({_one_line(error)})"
            raise UserError(f"MLFLOW_TRACKING_URI={uri!r} cannot be used: {told}") from None
        store = cls(client, experiment_id, uri)
        if given := os.environ.get(GIVEN_RUN):
            Run(store, given, "").tags(_process_tags())
        end_orphans(store)
        return store

    def open_run(self, stage: str, name: str, tags: Mapping[str, str], params: Mapping[str, str]) -> Run:
        """The entry point's run: the one that `mlflow run` has made, or a new one."""
        given = os.environ.pop(GIVEN_RUN, None)
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

    def end_own_runs(self, error: BaseException) -> None:
        """End what is RUNNING of this process: an interrupt may come between the making of a run and its work."""
        if not isinstance(error, Exception):
            _drop_transactions()
        own = (f"tags.`{key}` = '{value}'" for key, value in _process_tags().items())
        with suppress(Exception), _in_a_hurry(self.client):
            for run in self.client.search_runs([self.experiment_id], " and ".join([RUNNING, *own])):
                Run(self, run.info.run_id, run.info.run_name).__exit__(type(error), error, None)

    def lone_run(self, stage: str, role: str, name: str, tags: Mapping[str, str]) -> Run:
        """A run that belongs to no command's: it stays when that is deleted."""
        return self._create(name, {**_common_tags(), "stage": stage, "role": role, **tags})

    def _create(self, name: str, tags: Mapping[str, str]) -> Run:
        created = self.client.create_run(self.experiment_id, run_name=name, tags=dict(tags))
        return Run(self, created.info.run_id, name)


def _open_sqlite(file: Path) -> tuple[MlflowClient, str]:
    with locked(file):  # two creators at once break the schema
        for _ in range(SECONDS_OF_CREATION):
            try:
                return _open()
            except Exception:
                # MLflow takes seconds to create its tables and cannot go on where it was killed.
                if not _is_half_made(file):
                    raise
            _forget_connection(file)
            if users_of(file):  # `mlflow run` creates it at this moment, and asks no lock
                time.sleep(1)
                continue
            say(f"{file}: its creation was interrupted, made anew")
            for suffix in ("", "-journal", "-wal", "-shm"):  # a journal would bring the old tables back
                file.with_name(file.name + suffix).unlink(missing_ok=True)
        return _open()


def _forget_connection(file: Path) -> None:
    """Close what MLflow keeps open of a database file."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore._get_or_create_engine(f"sqlite:///{file}").dispose()


def _is_half_made(file: Path) -> bool:
    """Whether a database holds some of what this MLflow version creates, nothing else, and nothing in it yet."""
    if not file.is_file():
        return False
    from alembic.script import ScriptDirectory
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.db.utils import _get_alembic_config

    script = ScriptDirectory.from_config(_get_alembic_config(""))
    revisions, expected = {known.revision for known in script.walk_revisions()}, set(Base.metadata.tables)
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as database:
        try:
            names = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
            reached = set()
            if "alembic_version" in names:
                reached = {version for (version,) in database.execute("select version_num from alembic_version")}
            own = {name for name in names if not name.startswith(("alembic_", "_alembic_", "sqlite_"))}
            if not (own <= expected and reached <= revisions):
                return False  # another program's, or a newer MLflow's
            whole = own == expected and reached == set(script.get_heads())
            filled = {name for name in own if database.execute(f'select 1 from "{name}" limit 1').fetchone()}
            return not whole and filled <= FILLED_AT_CREATION
        except sqlite3.Error:
            return False


def _open() -> tuple[MlflowClient, str]:
    client = cast(MlflowClient, Patient(MlflowClient()))
    return client, _experiment(client)


def _experiment(client: MlflowClient) -> str:
    given = os.environ.get("MLFLOW_EXPERIMENT_ID")
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if given is None and name:
        found = client.get_experiment_by_name(name)
        if found is None:
            with suppress(MlflowException):  # another process has made it in between
                return client.create_experiment(name)
            found = client.get_experiment_by_name(name)
        return found.experiment_id
    return client.get_experiment(given or "0").experiment_id


def _quiet() -> None:
    for logger in ("alembic", "mlflow.utils.requirements_utils", "mlflow.models.model"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    # It prints the traceback of an error that it raises as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
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
    return {"contract_version": CONTRACT_VERSION, **_process_tags(), **dict(_git_tags())}


def _process_tags() -> dict[str, str]:
    return {"host": platform.node(), "pid": str(os.getpid()), "pid_started": since(os.getpid())}


def _tell_silence(uri: str) -> None:
    """Say that a server does not answer: MLflow tries for minutes without a word."""
    address = urlsplit(uri)
    if address.scheme in ("http", "https") and address.hostname:
        port = address.port or (443 if address.scheme == "https" else 80)
        try:
            socket.create_connection((address.hostname, port), timeout=10).close()
        except OSError as error:
            say(f"{uri} does not answer ({error}): trying for some minutes (MLFLOW_HTTP_REQUEST_MAX_RETRIES)")


def end_orphans(store: Store) -> None:
    """Mark the experiment's RUNNING runs of this host whose process is gone as KILLED; others' are left alone."""
    for found in store.client.search_runs([store.experiment_id], RUNNING, max_results=MOST_RUNNING):
        tags = found.data.tags
        if tags.get("pid", "").isdigit():
            gone = tags.get("host") == platform.node() and is_gone(int(tags["pid"]), tags.get("pid_started", ""))
        else:
            gone = tags.get("mlflow.source.type") == "PROJECT" and not _has_maker(store, found)
        if gone:
            store.client.set_terminated(found.info.run_id, "KILLED")
            if (folder := local_folder(found.info.artifact_uri)) is not None:
                sweep(folder, "**/.*.tmp")


def _has_maker(store: Store, run: StoredRun) -> bool:
    """Whether a process may be alive that made this run with `mlflow run` and has not come to our code yet.

    It has the database open, and was there before the run or was given it; ancestors of this process do not count.
    True where that cannot be known: the store is on a server.
    """
    if not store.uri.startswith("sqlite:///"):
        return True
    made = run.info.start_time / 1000
    return any(
        given == run.info.run_id or process_start <= made + CLOCK_TOLERANCE
        for process_start, given in users_of(Path(store.uri.removeprefix("sqlite:///")), GIVEN_RUN)
    )


def local_folder(uri: str) -> Path | None:
    """The folder behind an artifact URI, None where it is not on this machine."""
    return Path(local_file_uri_to_path(uri)) if is_local_uri(uri) else None


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


def _artifacts(store: Store, run_id: str) -> ArtifactRepository:
    """Where a run's artifacts are.

    Not through the client's `download_artifacts`, which asks the store four times for each file.
    """
    if run_id not in store.artifact_roots:
        store.artifact_roots[run_id] = store.client.get_run(run_id).info.artifact_uri
    return get_artifact_repository(store.artifact_roots[run_id])


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
            f"{path} of run {run_id} cannot be read ({type(error).__name__}: {_one_line(error)}): restore it, or make "
            "it again with force=true"
        ) from None


def list_files(store: Store, run_id: str, folder: str | None = None) -> list[str]:
    """Paths of a run's artifacts in a folder, or at the top."""
    return [entry.path for entry in _artifacts(store, run_id).list_artifacts(folder) if not entry.is_dir]
