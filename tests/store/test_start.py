"""What is wrong with a store or with the machine is told in one line when a command starts."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from audio_mu.errors import UserError
from audio_mu.store.connect import open_store
from audio_mu.store.links import where_to_look
from tests.commands import ROOT


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        (
            "MLFLOW_EXPERIMENT_NAME",
            "gone",
            r"experiment 'gone' \(\d+\).*is deleted: run `mlflow exp",
        ),
        ("MLFLOW_EXPERIMENT_ID", "0", r"experiment 'Default' \(0\).*is deleted"),
        ("MLFLOW_EXPERIMENT_ID", "99", r"MLFLOW_EXPERIMENT_ID='99': this store has no such experiment \(.*kept"),
        ("MLFLOW_EXPERIMENT_ID", "x'; drop", "this store has no such experiment"),
    ],
)
def test_an_experiment_that_cannot_be_written(
    database: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    """Catches a traceback after an hour of features, and a line about the MLflow version."""
    client = open_store().client
    client.create_experiment("kept")
    for number in (client.create_experiment("gone"), "0"):
        client.delete_experiment(number)
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=told):
        open_store()
    monkeypatch.delenv(variable)
    with pytest.raises(UserError, match="'Default'"):  # the one that is taken where none is named
        open_store()


def test_a_registry_elsewhere_is_refused(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches models in another store than their ledger, and a setting that is overridden without a word."""
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{database}?timeout=60")
    open_store()
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "postgresql://me:word@host/db")
    with pytest.raises(UserError, match=r"MLFLOW_REGISTRY_URI='postgresql://me:\*\*\*@host/db' is another store"):
        open_store()


def test_a_store_locked_at_the_start_is_waited_for(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a command that gives up before the stated time because its client was made without patience."""
    own = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{database}?timeout=1"}
    held, script = (
        threading.Event(),
        [sys.executable, "-c", "from audio_mu.store.connect import open_store; open_store()"],
    )

    def hold() -> None:
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            held.set()
            time.sleep(25)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    done = subprocess.run(
        script, capture_output=True, text=True, check=False, cwd=database.parent, timeout=300, env=own
    )
    thread.join()
    assert done.returncode == 0, done.stderr
    assert "the tracking store is busy, waiting up to 120 s" in done.stdout


def test_a_run_of_another_store(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches MLflow's traceback where `mlflow run` of an address has a relative MLFLOW_TRACKING_URI."""
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(UserError, match=r"has no such run: .* give MLFLOW_TRACKING_URI as a whole path"):
        open_store()


def test_the_ui_that_is_named_shows_this_store(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches `make ui` told where the Makefile is another's or shows another database, and an `mlflow` not on PATH."""
    store = open_store()
    server = f"server --backend-store-uri sqlite:///{database}`"
    assert where_to_look(store).startswith(f"start the UI with `mlflow {server}")
    (tmp_path / "Makefile").write_text("ui:\n\techo of another project\n")
    assert where_to_look(store).startswith(f"start the UI with `mlflow {server}")
    with monkeypatch.context() as patch:  # called by its path, in an environment that is not activated
        patch.setenv("PATH", "/usr/bin:/bin")
        assert where_to_look(store).startswith(f"start the UI with `{sys.executable} -m mlflow {server}")
    for name in ("Makefile", "MLproject"):
        shutil.copy(ROOT / name, tmp_path / name)
    assert where_to_look(store).startswith("start the UI with `make ui`, then open http://127.0.0.1:5000/#/exp")
