"""Jobs as tasks of a Ray cluster: the optional engine for several machines."""

from __future__ import annotations

import logging
import os
import signal
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import ray
from ray import ObjectRef
from ray.exceptions import RayError, RayTaskError

import audio_mu
from audio_mu.compute.cores import cores_left_to_workers
from audio_mu.compute.jobs import Problem
from audio_mu.errors import UserError
from audio_mu.progress import bar
from audio_mu.system.tuning import keep_freed_memory
from audio_mu.training import pick_device

J = TypeVar("J")
R = TypeVar("R")
CONNECT_SECONDS = 10.0
RETRIES = 3  # of a task whose worker or machine was lost
SHARED_FIELDS = ("base_state",)
"""Large fields that many jobs have in common: they are sent once."""


def _work(work: Callable[[Any], R], job: Any, features: np.ndarray, shared: dict[str, Any]) -> R:
    """What runs on the cluster: the job with its large parts put back."""
    keep_freed_memory()
    # Ray's arrays are shared between tasks and read-only; nothing here writes to features.
    warnings.filterwarnings("ignore", message=".*not writable.*")
    whole = {name: ray.get(reference) for name, reference in shared.items()}
    return work(replace(job, problem=replace(job.problem, features=features), **whole))


class RayEngine:
    """Each job is one Ray task with its request of cores or one accelerator, on a cluster or on this machine.

    The cluster is that of `RAY_ADDRESS`; without it one is started here for the command. Tasks get features and weights
    through Ray and give results back; only the command itself writes to the tracking store, so that the machines
    share no files. The package is sent along; the installed libraries must be the same everywhere. A task whose worker
    is lost runs again elsewhere. Figures are those of the local engine: a task computes with the same threads.
    """

    def __init__(self, workers: int, threads: int) -> None:
        self.cores_here = workers * threads
        self._sent: dict[Path, ObjectRef] = {}
        self._running: set[ObjectRef] = set()

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not ray.is_initialized():
            return
        for reference in self._running:  # none after a command that ended well
            ray.cancel(reference, force=True)
        ray.shutdown()

    def run(self, work: Callable[[J], R], jobs: Sequence[J], what: str) -> Iterator[tuple[J, R]]:
        """Yield (job, result) as results become ready; jobs start in the order given."""
        if not jobs:
            return
        self._connect()
        shared: dict[int, ObjectRef] = {}
        waiting = {self._submit(work, job, shared): job for job in jobs}
        self._running = set(waiting)
        with cores_left_to_workers():
            for reference in bar(self._ready(), len(jobs), what):
                yield waiting.pop(reference), _result(reference)

    def _connect(self) -> None:
        if ray.is_initialized():
            return
        address = os.environ.get("RAY_ADDRESS")
        # "local", because Ray would otherwise join whatever cluster happens to run on this machine.
        here: dict[str, Any] = (
            {} if address else {"address": "local", "num_cpus": self.cores_here, "include_dashboard": False}
        )
        own_handler = signal.getsignal(signal.SIGTERM)
        try:
            _check_reachable(address)
            ray.init(
                runtime_env={"py_modules": [str(Path(audio_mu.__file__).parent)]},
                log_to_driver=False,
                logging_level=logging.ERROR,
                **here,
            )
        except (OSError, RuntimeError, ValueError, RayError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"engine='ray': no cluster, RAY_ADDRESS={address!r} ({reason}): start one with `ray start --head` and "
                "give its address and RAY_AUTH_TOKEN, or unset RAY_ADDRESS"
            ) from None
        signal.signal(signal.SIGTERM, own_handler)  # Ray puts its own in place, which ends without a word

    def _submit(self, work: Callable[[J], R], job: Any, shared: dict[int, ObjectRef]) -> ObjectRef:
        problem: Problem = job.problem
        features = problem.features
        assert isinstance(features, Path)  # a command's own jobs name the file
        if features not in self._sent:
            self._sent[features] = ray.put(np.load(features))
        large = {name: getattr(job, name) for name in SHARED_FIELDS if hasattr(job, name)}
        for value in large.values():
            if id(value) not in shared:
                shared[id(value)] = ray.put(value)
        on_gpu = pick_device(problem.device).type == "cuda"
        task: Any = ray.remote(_work).options(
            num_cpus=problem.threads, num_gpus=1 if on_gpu else 0, max_retries=RETRIES, name=_name(job)
        )
        light = replace(job, problem=replace(problem, features=Path()), **dict.fromkeys(large))
        references = {name: shared[id(value)] for name, value in large.items()}
        return task.remote(work, light, self._sent[features], references)

    def _ready(self) -> Iterator[ObjectRef]:
        while self._running:
            (reference,), rest = ray.wait(list(self._running), num_returns=1)
            self._running = set(rest)
            yield reference


def _check_reachable(address: str | None) -> None:
    """Raise OSError at once where nobody listens: Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def _name(job: Any) -> str:
    return " ".join(str(getattr(job, name)) for name in ("method", "seed") if hasattr(job, name))


def _result(reference: ObjectRef) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:  # the job's own error, as the local engine would raise it
        raise error.cause from error
    except RayError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"engine='ray': a task was lost {RETRIES + 1} times ({reason}): mend the cluster and run the same command "
            "again, finished steps are kept"
        ) from None
