"""The registry's lock in a PostgreSQL, and no lock behind a server."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from sqlalchemy import create_engine, text

from audio_mu.store.handle import Store
from audio_mu.store.locks import ADVISORY, registry_locked
from tests.faults.cluster import postgresql


@pytest.fixture
def database() -> Iterator[str]:
    if not list(Path("/usr/lib/postgresql").glob("*/bin")) or (os.getuid() == 0 and not shutil.which("setpriv")):
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg2", reason="requirements-cluster.txt is not installed")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the server runs as another user
        with postgresql(Path(folder) / "server") as uri:
            yield uri


def test_one_command_at_a_time_holds_the_registry_of_a_postgresql(database: str) -> None:
    """Catches two commands that register at once in a shared database, and a lock that an error leaves behind."""
    store, other = Store(Mock(), "0", database), create_engine(database)

    def is_free() -> bool:
        with other.connect() as connection:
            if got := connection.execute(text("select pg_try_advisory_lock(:n)"), {"n": ADVISORY}).scalar():
                connection.execute(text("select pg_advisory_unlock(:n)"), {"n": ADVISORY})
            return bool(got)

    with registry_locked(store), registry_locked(store):
        assert not is_free()
    assert is_free()
    with pytest.raises(KeyboardInterrupt), registry_locked(store):
        raise KeyboardInterrupt
    assert is_free()
    other.dispose()


def test_a_server_has_no_lock_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a promise that nobody keeps."""
    with registry_locked(Store(Mock(), "0", "http://127.0.0.1:5000")):
        assert "this store has no lock that audio-mu can hold" in capsys.readouterr().out
