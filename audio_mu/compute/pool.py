"""Worker processes of this machine: jobs go out, results come back in the order in which they are ready."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import TypeVar

from audio_mu.compute.cores import cores_left_to_workers
from audio_mu.errors import UserError
from audio_mu.progress import bar
from audio_mu.system.processes import when_orphaned
from audio_mu.system.tuning import keep_freed_memory

J = TypeVar("J")
R = TypeVar("R")


def _start_worker(parent: int) -> None:
    """Ctrl-C is the parent's to handle, no worker outlives it, and memory is kept between batches."""
    keep_freed_memory()
    # No search for garbage among what is imported, now or at the end. Seldom searches would keep finished networks.
    gc.freeze()
    atexit.register(gc.freeze)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    when_orphaned(parent, lambda: os._exit(1))


class LocalEngine:
    """A pool of worker processes, started when the first job comes and kept for the whole command.

    One worker is a pool too: the figures and the code path are the same for any number of workers.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> LocalEngine:
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
