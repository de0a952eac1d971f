"""A project whose folder was moved or copied is told before any work, and its database can follow."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from audio_mu.errors import UserError
from audio_mu.store.artifacts import files_of, list_files
from audio_mu.store.connect import open_store
from audio_mu.store.handle import Store
from audio_mu.store.moved import main
from audio_mu.store.places import is_own_run
from audio_mu.store.runs import lone_run


def opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    return open_store()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A folder with a store, and a run in it."""
    folder = tmp_path / "old" / "project"
    folder.mkdir(parents=True)
    store = opened(folder, monkeypatch)
    with lone_run(store, "train", "seed", "x", {}) as run:
        run.text("losses.csv", "a\n1\n")
    return folder, run.id


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_a_moved_project(project: tuple[Path, str], how, tmp_path: Path, monkeypatch, capsys) -> None:
    """Catches a KeyError, and files of a moved or copied project that go into the old folder."""
    old, run_id = project
    new = tmp_path / "new place"
    how(old, new)
    before = sorted(old.rglob("*")) if old.exists() else []
    told = "was moved" if how is shutil.move else "was copied, and would write into the original's folder"
    with pytest.raises(UserError, match=f"{told}.*new place/mlruns/0.*python -m audio_mu.store.moved"):
        opened(new, monkeypatch)
    assert main([str(new / "mlflow.db")]) == 0
    assert "mlflow.db.before-move" in capsys.readouterr().out
    store = opened(new, monkeypatch)
    assert list_files(store, run_id) == ["losses.csv"]
    assert Path(files_of(store, run_id).uri).is_relative_to(new)
    root = store.client.get_experiment("0").artifact_location
    assert is_own_run(root, files_of(store, run_id).uri, run_id)
    assert (sorted(old.rglob("*")) if old.exists() else []) == before
    assert main([str(new / "mlflow.db")]) == 2  # nothing is left to do


def test_a_project_behind_a_link_and_files_kept_elsewhere(
    project: tuple[Path, str], tmp_path: Path, monkeypatch
) -> None:
    """Catches the refusal of a project behind a link, and of a database whose files are kept elsewhere."""
    old, run_id = project
    (tmp_path / "link").symlink_to(old)
    assert list_files(opened(tmp_path / "link", monkeypatch), run_id) == ["losses.csv"]
    shutil.move(old / "mlflow.db", tmp_path / "mlflow.db")  # the database alone, beside another store's files
    (tmp_path / "mlruns" / "0" / ("0" * 32)).mkdir(parents=True)
    assert list_files(opened(tmp_path, monkeypatch), run_id) == ["losses.csv"]
