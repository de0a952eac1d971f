"""Atomic writing and locks."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from audio_mu.errors import UserError
from audio_mu.system import writing


def test_an_interrupted_folder_leaves_what_was_there(tmp_path: Path) -> None:
    """Catches a folder that is replaced before it is whole, and temporary files left behind."""
    target = tmp_path / "cache"
    with writing.atomic_folder(target) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(RuntimeError), writing.atomic_folder(target) as folder:
        (folder / "a").write_text("new")
        raise RuntimeError
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_write_atomic_replaces_whole_files(tmp_path: Path) -> None:
    """Catches a write that truncates the old file before the new one is there."""
    path = tmp_path / "file"
    writing.write_atomic(path, "one")
    with pytest.raises(TypeError):
        writing.write_atomic(path, 3)  # type: ignore[arg-type]
    assert path.read_text() == "one"
    writing.write_atomic(path, b"two")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"two"


def test_lock_excludes(tmp_path: Path) -> None:
    """Catches a lock that two holders get at once."""
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with writing.locked(tmp_path / "thing"):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_planted_link_is_no_lock(tmp_path: Path) -> None:
    """Catches a traceback, and a file of another's that is opened for writing because the lock is a link to it."""
    (tmp_path / ".thing.lock").symlink_to(tmp_path / "of another")
    with (
        pytest.raises(UserError, match=r"thing\.lock' is no lock of ours but a link"),
        writing.locked(tmp_path / "thing"),
    ):
        pass
    assert not (tmp_path / "of another").exists()
