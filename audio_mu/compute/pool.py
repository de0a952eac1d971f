"""Worker processes of this machine: jobs go out, results come back in the order in which they are ready."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import TypeVar

from audio_mu.compute.attempt import (
    SILENCE,
    TRIES,
    Failed,
    TooLong,
    failure,
    lost,
    name_of_job,
    next_silence,
    nothing,
    spoils_its_worker,
    too_long,
)
from audio_mu.compute.cores import process_threads
from audio_mu.compute.worker import context, serve, start_server
from audio_mu.errors import one_line
from audio_mu.progress import bar, say
from audio_mu.system.processes import since

J = TypeVar("J")
R = TypeVar("R")
SECONDS_TO_DIE = 1.0  # between the end of a process's pipe and its own


class Worker:
    """One process, which does one job at a time: of one that dies it is known what it was doing."""

    def __init__(self) -> None:
        workers, own = context(), os.getpid()
        self._connection, theirs = workers.Pipe()
        self._process = workers.Process(target=serve, args=(theirs, own, since(own), dict(os.environ)))
        self._process.start()
        theirs.close()  # so that its end is seen here
        self._ending = threading.Lock()

    def do(self, work: Callable[[J], R], job: J, minutes: float) -> R | Failed:
        """The job's result or failure. Raises EOFError or OSError where the process is lost, `TooLong` after `minutes`.

        0 minutes: however long it takes. The time counts from when the worker has the job, and all that it imports.
        """
        self._connection.send((work, job))
        unread: Failed | None = self._connection.recv()
        if unread is not None:
            return unread
        if not self._connection.poll(60 * minutes if minutes else None):
            raise TooLong
        result: R | Failed = self._connection.recv()
        return result

    def end(self) -> str:
        """Have the process end, whatever it does; how it ended, in words. A second thread waits for the first."""
        with self._ending:
            self._process.join(SECONDS_TO_DIE)
            self._process.terminate()
            self._process.join(SECONDS_TO_DIE)
            self._process.kill()  # what a method of the user's own may have kept from ending
            self._process.join()
            self._connection.close()
        code = self._process.exitcode or 0
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def terminate(self) -> None:
        """Have the process end without waiting for it."""
        self._process.terminate()


class LocalEngine:
    """Worker processes, each started when there is a job for it and kept for the whole command, or until it has run
    code of the user's own, which may have changed what is global in it.

    One worker is a process too: the figures and the code path are the same for any number of workers. A lost worker
    is replaced, and its job tried once more. A job that takes longer than `task_minutes` (0: no limit) has failed.
    """

    def __init__(self, workers: int, task_minutes: float = 0) -> None:
        self.workers, self.task_minutes = workers, task_minutes
        self._threads: ThreadPoolExecutor | None = None
        self._idle: list[Worker] = []
        self._busy: dict[Worker, str] = {}
        self._changing = threading.Lock()
        self._ended = False

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changing:
            self._ended = True
            workers = [*self._busy, *self._idle]
        for worker in workers:  # what they hold is sent back already, or not wanted any more
            worker.terminate()
        for worker in workers:
            worker.end()
        if self._threads is not None:
            self._threads.shutdown(wait=kind is None, cancel_futures=True)

    def run(
        self, work: Callable[[J], R], jobs: Sequence[J], what: str, meanwhile: Callable[[], None] = nothing
    ) -> Iterator[tuple[J, R | Failed]]:
        """Yield (job, result or failure) as they become ready; jobs start in the order given."""
        if not jobs:
            return
        if self._threads is None:
            start_server()
            # Workers inherit what their thread blocks: Ctrl-C must not reach them while they still import.
            blocked = (signal.SIG_BLOCK, {signal.SIGINT})
            self._threads = ThreadPoolExecutor(self.workers, "worker", signal.pthread_sigmask, blocked)
        waiting: dict[Future[R | Failed], J] = {self._threads.submit(self._do, work, job): job for job in jobs}
        try:
            with process_threads():
                for future in bar(self._ready(waiting, meanwhile), len(jobs), what):
                    # Popped, so that a result's arrays are freed once they are written.
                    yield waiting.pop(future), future.result()
        finally:
            for future in waiting:  # none after a command that ended well
                future.cancel()

    def _ready(
        self, waiting: Iterable[Future[R | Failed]], meanwhile: Callable[[], None]
    ) -> Iterator[Future[R | Failed]]:
        """The futures as they are done; in between, which jobs are running."""
        meanwhile()
        left, silence = {*waiting}, SILENCE
        while left:
            done, left = wait(left, silence, FIRST_COMPLETED)
            if not done:
                with self._changing:
                    running = sorted(self._busy.values())
                say(f"  still running: {'; '.join(running)}")
            silence = SILENCE if done else next_silence(silence)
            while done:
                yield done.pop()

    def _do(self, work: Callable[[J], R], job: J) -> R | Failed:
        """A job's result, from whichever worker is idle. There are never more workers than threads."""
        how = ""
        for _ in range(TRIES):
            worker = None
            try:
                worker = self._taken(f"{name_of_job(job)}, since {time.strftime('%H:%M')}")
                result = worker.do(work, job, self.task_minutes)
                if spoils_its_worker(job):
                    worker.terminate()
                    self._dropped(worker)
                    return result
            except TooLong:
                self._dropped(worker)
                return too_long(self.task_minutes)
            except (EOFError, OSError) as error:
                how = self._dropped(worker) if worker else one_line(error)
                if self._ended:
                    break
            except BaseException as error:  # a job that cannot be sent, or a result that cannot be read
                self._dropped(worker)
                return failure(error)
            else:
                self._returned(worker)
                return result
        return lost(how)

    def _taken(self, told: str) -> Worker:
        with self._changing:
            if self._idle:  # in one step, so that `__exit__` always finds it
                self._busy[worker := self._idle.pop()] = told
                return worker
        worker = Worker()
        with self._changing:
            self._busy[worker] = told
            if self._ended:
                worker.terminate()
        return worker

    def _returned(self, worker: Worker) -> None:
        with self._changing:
            self._busy.pop(worker, None)
            self._idle.append(worker)

    def _dropped(self, worker: Worker | None) -> str:
        """How a worker ended that no other job may have."""
        if worker is None:
            return "it could not be started"
        with self._changing:
            self._busy.pop(worker, None)
        return worker.end()
