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


def known(state: str, *hashes: str) -> ledger_file.Known:
    return ledger_file.Known("request", "words", state, len(hashes), frozenset(hashes))


def test_what_a_request_is_given_later_is_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a copy, entered for good after the answer, that a restored store trains on without a word."""
    file = tmp_path / "ledger.jsonl"
    monkeypatch.setenv("AUDIO_MU_LEDGER", str(file))
    assert ledger_file.keep([known("answered", "a")]) == ()
    assert ledger_file.keep([known("answered", "a", "copy")]) == ()
    assert ledger_file.keep([known("answered", "a", "copy")]) == ()
    assert len(file.read_text().splitlines()) == 2
    (missing,) = ledger_file.keep([known("answered", "a")])
    assert missing.hashes == {"copy"}
    assert ledger_file.keep([known("erased", "a", "copy", "held out")]) == ()
    assert [missing.hashes for missing in ledger_file.keep([])] == [{"a", "copy"}]


def test_a_request_that_was_erased_too_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a restored store whose user answers a request again and does not know that it was erased."""
    monkeypatch.setenv("AUDIO_MU_LEDGER", str(tmp_path / "ledger.jsonl"))
    ledger_file.keep([known("erased", "a")])
    ledger_file.keep([])
    assert ", and erased, and this store does not know it" in capsys.readouterr().out
