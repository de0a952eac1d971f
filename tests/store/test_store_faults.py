"""A store that is locked, read-only, newer, damaged or silent, and runs whose process is gone."""

from __future__ import annotations

import platform
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from audio_mu import processes
from audio_mu.errors import UserError
from tests.conftest import Command
from tests.mounts import small_disk
from tests.servers import free_port


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow creates it, which takes seconds: to be copied."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}", f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh database that the next `Store.connect` opens."""
    path = Path(shutil.copy(empty, tmp_path / "mlflow.db"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def alive() -> Iterator[subprocess.Popen]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def connect():
    from audio_mu.store.connect import open_store

    return open_store()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are told apart through /proc")
def test_only_runs_of_dead_processes_are_ended(database: Path, alive: subprocess.Popen) -> None:
    """Catches a live run marked KILLED, and a dead one that stays RUNNING for ever."""
    store = connect()
    host, started = platform.node(), processes.since(alive.pid)
    dead = str(2**22 + 1)
    tags = {
        "alive": {"host": host, "pid": str(alive.pid), "pid_started": started},
        "dead": {"host": host, "pid": dead, "pid_started": started},
        "an earlier version's": {"host": host, "pid": dead},
        "number given to another": {"host": host, "pid": str(alive.pid), "pid_started": f"1{started}"},
        "another host's": {"host": "elsewhere", "pid": dead, "pid_started": started},
        "not ours": {},
    }
    runs = {name: store._create(name, own) for name, own in tags.items()}
    stray = runs["dead"]._folder / f".x.{dead}-{started}.tmp"
    stray.parent.mkdir(parents=True)
    stray.touch()
    connect()
    status = {name: store.client.get_run(run.id).info.status for name, run in runs.items()}
    killed = {name for name, how in status.items() if how == "KILLED"}
    assert killed == {"dead", "an earlier version's", "number given to another"}
    assert set(status.values()) == {"KILLED", "RUNNING"}
    assert not stray.exists()


OPENED = """
import os, sqlite3, sys, time
from mlflow.tracking import MlflowClient
uri = "sqlite:///" + sys.argv[1]
run = MlflowClient(uri, uri).create_run("0", tags={"mlflow.source.type": "PROJECT"})
print(run.info.run_id, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are told apart through /proc")
def test_a_run_of_mlflow_run_before_our_code(database: Path) -> None:
    """Catches the run of a live `mlflow run` ended while it still prepares, and one that was killed left RUNNING."""
    maker = subprocess.Popen([sys.executable, "-c", OPENED, str(database)], stdout=subprocess.PIPE, text=True)
    try:
        run_id = maker.stdout.readline().strip()
        store = connect()
        assert store.client.get_run(run_id).info.status == "RUNNING"
    finally:
        maker.kill()
        maker.wait()
    connect()
    assert store.client.get_run(run_id).info.status == "KILLED"


def test_a_locked_store_is_waited_for(database: Path) -> None:
    """Catches work lost because another program held the database for a while."""
    store = connect()
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
    with store._create("x", {}) as run:
        run.metrics({"a": 1.0})
    thread.join()
    assert store.client.get_run(run.id).info.status == "FINISHED"


def test_an_interrupted_transaction_does_not_lock_its_own_store(database: Path) -> None:
    """Catches a run left RUNNING because Ctrl-C broke off a write, which then locks the database against its end."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = connect()
    run = store._create("x", {})
    with pytest.raises(KeyboardInterrupt), run:
        broken_off = SqlAlchemyStore._get_or_create_engine(store.uri).raw_connection()
        broken_off.cursor().execute("BEGIN IMMEDIATE")
        raise KeyboardInterrupt
    assert store.client.get_run(run.id).info.status == "KILLED"
    broken_off.close()


def test_patience_ends_in_one_line(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an endless wait for a lock, and no wait at all beyond the database's own."""
    from audio_mu.store.faults import Patient, explain

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


def test_a_newer_schema_is_told(database: Path) -> None:
    """Catches a traceback, or advice that fits an older store only."""
    with closing(sqlite3.connect(database)) as own, own:
        own.execute("update alembic_version set version_num = 'ffffffffffff'")
    content = database.read_bytes()
    with pytest.raises(UserError, match=r"schema is not this MLflow version's.*newer one.*ffffffffffff"):
        connect()
    assert database.read_bytes() == content


def test_what_is_no_database_is_told_and_kept(database: Path) -> None:
    """Catches a user's file that is overwritten because it is no store."""
    database.write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match="no SQLite database"):
        connect()
    assert database.read_bytes() == b"no database" * 100


def test_a_half_made_database_is_made_anew(database: Path) -> None:
    """Catches a store that nothing can open after a kill while MLflow made its tables; and others being removed."""
    with closing(sqlite3.connect(database)) as own, own:
        own.execute("drop table runs")
        own.execute("update alembic_version set version_num = '451aebb31d03'")
    store = connect()
    assert store.client.get_experiment("0").name == "Default"
    with closing(sqlite3.connect(database)) as own, own:
        own.execute("insert into registered_models (name) values ('of a user')")
        own.execute("drop table runs")
        own.execute("update alembic_version set version_num = '451aebb31d03'")
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    _tracking_store_registry._get_store_with_resolved_uri.cache_clear()
    with pytest.raises(UserError):
        connect()
    with closing(sqlite3.connect(database)) as own:
        assert own.execute("select name from registered_models").fetchall() == [("of a user",)]


def test_a_read_only_store_is_told(empty: Path, tmp_path: Path, entry: Command, small_digits: Path) -> None:
    """Catches a traceback where the store can be read but not written."""
    with small_disk(tmp_path / "disk", "20m") as disk:
        shutil.copy(empty, disk / "mlflow.db")
        (disk / ".mlflow.db.lock").touch()
        disk.read_only()
        done = entry("train", disk.path, data_dir=str(small_digits), seeds="40", n_epochs="1")
        assert done.returncode == 2
        assert done.stderr.strip().splitlines()[-1].startswith("error: ")
        assert "Traceback" not in done.stderr
        assert "ead-only" in done.stderr


def test_a_server_that_comes_later_is_waited_for(entry: Command, tmp_path: Path, monkeypatch) -> None:
    """Catches giving up at the first refused connection, waiting without a word, and a traceback in the end."""
    port = free_port()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    code = "from audio_mu.store.connect import open_store; open_store()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "does not answer" in done.stdout
    assert "UserError" in done.stderr
    assert "tracking server does not answer" in done.stderr.splitlines()[-1]
