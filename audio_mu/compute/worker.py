"""The life of a worker process. Light to import: what a job needs is read with the job, where its failing is told."""

from __future__ import annotations

import atexit
import gc
import os
import signal
from multiprocessing.connection import Connection
from typing import Any

from audio_mu.compute.attempt import attempt, failure
from audio_mu.system.processes import when_orphaned
from audio_mu.system.tuning import keep_freed_memory


def serve(connection: Connection, parent: int) -> None:
    """Do what comes through the connection, (function, job), until it is closed.

    Each is answered twice: None once it is read, or the failure to read it and nothing else; then its result.
    """
    _prepare(parent)
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
        _answer(connection, attempt(work, job))
        del work, job


def _answer(connection: Connection, result: Any) -> None:
    try:
        connection.send(result)
    except OSError:  # nobody listens any more
        return
    except BaseException as error:  # what a method of the user's own has recorded
        connection.send(failure(error))


def _prepare(parent: int) -> None:
    """Ctrl-C is the parent's to handle, no worker outlives it, and memory is kept between batches."""
    keep_freed_memory()
    atexit.register(gc.freeze)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    when_orphaned(parent, lambda: os._exit(1))
