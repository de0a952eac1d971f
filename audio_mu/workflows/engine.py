"""Worker processes: jobs go out, results come back in the order in which they are ready."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import torch

from audio_mu.config import Config
from audio_mu.errors import UserError
from audio_mu.processes import keep_freed_memory
from audio_mu.progress import bar
from audio_mu.training import pick_device

J = TypeVar("J")
R = TypeVar("R")


def threads_and_workers(config: Config) -> tuple[int, int]:
    """Threads of one task and tasks at once: by default one thread each and all cores; one task on a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    on_cpu = pick_device(config.device).type == "cpu"
    threads = config.threads or 1
    workers = config.workers or (max(1, cores // threads) if on_cpu else 1)
    return threads, workers


def open_engine(config: Config) -> Engine:
    """The configured engine, to be used as a context."""
    threads, workers = threads_and_workers(config)
    if config.engine == "ray":
        from audio_mu.workflows.ray_engine import RayEngine  # an optional package

        return RayEngine(workers, threads)
    return Engine(workers)


def _start_worker(parent: int) -> None:
    """Ctrl-C is the parent's to handle, no worker outlives it, and memory is kept between batches."""
    keep_freed_memory()
    # No search for garbage among what is imported, now or at the end. Seldom searches would keep finished networks.
    gc.freeze()
    atexit.register(gc.freeze)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def cores_left_to_workers() -> Iterator[None]:
    """One thread for this process inside the block: several wait for each other where workers have the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Engine:
    """A pool of worker processes, started when the first job comes and kept for the whole command.

    One worker is a pool too: the figures and the code path are the same for any number of workers.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is None:
            return
        if kind is not None:
            processes = list((self._pool._processes or {}).values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
        else:
            self._pool.shutdown()
        self._pool = None

    def run(self, work: Callable[[J], R], jobs: Sequence[J], what: str) -> Iterator[tuple[J, R]]:
        """Yield (job, result) as results become ready; jobs start in the order given."""
        if not jobs:
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(os.getpid(),),
            )
        # Workers start here and inherit what is blocked: Ctrl-C must not reach them while they still import.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            waiting: dict[Future[R], J] = {self._pool.submit(work, job): job for job in jobs}
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        try:
            with cores_left_to_workers():
                for future in bar(as_completed(waiting), len(jobs), what):
                    # Popped, so that a result's arrays are freed once they are written.
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed from outside (out of memory?): run the same command again, finished "
                f"steps are kept; fewer workers than workers={self.workers} need less memory"
            ) from None
