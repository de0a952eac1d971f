"""A user of a container, without entry in the list of users, home or temporary folder."""

from __future__ import annotations

import getpass
import pwd
import tempfile

import pytest

from audio_mu.cli import run_entry_point
from audio_mu.system.user import check_user


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the system does not know."""

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)


def test_a_user_without_a_name_gets_one(nobody: None, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """Catches torch's traceback after the training, when it names a folder for the user."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    monkeypatch.setenv("LOGNAME", "")  # so that it is gone afterwards
    check_user()
    assert getpass.getuser().startswith("user-")


def test_no_home_is_told(nobody: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches MLflow's traceback while it is imported."""
    monkeypatch.delenv("HOME")
    assert run_entry_point("compare", []) == 2
    assert capsys.readouterr().err.startswith("error: this user has no home folder: set HOME")


def test_no_temporary_folder_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a traceback where /tmp is full or not to be written."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nonexistent"])
    assert run_entry_point("compare", []) == 2
    assert capsys.readouterr().err.startswith("error: there is no usable temporary folder: set TMPDIR")
