"""The life of a worker process. Light to import: what a job needs is read with the job, where its failing is told.

On Linux workers are forked from one process, the server, which has imported the jobs' libraries once and does nothing
else. A command starts it before its own imports.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any

from audio_mu.compute.attempt import attempt, failure
from audio_mu.progress import leave_unread_streams
from audio_mu.system.processes import when_gone
from audio_mu.system.tuning import keep_freed_memory

JOBS = "audio_mu.compute.jobs"
_no_server = threading.Event()  # this process could not start one


def context() -> ForkServerContext | SpawnContext:
    """How workers are started. Forking is safe where no thread of the parent has a lock, as in the server alone."""
    forked = sys.platform == "linux" and not _no_server.is_set()
    return multiprocessing.get_context("forkserver") if forked else multiprocessing.get_context("spawn")


def start_server() -> None:
    """Start the process that workers are forked from, if there is to be one and it does not run yet.

    It runs for as long as this process, or until `end_server`. Ctrl-C is blocked in it and in all workers, which take
    over what their starter blocks: it must not reach them while they still import. It listens on a file in the folder
    for temporary files; where that is full, read-only or its name too long, workers start slowly, without it.
    """
    if isinstance(workers := context(), ForkServerContext):
        workers.set_forkserver_preload([JOBS])
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            forkserver.ensure_running()
        except OSError:
            _no_server.set()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_server() -> None:
    """End it at once, though it may still import, so that a command leaves no process behind."""
    server: Any = forkserver._forkserver  # the one place that knows its number
    if (pid := server._forkserver_pid) is not None:
        os.kill(pid, signal.SIGKILL)
        server._stop()


def serve(connection: Connection, parent: int, since: str, environment: Mapping[str, str]) -> None:
    """Do what comes through the connection, (function, job), until it is closed.

    `parent`, `since`: the command's process, see `system.processes`, and its `environment` when it starts this one.
    Each is answered twice: None once it is read, or the failure to read it and nothing else; then its result.
    """
    _prepare(parent, since, environment)
    frozen = False
    while True:
        try:
            work, job = connection.recv()
        except EOFError:
            return
        except BaseException as error:  # what the job needs cannot be imported
            connection.send(failure(error))
            continue
        connection.send(None)  # it has begun
        if not frozen:  # no search for garbage among what was imported; seldom searches would keep finished networks
            gc.freeze()
            frozen = True
        leave_unread_streams()
        _answer(connection, attempt(work, job))
        del work, job


def _answer(connection: Connection, result: Any) -> None:
    try:
        connection.send(result)
    except OSError:  # nobody listens any more
        return
    except BaseException as error:  # what a method of the user's own has recorded
        connection.send(failure(error))


def _prepare(parent: int, since: str, environment: Mapping[str, str]) -> None:
    """Ctrl-C is the parent's to handle, no worker outlives it, and memory is kept between batches."""
    os.environ.clear()
    os.environ.update(environment)
    keep_freed_memory()
    atexit.register(gc.freeze)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    when_gone(parent, since, lambda: os._exit(1))
