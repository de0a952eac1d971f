"""Artifacts of runs, read."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from audio_mu.config.commands import again
from audio_mu.config.parsers import names
from audio_mu.errors import UserError, one_line
from audio_mu.names import NAIVE, ORIGINAL
from audio_mu.own_code import name_of
from audio_mu.progress import say_once
from audio_mu.store.faults import explain, refuse_machine_fault
from audio_mu.store.files import Files
from audio_mu.store.handle import Store
from audio_mu.store.places import is_own_run, outside

LARGEST_ARRAYS = 8 << 30
PARENT = "mlflow.parentRunId"
AGAIN = {"force": "true"}
REMAKES: Mapping[str, Mapping[str, str]] = {
    "train": AGAIN, "attack": AGAIN, "unlearn": AGAIN, "tune": AGAIN, "compare": {}, "report": {},
}  # fmt: skip
"""Stage → what its command takes to make the artifacts of its runs again."""
OF_ALL_METHODS = ("method_config", "deep_audits", "robust_audits", "save_models")


class Unreadable(UserError):
    """The error about a part of one run that cannot be used; `run_id`: whose it is. Other runs are none the worse."""

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


def files_of(store: Store, run_id: str) -> Files:
    """The artifacts of a run, without the client, which asks the store four times for each file.

    Raises `Unreadable`, before anything is read or written, where the run names a place that is not the store's own.
    """
    if run_id not in store.files:
        if run_id not in store.artifact_roots:
            info = store.client.get_run(run_id).info
            store.artifact_roots[run_id] = (info.experiment_id, info.artifact_uri)
        experiment, address = store.artifact_roots[run_id]
        if experiment not in store.roots:
            store.roots[experiment] = store.client.get_experiment(experiment).artifact_location
        if not is_own_run(store.roots[experiment], address, run_id):
            raise Unreadable(outside(f"run {run_id}", address), run_id)
        store.files[run_id] = Files(address)
    return store.files[run_id]


def list_files(store: Store, run_id: str, folder: str | None = None) -> list[str]:
    """Paths of a run's artifacts in a folder, or at the top. Raises `Unreadable` where the run is gone."""
    with told_of(store, run_id, folder or "the list of files"):
        return files_of(store, run_id).listed(folder)


def read_npz(store: Store, run_id: str, path: str) -> dict[str, np.ndarray]:
    """The arrays of an artifact, at most `LARGEST_ARRAYS` bytes. Raises `Unreadable` where they cannot be read."""
    with _readable(store, run_id, path) as local:
        with zipfile.ZipFile(local) as packed:
            if sum(member.file_size for member in packed.infolist()) > LARGEST_ARRAYS:
                raise ValueError(f"it unpacks to more than {LARGEST_ARRAYS:,} bytes")
        return unpacked(local)


def read_logits(store: Store, run_id: str, path: str) -> dict[str, np.ndarray]:
    """The arrays of a set's logits: clip_id [n], label [n], logits [n, classes]. Raises `Unreadable` for any others."""
    arrays = read_npz(store, run_id, path)
    with told_of(store, run_id, path):
        ids, labels, logits = (arrays[name] for name in ("clip_id", "label", "logits"))
        if not (ids.shape == labels.shape == logits.shape[:1] and logits.ndim == 2):
            raise ValueError(f"it has {len(ids.ravel())} ids, {len(labels.ravel())} labels and logits {logits.shape}")
        if len(labels) and not (labels.min() >= 0 and labels.max() < logits.shape[1]):
            raise ValueError(f"it has labels up to {labels.max()} for {logits.shape[1]} classes")
        return arrays


def stored_logits(store: Store, run_id: str) -> dict[str, np.ndarray]:
    """Clip id → logits [classes] of everything that a run evaluated; nothing where its files are gone."""
    stored = [read_logits(store, run_id, path) for path in list_files(store, run_id, "logits")]
    return {str(id_): row for part in stored for id_, row in zip(part["clip_id"], part["logits"], strict=True)}


def read_csv(store: Store, run_id: str, path: str, needs: Iterable[str] = (), **options: Any) -> pd.DataFrame:
    """The table of an artifact, numbers to the last digit.

    Raises `Unreadable` where it is none, or cut, or without a column that it `needs`.
    """
    with _readable(store, run_id, path) as local:
        with local.open("rb") as stream:
            stream.seek(max(local.stat().st_size - 1, 0))
            if stream.read() != b"\n":  # as every table is written
                raise ValueError("its last row is cut")
        table = pd.read_csv(local, float_precision="round_trip", keep_default_na=False, **options)
        if lacking := [name for name in needs if name not in table]:
            raise ValueError(f"it lacks {', '.join(lacking)}")
        return table


def read_csvs(store: Store, run_ids: Iterable[str], path: str, **options: Any) -> list[pd.DataFrame]:
    """The tables of one name of those runs that have it; one that cannot be read is told."""
    found = []
    for run_id in run_ids:
        try:
            if path in list_files(store, run_id, PurePosixPath(path).parent.as_posix()):
                found.append(read_csv(store, run_id, path, **options))
        except Unreadable as error:
            say_once(f"note: {error}")
    return found


def read_json(store: Store, run_id: str, path: str) -> Any:
    """The content of a JSON artifact. Raises `Unreadable` where it is none."""
    with _readable(store, run_id, path) as local:
        return json.loads(local.read_text())


def packed(arrays: Mapping[str, Any]) -> bytes:
    """Arrays as an npz file; nothing in it needs unpickling."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def unpacked(file: Path | io.BytesIO) -> dict[str, np.ndarray]:
    """The arrays of an npz file, none of them unpickled. Raises what numpy and zipfile raise."""
    with np.load(file, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


@contextmanager
def _readable(store: Store, run_id: str, path: str) -> Iterator[Path]:
    """An artifact's file; whatever is wrong with it is told in one line."""
    with told_of(store, run_id, path), files_of(store, run_id).opened(path) as local:
        yield local


@contextmanager
def told_of(store: Store, run_id: str, path: str) -> Iterator[None]:
    """What reading an artifact raises, as `Unreadable`; a fault of store, disk or network, which is no run's own, as
    `UserError`.
    """
    try:
        yield
    except (MlflowException, OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError, RuntimeError,
            MemoryError, zipfile.BadZipFile, zlib.error, struct.error) as error:  # fmt: skip
        if not isinstance(error, PermissionError) and (fault := explain(error)) is not None:
            raise UserError(fault) from None
        refuse_machine_fault(error)
        raise unreadable(store, run_id, path, f"{type(error).__name__}: {one_line(error)}") from None


def unreadable(store: Store, run_id: str, what: str, why: str) -> Unreadable:
    """The error about a part of a run that cannot be used, with the command that makes it again."""
    told = f"{what} of run {run_id} cannot be read ({why}): {way_back(store.client, run_id)}"
    return Unreadable(told, run_id)


def way_back(client: MlflowClient, run_id: str) -> str:
    """What to do about a run whose files are lost: the command that makes them again, where there is one."""
    try:
        run = client.get_run(run_id)
    except MlflowException:  # the run itself is gone
        return "restore it from a backup"
    if run.data.tags.get("stage") not in REMAKES:
        return "restore it from a backup"
    return f"restore it, or make it again: `{_remake(client, run)}`"


def _remake(client: MlflowClient, run: StoredRun) -> str:
    """The command that makes a run again: of its one seed, and its one method, where it is below a command's."""
    tags = run.data.tags
    one = {"seeds": tags["seed"]} if "seed" in tags else {}
    if "method" in tags:
        one["methods"] = tags["method"] if tags["method"] != ORIGINAL else NAIVE
    return repeated(client, run, **one, **REMAKES[tags["stage"]])


def repeated(client: MlflowClient, run: StoredRun, **values: str) -> str:
    """The command that has made a run, by what the run has logged, with other values for some parameters."""
    tags, given = run.data.tags, dict(run.data.params)
    above: Mapping[str, str] = {}
    if tags.get("role") != "parent" and PARENT in tags:
        with suppress(MlflowException):  # it is gone
            above = client.get_run(tags[PARENT]).data.params
    if "methods" in values:  # a file of the user's is named by its command alone
        files = {name_of(name): name for name in names(above.get("methods", ""))}
        values["methods"] = files.get(values["methods"], values["methods"])
    given |= {name: text for name, text in above.items() if name in (*OF_ALL_METHODS, "data_dir") or "seed" not in tags}
    return again(tags["stage"], given, json.loads(tags.get("repair", "{}")), **values)
