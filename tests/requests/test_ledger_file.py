"""The ledger's file is an ordinary one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from audio_mu.errors import UserError
from audio_mu.requests import ledger_file


@pytest.mark.parametrize("name", ["/dev/full", "folder", "pipe"])
def test_what_is_no_ordinary_file_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a device that is read until the memory ends, or replaced; a pipe that is waited for."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("AUDIO_MU_LEDGER", str(tmp_path / name))
    with pytest.raises(UserError, match=f"AUDIO_MU_LEDGER=.*{name}.* is no ordinary file"):
        ledger_file.keep([])
