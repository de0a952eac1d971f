"""A store that is locked, read-only, newer, damaged or silent, and runs whose process is gone."""

from __future__ import annotations

import platform
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from audio_mu.errors import UserError
from audio_mu.store.artifacts import files_of
from audio_mu.store.connect import open_store
from audio_mu.system import processes
from tests.conftest import Command
from tests.mounts import small_disk
from tests.servers import free_port


@pytest.fixture
def alive() -> Iterator[subprocess.Popen]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are told apart through /proc")
def test_only_runs_of_dead_processes_are_ended(database: Path, alive: subprocess.Popen) -> None:
    """Catches a live run marked KILLED, and a dead one that stays RUNNING for ever."""
    store = open_store()
    host, started = platform.node(), processes.since(alive.pid)
    dead = str(2**22 + 1)
    tags = {
        "alive": {"host": host, "pid": str(alive.pid), "pid_started": started},
        "dead": {"host": host, "pid": dead, "pid_started": started},
        "on a system that tells no start": {"host": host, "pid": dead},
        "number given to another": {"host": host, "pid": str(alive.pid), "pid_started": f"1{started}"},
        "another host's": {"host": "elsewhere", "pid": dead, "pid_started": started},
        "not ours": {},
    }
    made = {name: store.client.create_run("0", tags=own, run_name=name) for name, own in tags.items()}
    runs = {name: run.info.run_id for name, run in made.items()}
    stray = files_of(store, runs["dead"]).folder / f".x.{dead}-{started}.tmp"
    stray.parent.mkdir(parents=True)
    stray.touch()
    open_store()
    status = {name: store.client.get_run(run).info.status for name, run in runs.items()}
    killed = {name for name, how in status.items() if how == "KILLED"}
    assert killed == {"dead", "on a system that tells no start", "number given to another"}
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


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are told apart through /proc")
def test_a_run_of_mlflow_run_before_our_code(database: Path) -> None:
    """Catches the run of a live `mlflow run` ended while it still prepares, and one that was killed left RUNNING."""
    maker = subprocess.Popen([sys.executable, "-c", OPENED, str(database)], stdout=subprocess.PIPE, text=True)
    try:
        run_id = maker.stdout.readline().strip()
        store = open_store()
        assert store.client.get_run(run_id).info.status == "RUNNING"
    finally:
        maker.kill()
        maker.wait()
    open_store()
    assert store.client.get_run(run_id).info.status == "KILLED"


def test_a_newer_schema_is_told(database: Path) -> None:
    """Catches a traceback, or advice that fits an older store only."""
    with closing(sqlite3.connect(database)) as own, own:
        own.execute("update alembic_version set version_num = 'ffffffffffff'")
    content = database.read_bytes()
    with pytest.raises(UserError, match=r"schema is not this MLflow version's.*newer one.*ffffffffffff"):
        open_store()
    assert database.read_bytes() == content


def test_what_is_no_database_is_told_and_kept(database: Path) -> None:
    """Catches a user's file that is overwritten because it is no store."""
    database.write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match="no SQLite database"):
        open_store()
    assert database.read_bytes() == b"no database" * 100


def test_a_half_made_database_is_made_anew(database: Path) -> None:
    """Catches a store that nothing can open after a kill while MLflow made its tables; and others being removed."""
    with closing(sqlite3.connect(database)) as own, own:
        own.execute("drop table runs")
        own.execute("update alembic_version set version_num = '451aebb31d03'")
    store = open_store()
    assert store.client.get_experiment("0").name == "Default"
    with closing(sqlite3.connect(database)) as own, own:
        own.execute("insert into registered_models (name) values ('of a user')")
        own.execute("drop table runs")
        own.execute("update alembic_version set version_num = '451aebb31d03'")
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    _tracking_store_registry._get_store_with_resolved_uri.cache_clear()
    with pytest.raises(UserError):
        open_store()
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


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_a_database_that_does_not_answer(
    host: str, database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches minutes without a line, and the question whether nothing at all is a store of this MLflow version."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://u:word@{host}:{free_port()}/x")
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 0)
    with pytest.raises(UserError, match=r"does not answer.*: see that") as raised:
        open_store()
    assert "does not answer" in capsys.readouterr().out
    assert "of this MLflow version" not in str(raised.value)


@pytest.mark.parametrize("variable", ["MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"])
def test_an_experiment_of_another_encoding(database: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Catches the store's address blamed for an experiment's name."""
    monkeypatch.setenv(variable, "M\udcfcller")
    with pytest.raises(UserError, match=rf"^{variable}=b'M\\xfcller' is not valid UTF-8: set it to another$"):
        open_store()
