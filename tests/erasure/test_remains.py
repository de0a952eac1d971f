"""What an erasure leaves is told."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from audio_mu.config import Config
from audio_mu.erasure.find import Search
from audio_mu.erasure.remains import remaining
from audio_mu.requests.ledger import COLUMNS, Entry
from audio_mu.store.connect import open_store
from audio_mu.store.runs import open_run


def test_a_run_that_goes_on_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an erasure that is called whole while a training still writes what it has seen."""
    monkeypatch.chdir(tmp_path)
    store = open_store()
    config = Config.from_text({})
    tags = {"dataset": config.data.dataset, "request": "speaker-1", "request_hash": "1"}
    entry = Entry("", tags, pd.DataFrame(columns=list(COLUMNS)), pd.DataFrame(columns=list(COLUMNS)), {})

    def told() -> list[str]:
        return [part.what for part in remaining(config.data, Search(store, entry)) if "ended" in part.why]

    with open_run(store, "train", "train digits", {}, {}, {}):
        assert told() == ["1 run without an end (train digits)"]
    assert told() == []
