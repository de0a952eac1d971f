"""Jobs as tasks of a Ray cluster: the optional engine for several machines."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

import numpy as np
import ray
from ray import ObjectRef
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

import audio_mu
from audio_mu.compute.attempt import (
    SILENCE,
    TRIES,
    Failed,
    TooLong,
    attempt,
    failure,
    lost,
    name_of_job,
    next_silence,
    nothing,
    spoils_its_worker,
    too_long,
)
from audio_mu.compute.cores import process_threads
from audio_mu.compute.problem import Problem
from audio_mu.errors import UserError, first_of, one_line
from audio_mu.progress import bar, say
from audio_mu.system.tuning import keep_freed_memory
from audio_mu.system.writing import short_temporary_folder
from audio_mu.training import pick_device

J = TypeVar("J")
R = TypeVar("R")
CONNECT_SECONDS = 10.0
PATIENT = {"health_check_timeout_ms": 60_000, "health_check_failure_threshold": 20}
"""Of a cluster of this machine alone: where others use the cores its node is slow, not dead."""
CLUSTER_SECONDS = 60.0  # Ray itself would wait for ever where a cluster is at another address than it says
SECONDS_TO_STOP = 60.0  # of a task after its limit
LONGEST_TEMPORARY = 40  # characters: Ray puts 66 behind it, and the path of a socket may have 107
LOST = (WorkerCrashedError, NodeDiedError, OutOfMemoryError, ObjectLostError)
"""What Ray raises for one task; its other errors are the cluster's."""
NOT_WRITABLE = ".*not writable.*"
"""torch's warning about Ray's arrays, which are shared and read-only; nothing here writes to them."""
SHARED_FIELDS = ("base_state",)
"""Large fields that many jobs have in common: they are sent once."""


@contextmanager
def _limited(minutes: float) -> Iterator[None]:
    """Raise `TooLong` in the block after so many minutes (0: never); one that goes on all the same loses its process.

    The command cannot do it: it does not know when the cluster has begun with a task.
    """
    if not minutes:
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TooLong

    last = threading.Timer(60 * minutes + SECONDS_TO_STOP, os._exit, (1,))
    last.daemon = True
    last.start()
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        last.cancel()


def _work(
    work: Callable[[Any], R], job: Any, features: np.ndarray, shared: dict[str, Any], minutes: float
) -> R | Failed:
    """What runs on the cluster: the job with its large parts put back."""
    keep_freed_memory()
    warnings.filterwarnings("ignore", message=NOT_WRITABLE)
    whole = {name: ray.get(reference) for name, reference in shared.items()}
    try:
        with _limited(minutes):
            return attempt(work, replace(job, problem=replace(job.problem, features=features), **whole))
    except TooLong:
        return too_long(minutes)


class RayEngine:
    """Each job is one Ray task with its request of cores or one accelerator, on a cluster or on this machine.

    The cluster is that of `RAY_ADDRESS`; without it one is started here for the command. Tasks get features and weights
    through Ray and give results back; only the command itself writes to the tracking store, so that the machines
    share no files. The package is sent along; the installed libraries must be the same everywhere. A task whose worker
    is lost runs once more, elsewhere. Figures are those of the local engine: a task computes with the same threads.
    """

    def __init__(self, workers: int, threads: int, task_minutes: float = 0) -> None:
        self.cores_here, self.task_minutes = workers * threads, task_minutes
        self._sent: dict[Path, ObjectRef] = {}
        self._running: set[ObjectRef] = set()
        self._leaving = ExitStack()

    def __enter__(self) -> RayEngine:
        """Find or start the cluster. Raises `UserError`, before any work, where there is none."""
        warnings.filterwarnings("ignore", message=NOT_WRITABLE)
        address = os.environ.get("RAY_ADDRESS")
        if not ray.is_initialized():
            own_handler = signal.getsignal(signal.SIGTERM)
            with _told(address):
                if address:
                    _join(address)
                else:
                    self._start()
            signal.signal(signal.SIGTERM, own_handler)  # Ray puts its own in place, which ends without a word
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if ray.is_initialized():
            for reference in self._running:  # none after a command that ended well
                ray.cancel(reference, force=True)
            ray.shutdown()
        self._leaving.close()

    def run(
        self, work: Callable[[J], R], jobs: Sequence[J], what: str, meanwhile: Callable[[], None] = nothing
    ) -> Iterator[tuple[J, R | Failed]]:
        """Yield (job, result or failure) as they become ready; jobs start in the order given."""
        if not jobs:
            return
        shared: dict[int, ObjectRef] = {}
        waiting = {self._submit(work, job, shared): job for job in jobs}
        self._running = set(waiting)
        with process_threads():
            for reference in bar(self._ready(waiting, meanwhile), len(jobs), what):
                yield waiting.pop(reference), _result(reference)

    def _start(self) -> None:
        """A cluster of this machine's cores, with files where the names of its sockets are short enough."""
        folder = self._leaving.enter_context(short_temporary_folder(LONGEST_TEMPORARY))
        # "local", because Ray would otherwise join whatever cluster happens to run on this machine.
        _init(
            address="local",
            num_cpus=self.cores_here,
            include_dashboard=False,
            _temp_dir=str(folder),
            _system_config=PATIENT,
        )

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
        task: Any = ray.remote(max_calls=1 if spoils_its_worker(job) else 0)(_work).options(
            num_cpus=problem.threads, num_gpus=1 if on_gpu else 0, max_retries=TRIES - 1, name=name_of_job(job)
        )
        light = replace(job, problem=replace(problem, features=Path()), **dict.fromkeys(large))
        references = {name: shared[id(value)] for name, value in large.items()}
        return task.remote(work, light, self._sent[features], references, self.task_minutes)

    def _ready(self, waiting: Mapping[ObjectRef, Any], meanwhile: Callable[[], None]) -> Iterator[ObjectRef]:
        """The tasks as they are done; in between, which are not: the cluster has begun with the first of them."""
        meanwhile()
        silence = SILENCE
        while self._running:
            done, rest = ray.wait(list(self._running), num_returns=1, timeout=silence)
            self._running = set(rest)
            if not done:
                say(f"  not done yet: {first_of([name_of_job(job) for job in waiting.values()])}")
            silence = SILENCE if done else next_silence(silence)
            yield from done


@contextmanager
def _told(address: str | None) -> Iterator[None]:
    """What Ray raises where it finds or starts no cluster, in one line with the way out."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, RayError) as error:
        if address:
            raise UserError(
                f"engine='ray': no cluster, RAY_ADDRESS={address!r} ({one_line(error)}): start one with `ray start "
                "--head` and give the address that it names and RAY_AUTH_TOKEN, or unset RAY_ADDRESS"
            ) from None
        raise UserError(
            f"engine='ray': no cluster can be started here ({one_line(error)}): give engine=local, or RAY_ADDRESS"
        ) from None


def _init(**options: Any) -> None:
    ray.init(
        runtime_env={"py_modules": [str(Path(audio_mu.__file__).parent)]},
        log_to_driver=False,
        logging_level=logging.ERROR,
        **options,
    )


def _join(address: str) -> None:
    """Join a cluster. Raises OSError where nobody listens, or where Ray does not come to an end in time."""
    _check_reachable(address)
    say(f"engine=ray: joining the cluster at {address}, waiting up to {CLUSTER_SECONDS:.0f} s")
    raised: list[BaseException] = []

    def join() -> None:
        try:
            _init(address=address)
        except BaseException as error:  # to be raised where it is waited for
            raised.append(error)

    # In a thread: no signal would end it while it waits for a server.
    thread = threading.Thread(target=join, daemon=True)
    thread.start()
    thread.join(CLUSTER_SECONDS)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {CLUSTER_SECONDS:.0f} s, though something listens there")
    if raised:
        raise raised[0]


def _check_reachable(address: str) -> None:
    """Raise OSError at once where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def _result(reference: ObjectRef) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:  # what the job needs cannot be imported there
        return failure(error.cause or error)
    except LOST as error:
        return lost(one_line(error, 100))
    except RayError as error:
        raise UserError(
            f"engine='ray': the cluster is lost ({one_line(error)}): mend it and run the same command again, finished "
            "steps are kept"
        ) from None
