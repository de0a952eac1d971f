"""Another writer in the way is waited for, but not for ever."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from audio_mu.store import faults
from audio_mu.store.connect import open_store
from audio_mu.store.faults import Patient, explain
from audio_mu.store.runs import lone_run


def test_a_locked_store_is_waited_for(database: Path) -> None:
    """Catches work lost because another program held the database for a while."""
    store = open_store()
    store.client._client.get_experiment("0")

    def hold() -> None:
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            held.set()
            time.sleep(2)

    held = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with lone_run(store, "train", "seed", "x", {}) as run:
        run.metrics({"a": 1.0})
    thread.join()
    assert store.client.get_run(run.id).info.status == "FINISHED"


def test_patience_ends_in_one_line(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an endless wait for a lock, and no wait at all beyond the database's own."""

    class Client:
        calls = 0

        def write(self) -> str:
            self.calls += 1
            with closing(sqlite3.connect(database, timeout=0)) as own:
                return own.execute("BEGIN IMMEDIATE") and "written"

    client = Client()
    patient = Patient(client)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        patient.patience = 1.0
        with pytest.raises(sqlite3.OperationalError) as raised:
            patient.write()
        assert client.calls > 1
        assert "stays locked by another program" in explain(raised.value)
        patient.patience = 30.0
        release = threading.Event()
        threading.Timer(0.5, release.set).start()
        release.wait()
        other.execute("ROLLBACK")
    assert patient.write() == "written"


def test_a_silent_server_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches four minutes without a word while the database behind a server is away."""

    class Client:
        tracking_uri = "http://127.0.0.1:1"

        def read(self, seconds: float) -> str:
            time.sleep(seconds)
            return "read"

    monkeypatch.setattr(faults, "SECONDS_UNTOLD", 0.2)
    assert Patient(Client()).read(0.0) == "read"
    time.sleep(0.4)
    assert capsys.readouterr().out == ""
    assert Patient(Client()).read(1.0) == "read"
    assert capsys.readouterr().out.count("the tracking server has not answered") == 1
