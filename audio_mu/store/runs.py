"""Runs of the store as something to write into."""

from __future__ import annotations

import getpass
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from audio_mu.errors import UserError, named, one_line
from audio_mu.printable import printable, storable
from audio_mu.progress import say
from audio_mu.store.artifacts import files_of, packed
from audio_mu.store.faults import drop_transactions, in_a_hurry, is_interrupt
from audio_mu.store.handle import Store
from audio_mu.store.queries import RUNNING, has_tags
from audio_mu.system.processes import since

CONTRACT_VERSION = "2"
GIVEN_RUN = "MLFLOW_RUN_ID"  # where `mlflow run` puts the id of the run that it has made
REASON, LONGEST_REASON = "failed_reason", 2_000
BATCH_LIMIT = 1_000  # metrics that one call may carry
USER = "mlflow.user"  # where the UI looks who has made a run, and `mlflow run` writes it
DIGEST_LENGTH = 32  # MLflow keeps 36 characters of a data set's digest


class Run:
    """A run of the store, written to through its id; as a context it ends FINISHED, FAILED or KILLED."""

    def __init__(self, store: Store, run_id: str, name: str) -> None:
        self.store, self.id, self.name = store, run_id, name

    def __enter__(self) -> Run:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            self.store.client.set_terminated(self.id, "FINISHED")
            return
        with _broken_off(self.store, error) as status:
            if status == "FAILED":
                self.tags({REASON: named(error, LONGEST_REASON)})
            self.store.client.set_terminated(self.id, status)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, all in one call."""
        self.store.client.log_batch(self.id, tags=_tags(tags))

    def params(self, params: Mapping[str, str]) -> None:
        """Log parameters, all in one call."""
        self.store.client.log_batch(self.id, params=[Param(key, storable(value)) for key, value in params.items()])

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
        """Write a text artifact; pages as they may be shown."""
        self.bytes(path, storable(printable(text) if path.endswith(".md") else text).encode())

    def csv(self, path: str, frame: pd.DataFrame) -> None:
        """Write a table; numbers keep every digit."""
        self.text(path, frame.to_csv(index=False))

    def npz(self, path: str, **arrays: np.ndarray) -> None:
        """Write arrays; nothing in them needs unpickling."""
        self.bytes(path, packed(arrays))

    def bytes(self, path: str, data: bytes) -> None:
        """Write an artifact of any kind, whole or not at all."""
        files_of(self.store, self.id).write(path, data)

    def address(self, path: str) -> str:
        """Where an artifact can be opened: its file if it is on this machine, else its URI."""
        return f"{files_of(self.store, self.id).uri.removeprefix('file://')}/{path}"

    def table(self, path: str, frame: pd.DataFrame) -> None:
        """Write a table as JSON that the UI shows as one: the only such table of this run."""
        self.text(path, frame.to_json(orient="split", index=False))
        self.tags({"mlflow.loggedArtifacts": json.dumps([{"path": path, "type": "table"}])})

    def note(self, markdown: str) -> None:
        """The run's description in the UI."""
        self.tags({"mlflow.note.content": printable(markdown)})

    def dataset(self, name: str, digest: str, n_clips: int, context: str) -> None:
        """Log a data set as this run's input."""
        source, profile = json.dumps({"name": name}), json.dumps({"clips": n_clips})
        entity = Dataset(name, digest[:DIGEST_LENGTH], "recordings", source, profile=profile)
        used = DatasetInput(entity, [InputTag("mlflow.data.context", context)])
        self.store.client.log_inputs(self.id, datasets=[used])


def open_run(
    store: Store, stage: str, name: str, tags: Mapping[str, str], params: Mapping[str, str], config: Mapping[str, str]
) -> Run:
    """The entry point's run: the one that `mlflow run` has made, or a new one that logs the parameters in force.

    `config`, all parameters of the command, becomes the artifact config.yaml.
    """
    given = os.environ.pop(GIVEN_RUN, None)
    all_tags = {"stage": stage, "role": "parent", **tags, **_common_tags()}
    if given is None:
        run = _create(store, name, all_tags)
        run.params(params)
    else:
        run = Run(store, given, name)
        run.tags({**all_tags, "mlflow.runName": name})
    # MLflow has logged the parameters that were given to `mlflow run` already, and none can be changed.
    run.text("config.yaml", "".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items()))
    return run


def tell_refusal(entry_point: str, error: UserError) -> None:
    """Give the run that `mlflow run` has made the reason why its command has not come to take it, and a name."""
    _name_given_run(f"{entry_point} refused", {REASON: one_line(error, LONGEST_REASON)})


def say_all(words: str) -> None:
    """Say all that a command has to say: in the run that `mlflow run` has made for it too, which it does not take."""
    say(words)
    _name_given_run("nothing to compute", {"mlflow.note.content": words})


def _name_given_run(name: str, tags: Mapping[str, str]) -> None:
    """Whatever keeps it from that is not to be told: what the run would say is told anyway."""
    if run := os.environ.get(GIVEN_RUN):
        with suppress(Exception):
            MlflowClient().log_batch(run, tags=_tags({"mlflow.runName": name, **tags}))


Child = tuple[Store, Run, str, str, str, Mapping[str, str], Mapping[str, str]]
"""The arguments of `child_run`, for what is logged as failed where there is nothing to write into it."""


def child_run(
    store: Store, parent: Run, stage: str, role: str, name: str, tags: Mapping[str, str], params: Mapping[str, str]
) -> Run:
    """A run below another one, with the resolved parameters under their plain names."""
    run = _create(
        store, name, {"stage": stage, "role": role, "mlflow.parentRunId": parent.id, **tags, **_common_tags()}
    )
    run.params(params)
    return run


def lone_run(store: Store, stage: str, role: str, name: str, tags: Mapping[str, str]) -> Run:
    """A run that belongs to no command's: it stays when that is deleted."""
    return _create(store, name, {"stage": stage, "role": role, **tags, **_common_tags()})


def _tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(key, storable(value)) for key, value in tags.items()]


def _create(store: Store, name: str, tags: Mapping[str, str]) -> Run:
    taken = {tag.key: tag.value for tag in _tags({USER: getpass.getuser(), **tags})}
    created = store.client.create_run(store.experiment_id, run_name=storable(name), tags=taken)
    store.artifact_roots[created.info.run_id] = (store.experiment_id, created.info.artifact_uri)
    return Run(store, created.info.run_id, name)


def end_own_runs(store: Store, error: BaseException) -> None:
    """End what is RUNNING of this process: an interrupt may come between the making of a run and its work."""
    with _broken_off(store, error) as status:
        own = " and ".join([RUNNING, *has_tags(process_tags())])
        for run in store.client.search_runs([store.experiment_id], own):
            store.client.set_terminated(run.info.run_id, status)


@contextmanager
def _broken_off(store: Store, error: BaseException) -> Iterator[str]:
    """The status of runs that an error has ended: KILLED after an interrupt, else FAILED.

    The error is to be told, not that the store does not take the end of its run: the next command mends that.
    """
    interrupted = is_interrupt(error)
    if interrupted:
        drop_transactions(error)
    with suppress(Exception), in_a_hurry(store.client):
        yield "KILLED" if interrupted else "FAILED"


@cache
def code_tags(file: Path) -> dict[str, str]:
    """The commit that a source file is of, and whether the work tree has changes.

    Empty where git does not track the file: a package that is installed inside somebody's work tree is none of it.
    """
    git = partial(subprocess.check_output, cwd=file.parent, text=True, stderr=subprocess.DEVNULL, timeout=20)
    try:
        git(["git", "ls-files", "--error-unmatch", file.name])
        changed = git(["git", "status", "--porcelain", "--untracked-files=no"]).strip()
        return {"git_commit": git(["git", "rev-parse", "HEAD"]).strip(), "git_dirty": str(bool(changed)).lower()}
    except (OSError, subprocess.SubprocessError):
        return {}


def _common_tags() -> dict[str, str]:
    """What every run is tagged with: behind its own tags, for the UI shows them in the order in which they are set."""
    return {"contract_version": CONTRACT_VERSION, **process_tags(), **code_tags(Path(__file__).resolve())}


def process_tags() -> dict[str, str]:
    """The tags that name this process."""
    return {"host": platform.node(), "pid": str(os.getpid()), "pid_started": since(os.getpid())}
