"""Runs end whatever happens to their work, and say which code made them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from sqlalchemy import event

from audio_mu.store import runs
from audio_mu.store.connect import open_store
from audio_mu.store.faults import connections_in_use
from audio_mu.store.runs import code_tags, lone_run


def engine_of(uri: str):
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore._get_or_create_engine(uri)


def test_an_interrupted_transaction_does_not_lock_its_own_store(database: Path) -> None:
    """Catches a run left RUNNING because Ctrl-C broke off a write, which then locks the database against its end."""
    store = open_store()
    run = lone_run(store, "train", "seed", "x", {})
    with pytest.raises(KeyboardInterrupt), run:
        broken_off = engine_of(store.uri).raw_connection()
        broken_off.cursor().execute("BEGIN IMMEDIATE")
        raise KeyboardInterrupt
    assert store.client.get_run(run.id).info.status == "KILLED"
    broken_off.close()


def test_an_interrupt_within_mlflows_own_write(database: Path) -> None:
    """Catches locks that MLflow's session holds on after an interrupt, and connections that pass for used for ever."""
    before, store = dict(connections_in_use()), open_store()
    assert connections_in_use() == before
    run = lone_run(store, "train", "seed", "x", {})

    def interrupt(_connection, _cursor, statement: str, *_rest) -> None:
        if statement.startswith("INSERT INTO metrics"):
            raise KeyboardInterrupt

    event.listen(engine_of(store.uri), "after_cursor_execute", interrupt)
    with pytest.raises(KeyboardInterrupt) as held, run:
        run.metrics({"a": 1.0})
    event.remove(engine_of(store.uri), "after_cursor_execute", interrupt)
    assert held  # with the frames in which the session is
    assert connections_in_use() == before
    assert store.client.get_run(run.id).info.status == "KILLED"
    run.metrics({"a": 1.0})


def test_the_commit_is_that_of_this_project(tmp_path: Path) -> None:
    """Catches the commit of somebody else's repository in whose ignored .venv the package is installed."""
    assert code_tags(Path(runs.__file__)).keys() <= {"git_commit", "git_dirty"}

    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    own, installed = tmp_path / "runs.py", tmp_path / ".venv" / "audio_mu" / "runs.py"
    installed.parent.mkdir(parents=True)
    for file in (own, installed):
        file.write_text("")
    assert code_tags(own.parent / "none.py") == {}
    git("init")
    (tmp_path / ".gitignore").write_text(".venv\n")
    git("add", "runs.py")
    git("commit", "-m", "their own")
    assert code_tags(own) == {"git_commit": git("rev-parse", "HEAD").strip(), "git_dirty": "false"}
    assert code_tags(installed) == {}
