"""A write that a killed process has left half done is undone as a whole, or told; never shown in part."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.entities import Metric

from audio_mu.errors import UserError
from audio_mu.store.connect import open_store
from audio_mu.store.private import close_connections

SQL = {
    "update": "update latest_metrics set value = 99",
    "delete": "delete from latest_metrics where rowid % 2",
    "insert": "insert into latest_metrics select key || 'x', value, timestamp, step, is_nan, run_uuid "
    "from latest_metrics",
}


@pytest.fixture(scope="module")
def figures(empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of ten runs with 60 figures each."""
    path = Path(shutil.copy(empty, tmp_path_factory.mktemp("figures") / "mlflow.db"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        store = open_store()
        for _ in range(10):
            run = store.client.create_run("0").info.run_id
            store.client.log_batch(run, [Metric(f"figure/{i}", i, 0, 0) for i in range(60)])
            store.client.set_terminated(run)
    close_connections(f"sqlite:///{path}")
    return path


@pytest.fixture
def killed(figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """The store as a process leaves it that was killed in a write, some pages of which had reached the file."""
    writing = Path(shutil.copy(figures, tmp_path / "writing.db"))
    with closing(sqlite3.connect(writing, isolation_level=None)) as database:
        if request.param == "wal":
            database.execute("pragma journal_mode = wal")
        database.execute("pragma cache_size = 3")
        database.execute("begin immediate")
        database.execute(SQL[request.param] if request.param in SQL else SQL["update"])
        if request.param == "wal":
            database.execute("commit")
            database.execute("begin immediate")
            database.execute("update latest_metrics set value = 100")
            database.execute("commit")
        for suffix in ("", "-journal", "-wal"):
            if (left := writing.with_name(writing.name + suffix)).exists():
                shutil.copy(left, tmp_path / f"mlflow.db{suffix}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mlflow.db"


def values(file: Path) -> set[float]:
    with closing(sqlite3.connect(file)) as database:
        return {value for (value,) in database.execute("select value from latest_metrics")}


@pytest.mark.parametrize("killed", SQL, indirect=True)
def test_a_whole_journal_is_used(killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a refusal of what SQLite mends by itself."""
    journal = killed.with_name("mlflow.db-journal")
    assert journal.stat().st_size > 2_000
    open_store()
    assert "a write was broken off; it is undone" in capsys.readouterr().out
    assert values(killed) == set(map(float, range(60)))
    assert not journal.exists()


CUT = r"mlflow\.db-journal' is cut.*restore both from a backup, or move"
HALF = r"holds half of a write that was broken off \(.*restore it from a backup"


@pytest.mark.parametrize("killed", SQL, indirect=True)
@pytest.mark.parametrize("cut", [0.7, 0.4, 600, 300])
def test_a_cut_journal_is_told_and_kept(killed: Path, cut: float) -> None:
    """Catches a half-done write that SQLite undoes in part: figures of two commands in one report."""
    journal = killed.with_name("mlflow.db-journal")
    os.truncate(journal, int(cut if cut > 1 else cut * journal.stat().st_size))
    before = killed.read_bytes(), journal.read_bytes()
    for _ in range(2):  # it is told until somebody does something about it
        with pytest.raises(UserError, match=f"{CUT}|{HALF}"):  # the second, where it was cut between two of its parts
            open_store()
    assert (killed.read_bytes(), journal.read_bytes()) == before
    journal.rename(killed.with_name("away"))


@pytest.mark.parametrize("killed", ["insert", "delete"], indirect=True)
def test_an_emptied_journal_is_told_by_the_damage(killed: Path) -> None:
    """Catches a report from tables and indexes of different states."""
    os.truncate(killed.with_name("mlflow.db-journal"), 0)
    before = killed.read_bytes()
    for _ in range(2):
        with pytest.raises(UserError, match=HALF):
            open_store()
    assert killed.read_bytes() == before
    assert sorted(path.name for path in killed.parent.glob(".checked*")) == []


def test_an_empty_journal_beside_a_whole_store(database: Path) -> None:
    """Catches a refusal after a kill between the journal's making and the first change."""
    (database.with_name("mlflow.db-journal")).touch()
    open_store()


@pytest.mark.parametrize("killed", ["wal"], indirect=True)
@pytest.mark.parametrize("cut", [1.0, 0.9, 0.6, 0.3, 40])
def test_a_cut_wal_gives_whole_writes_alone(killed: Path, cut: float) -> None:
    """Catches a store in WAL mode that shows half of a write; SQLite itself takes the writes before the cut."""
    wal = killed.with_name("mlflow.db-wal")
    os.truncate(wal, int(cut if cut > 1 else cut * wal.stat().st_size))
    open_store()
    assert values(killed) in ({100.0}, {99.0}, set(map(float, range(60))))
