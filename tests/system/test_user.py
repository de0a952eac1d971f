"""A user of a container, without entry in the list of users, home or temporary folder."""

from __future__ import annotations

import getpass
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

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


UNKNOWN = """
import pwd, sys, tempfile
def unknown(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = unknown
if sys.argv[1] == "no temporary folder":
    tempfile._candidate_tempdir_list = lambda: ["/nonexistent"]
from audio_mu.cli import run_entry_point
sys.exit(run_entry_point("compare", []))
"""


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("no home", "error: this user has no home folder: set HOME"),
        ("no temporary folder", "error: there is no usable temporary folder: set TMPDIR"),
    ],
)
def test_what_a_container_lacks_is_told(what: str, told: str, tmp_path: Path) -> None:
    """Catches MLflow's traceback while it is imported, and one where /tmp is full or not to be written."""
    own = {name: value for name, value in os.environ.items() if name != "HOME"}
    own |= {"HOME": str(tmp_path)} if what != "no home" else {}
    done = subprocess.run(
        [sys.executable, "-c", UNKNOWN, what], capture_output=True, text=True, check=False, cwd=tmp_path, env=own
    )
    assert (done.returncode, done.stderr.startswith(told)) == (2, True), done.stderr
