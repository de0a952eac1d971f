"""Faults of store, disk and network: told in one line, and waited for where they pass by themselves."""

from __future__ import annotations

import errno
import gc
import os
import random
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from mlflow.tracking import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from audio_mu.errors import UserError, causes, one_line, said
from audio_mu.progress import say
from audio_mu.system.writing import DISK_FULL, TEMPORARY

Result = TypeVar("Result")
OPEN_FILES = {errno.EMFILE, errno.ENFILE}
NO_SPACE = {*DISK_FULL, errno.EROFS}
OF_MACHINE = {*NO_SPACE, *OPEN_FILES, errno.EIO, errno.ENOMEM}
"""Faults of the machine: what was to be read is none the worse."""
IN_WORDS = re.compile(r"\[Errno (\d+)\]")
"""How MLflow tells of them in an error of its own, of a download."""
UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}
STORE_MODULES = {"mlflow", "sqlalchemy", "sqlite3", "alembic", "requests", "urllib3"}
AGAIN = "then run the same command again, finished steps are kept"

TOLD = (
    (("disk is full", "disk i/o error", "no space left"), f"the tracking store's disk is full: free space, {AGAIN}"),
    (("readonly database", "read-only file system"), "the tracking store is read-only: make its file and folder "
     "writable, or set MLFLOW_TRACKING_URI to another"),
    (("database is locked",), f"the tracking store stays locked by another program: end that one, {AGAIN}"),
    (("database schema", "can't locate revision"), "the tracking store's schema is not this MLflow version's: an older "
     "store takes `mlflow db upgrade`, a newer one needs the MLflow version that made it"),
    (("file is not a database", "disk image is malformed"), "the tracking store is no SQLite database, or damaged: "
     "restore a backup, or set MLFLOW_TRACKING_URI to another"),
    (("unable to open database file",), "the tracking store's file cannot be opened: check MLFLOW_TRACKING_URI"),
    (("max retries exceeded", "connection refused", "connection aborted", "timed out", "too many 50",
      "no route to host", "network is unreachable", "could not translate host", "name or service not known",
      "unknown mysql server host",
      "name resolution", "server closed the connection"),
     f"the tracking server does not answer: see that it is up, {AGAIN}"),
)  # fmt: skip
"""What the store's errors say, and what a user is told."""

PASSING = ("database is locked", "unique constraint failed", "duplicate key value", "giving up after", "deadlock")
"""What two writers at once can meet, and one who tries again does not."""
LOCKED = ("database is locked",)
PATIENCE = 120.0  # seconds; MLflow itself waits 20 for a locked SQLite database
SECONDS_UNTOLD = 10.0
SHOWN = 160  # characters of an error
HTTP_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


def explain(error: BaseException) -> str | None:
    """One line about a fault of store, disk or network with a way out; None where the error is none of these."""
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno in OPEN_FILES:
            return f"no more files can be opened ({cause.strerror}): allow more, as by `ulimit -n 4096`, {AGAIN}"
        if isinstance(cause, OSError) and cause.errno in DISK_FULL:
            place = (
                repr(cause.filename) if cause.filename else f"the store, or below the temporary folder {_temporary()}"
            )
            return f"the disk is full while writing {place}: free space, or set TMPDIR to another folder, {AGAIN}"
        if isinstance(cause, OSError) and cause.errno in UNWRITABLE and cause.filename:
            return f"{cause.filename!r} cannot be accessed ({cause.strerror}): change its rights, {AGAIN}"
        # torch writes models through C++ and names no errno.
        if isinstance(cause, RuntimeError) and ("PytorchStreamWriter" in said(cause) or "iostream" in said(cause)):
            return (
                f"a model cannot be written, its disk or the temporary folder {_temporary()} is full or fails "
                f"({one_line(cause, SHOWN)}): free space, or set TMPDIR to another folder, {AGAIN}"
            )
        if type(cause).__module__.partition(".")[0] in STORE_MODULES:
            for signs, told in TOLD:
                if any(sign in said(cause).lower() for sign in signs):
                    return f"{told} ({one_line(cause, SHOWN)})"
    return None


def machine_fault(error: BaseException) -> int | None:
    """The system's number of the machine's fault that an error comes from; None for any other error."""
    for cause in causes(error):
        told = IN_WORDS.search(said(cause)) if not isinstance(cause, OSError) else None
        number = cause.errno if isinstance(cause, OSError) else int(told[1]) if told else None
        if number in OF_MACHINE:
            return number
    return None


def refuse_machine_fault(error: BaseException) -> None:
    """Raise `UserError` where an error that came while the store was read is the machine's fault, not the store's."""
    if (fault := machine_fault(error)) is not None:
        raise UserError(explain(error) or f"this machine does not let files be read ({os.strerror(fault)}): mend that, "
                        f"{AGAIN}") from error  # fmt: skip


def _temporary() -> Path:
    """The folder of temporary files as the user has set it: a command's own lies below that."""
    place = Path(tempfile.gettempdir())
    return place.parent if place.name.startswith(f"{TEMPORARY}.") else place


def refuse_full_temporary(needed: int) -> None:
    """Raise `UserError` where the temporary folder has less space than this, in bytes: torch aborts a process then."""
    if (free := shutil.disk_usage(tempfile.gettempdir()).free) < needed:
        raise UserError(
            f"the temporary folder {_temporary()} is full ({free / 1e6:.1f} MB free, a model takes {needed / 1e6:.1f} "
            f"there): free space, or set TMPDIR to another folder, {AGAIN}"
        )


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone afterwards. Raises `UserError` where what is written there finds no space."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except UserError:
        raise
    except Exception as error:
        fault = machine_fault(error)
        if fault not in NO_SPACE and "PytorchStreamWriter" not in said(error):
            refuse_machine_fault(error)
            raise
        why = os.strerror(fault) if fault is not None else one_line(error, SHOWN)
        raise UserError(
            f"the temporary folder {_temporary()} is full ({why}): free space, or set TMPDIR to another folder, {AGAIN}"
        ) from error


def _passes(error: Exception, signs: Sequence[str]) -> bool:
    exists = getattr(error, "error_code", "") == "RESOURCE_ALREADY_EXISTS"  # found by a constraint too, but for good
    return not exists and any(sign in said(error).lower() for sign in signs)


def patiently(call: Callable[[], Result], patience: float = PATIENCE, signs: Sequence[str] = PASSING) -> Result:
    """What a call returns, made again for so many seconds while its error has one of these signs."""
    start, told = time.monotonic(), False
    while True:
        try:
            return call()
        except Exception as error:
            waited = time.monotonic() - start
            if waited > patience or not _passes(error, signs):
                raise
            if waited > SECONDS_UNTOLD and not told:
                told = True
                say(f"the tracking store is busy, waiting up to {patience:.0f} s ({one_line(error, SHOWN)})")
            time.sleep(random.uniform(0.1, 0.5))


class Patient:
    """An MLflow client that calls again, for `PATIENCE` seconds, where another writer was in the way.

    Such a call has changed nothing in the store: its transaction was rolled back.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._is_remote = str(getattr(client, "tracking_uri", "")).startswith("http")
        self.patience = PATIENCE

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if not callable(call) or name.startswith("_"):
            return call

        @wraps(call)
        def patient(*arguments: Any, **options: Any) -> Any:
            with silence_told() if self._is_remote else nullcontext():
                return patiently(lambda: call(*arguments, **options), self.patience)

        return patient


@contextmanager
def silence_told() -> Iterator[None]:
    """Say, while a server or a database is asked, that it does not answer: MLflow asks for minutes without a word."""
    seconds = f"{SECONDS_UNTOLD:.0f} s"
    line = f"the tracking server has not answered for {seconds}: it is asked for some minutes more ({HTTP_RETRIES})"
    timer = threading.Timer(SECONDS_UNTOLD, say, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def in_a_hurry(client: MlflowClient) -> Iterator[None]:
    """Have a patient client try once: nobody waits minutes for the end of what has failed."""
    own, before = cast(Patient, client), os.environ.get(HTTP_RETRIES)
    own.patience, os.environ[HTTP_RETRIES] = 0.0, "1"
    try:
        yield
    finally:
        own.patience = PATIENCE
        os.environ.pop(HTTP_RETRIES) if before is None else os.environ.update({HTTP_RETRIES: before})


def is_interrupt(error: BaseException) -> bool:
    """Whether an interrupt is behind an error: MLflow and SQLAlchemy may raise their own on the way out of it."""
    return any(isinstance(cause, KeyboardInterrupt) for cause in causes(error))


@cache
def open_connections() -> dict[ConnectionPoolEntry, DBAPIConnection]:
    """The database connections of this process, kept up to date by SQLAlchemy's pools from now on."""
    connections: dict[ConnectionPoolEntry, DBAPIConnection] = {}
    event.listen(Pool, "connect", lambda connection, entry: connections.update({entry: connection}))
    event.listen(Pool, "close", lambda _, entry: connections.pop(entry, None))
    return connections


def drop_transactions(interrupt: BaseException) -> None:
    """Undo what an interrupt has broken off: its locks would keep the store from taking the end of its runs.

    The frames that it came through hold cursors, and with these the locks even of closed connections: its traceback
    goes.
    """
    for cause in causes(interrupt):
        if cause.__traceback__ is not None:
            cause.__traceback__.tb_next = None
            cause.__traceback__ = None
    gc.collect()
    for connection in list(open_connections().values()):
        with suppress(Exception):  # of whatever database it is
            connection.rollback()
