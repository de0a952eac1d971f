"""The lock of the registry: one command at a time reads the ledger, checks, registers and enters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from audio_mu.progress import say_once
from audio_mu.store.handle import Store
from audio_mu.system.hashing import sha256
from audio_mu.system.writing import locked

ADVISORY = int(sha256("audio-mu registry")[:15], 16)
"""The number of PostgreSQL's lock, the same in every version."""
_held: set[str] = set()


@contextmanager
def registry_locked(store: Store) -> Iterator[None]:
    """Hold the lock of the store's registry; within it, once more is free.

    A file beside an SQLite database, an advisory lock of a PostgreSQL. A tracking server has no lock for its clients:
    there it is said that nothing else may register meanwhile.
    """
    if store.uri in _held:
        yield
        return
    _held.add(store.uri)
    try:
        with _lock(store):
            yield
    finally:
        _held.discard(store.uri)


@contextmanager
def _lock(store: Store) -> Iterator[None]:
    if (file := store.database) is not None:
        with locked(file.with_name(f"{file.name}.registry")):
            yield
    elif _backend(store.uri) == "postgresql":
        engine = create_engine(store.uri, poolclass=NullPool)  # the lock ends with its connection, killed or not
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("select pg_advisory_lock(:number)"), {"number": ADVISORY})
            try:
                yield
            finally:
                connection.execute(text("select pg_advisory_unlock(:number)"), {"number": ADVISORY})
    else:
        say_once("note: this store has no lock that audio-mu can hold: let no other command register meanwhile")
        yield


def _backend(uri: str) -> str:
    try:
        return make_url(uri).get_backend_name()
    except ArgumentError:
        return ""
