"""Runs end whatever happens to their work, and say which code made them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import PoolProxiedConnection

from audio_mu.store import runs
from audio_mu.store.connect import open_store
from audio_mu.store.runs import code_tags, lone_run


def engine_of(uri: str):
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore._get_or_create_engine(uri)


@pytest.mark.parametrize("is_closed", [False, True])
@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "select * from alembic_version"])
def test_an_interrupted_transaction_does_not_lock_its_own_store(
    database: Path, statement: str, is_closed: bool
) -> None:
    """Catches a run left RUNNING because Ctrl-C broke off a write or a read, which then locks the database for it."""

    def use(connection: PoolProxiedConnection) -> None:
        cursor = connection.cursor()
        cursor.execute(statement)
        if is_closed:
            connection.invalidate()
        raise KeyboardInterrupt

    run = lone_run(open_store(), "train", "seed", "x", {})
    connection = engine_of(run.store.uri).raw_connection()
    with pytest.raises(KeyboardInterrupt), run:
        use(connection)
    assert run.store.client.get_run(run.id).info.status == "KILLED"


def interrupted(work: Callable[[], None], at: int = -1) -> int:
    """Do some work with an interrupt at one of its lines; return how many lines it took."""
    lines = 0

    def trace(*_: object) -> Callable:
        nonlocal lines
        lines += 1
        if lines == at:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    return lines


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_line_of_a_write(database: Path) -> None:
    """Catches locks held by what an interrupt leaves: sessions, cursors, tracebacks, closed connections."""
    store = open_store()
    lines = interrupted(lambda: lone_run(store, "train", "seed", "whole", {}).metrics({"a": 1.0}))
    for at in range(lines // 50, lines, lines // 12):
        run = lone_run(store, "train", "seed", f"until line {at}", {})
        try:
            with run:
                interrupted(lambda: lone_run(store, "train", "seed", "broken off", {}).metrics({"a": 1.0}), at)
            expected = "FINISHED"  # of an interrupt that comes while something is destroyed, Python only prints a word
        except BaseException:
            expected = "KILLED"
        assert store.client.get_run(run.id).info.status == expected


def test_an_interrupt_that_mlflow_wraps_is_one(database: Path) -> None:
    """Catches a run that FAILED, and a traceback, because the interrupt broke off the closing of a session."""
    run = lone_run(open_store(), "train", "seed", "x", {})

    def write() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise ValueError("close() can't be called here")

    with pytest.raises(ValueError, match="close"), run:
        write()
    assert run.store.client.get_run(run.id).info.status == "KILLED"


def test_an_error_fails_the_run(database: Path) -> None:
    """Catches errors that pass for interrupts, `exit()` among them, and a FAILED run without a reason."""
    run = lone_run(open_store(), "train", "seed", "x", {})
    with pytest.raises(ValueError, match="own"), run:
        raise ValueError("of its own")
    ended = run.store.client.get_run(run.id)
    assert (ended.info.status, ended.data.tags["failed_reason"]) == ("FAILED", "ValueError: of its own")
    run = lone_run(run.store, "train", "seed", "y", {})
    with pytest.raises(SystemExit), run:
        sys.exit("a library's")
    ended = run.store.client.get_run(run.id)
    assert (ended.info.status, ended.data.tags["failed_reason"]) == ("FAILED", "SystemExit: a library's")


def test_half_characters_are_written_out(database: Path) -> None:
    """Catches a command that dies while it writes down what others' text says, which no encoding takes."""
    half = "Zo\udcff"
    run = lone_run(open_store(), "train", "seed", half, {"made": half})
    run.tags({"set": half})
    run.params({"given": half})
    run.note(half)
    run.text("failure.txt", half)
    kept = run.store.client.get_run(run.id)
    told = {kept.info.run_name, *(kept.data.tags[key] for key in ("made", "set", "mlflow.note.content"))}
    assert told | set(kept.data.params.values()) == {r"Zo\udcff"}
    assert Path(run.address("failure.txt")).read_text() == r"Zo\udcff"


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
