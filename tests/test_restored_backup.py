"""A backup of the store that was made before a request was answered, and the ledger's file, which knows the request."""

from __future__ import annotations

from pathlib import Path

import pytest

from audio_mu.errors import UserError
from tests.answered import Answered

REQUEST = {"forget": "speaker", "methods": "naive", "register": "naive"}
UNKNOWN = "this store does not know it"


@pytest.fixture
def restored(answered_once: tuple[Answered, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answered:
    """A store in which p1 is answered, as it was before p2 was."""
    made, backup = answered_once
    made.restore(backup)
    monkeypatch.setenv("AUDIO_MU_LEDGER", str(tmp_path / "ledger.jsonl"))
    made.answer("p2")
    made.restore(backup)
    return made


def test_nobody_whom_the_file_knows_is_trained_on(restored: Answered) -> None:
    """Catches a restored store in which the next request puts models into service that hold the person before."""
    with pytest.raises(UserError, match=r"this store does not know \w{8}: answer these again, or run"):
        restored.run("unlearn", forget_speakers="p3", **REQUEST)
    assert UNKNOWN in restored.run("train")
    gone = restored.ids("p1") | restored.ids("p2")
    base = restored.runs(stage="train", role="seed")[-1]
    assert not restored.trained(base) & gone
    restored.run("attack")
    assert UNKNOWN in restored.run("unlearn", forget_speakers="p3", **REQUEST)
    answer = restored.runs(stage="unlearn", role="method", method="naive")[-1]
    assert restored.trained(answer)
    assert not restored.trained(answer) & (gone | restored.ids("p3"))


def test_the_request_is_answered_again(restored: Answered) -> None:
    """Catches a person who cannot be answered again as the file bars the recordings, or whose answer the file does not
    take for the one that it knows."""
    restored.run("attack")
    assert UNKNOWN in restored.run("unlearn", forget_speakers="p2", **REQUEST)
    assert len(restored.finished_entries()) == 2
    assert UNKNOWN not in restored.run("compare")
    restored.run("attack")
    restored.run("unlearn", forget_speakers="p3", **REQUEST)
    answer = restored.runs(stage="unlearn", role="method", method="naive")[-1]
    gone = restored.ids("p1") | restored.ids("p2") | restored.ids("p3")
    assert not restored.trained(answer) & gone


def test_an_experiment_may_ignore_the_file(restored: Answered) -> None:
    """Catches `ledger=ignore` that ignores the store's entries alone."""
    restored.run("train", ledger="ignore", n_epochs="2")
    base = restored.runs(stage="train", role="seed")[-1]
    assert restored.trained(base) & restored.ids("p2")
