"""The table of sides in the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from audio_mu.config import Config
from audio_mu.requests.sides import STAGE, keep_sides, read_sides
from audio_mu.store import queries
from audio_mu.store.connect import open_store


def test_a_side_is_kept_and_only_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a side that a later or parallel command changes, and one table for two data sets, splits or seeds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    store = open_store()

    def of(**values: str) -> Config:
        return Config.from_text({"dataset": "folder", "dataset_name": "mine", "data_dir": str(tmp_path), **values})

    mine = of().data
    assert read_sides(store, mine) == {}
    assert keep_sides(store, mine, {"a": "train", "b": "test"}) == {"a": "train", "b": "test"}
    assert keep_sides(store, mine, {"a": "test", "c": "test"}) == {"a": "train", "b": "test", "c": "test"}
    assert keep_sides(store, mine, {}) == read_sides(store, mine) == {"a": "train", "b": "test", "c": "test"}
    assert len(queries.find(store, {"stage": STAGE})) == 1
    for others in (of(dataset_name="others"), of(split="study"), of(split_seed="7")):
        assert read_sides(store, others.data) == {}
        keep_sides(store, others.data, {"a": "test"})
        assert read_sides(store, others.data) == {"a": "test"}
    assert len(queries.find(store, {"stage": STAGE})) == 4
