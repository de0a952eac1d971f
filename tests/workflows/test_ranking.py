"""The ranking over cells: what a comparison hands on to the next, on a real store."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from audio_mu.config import Config
from audio_mu.report.tables import COLUMNS
from audio_mu.store.connect import open_store
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from audio_mu.store.runs import open_run
from audio_mu.workflows.cells import CellRuns
from audio_mu.workflows.compare import _ranking


def long_table(cell: str, request: str, tow: dict[str, float]) -> pd.DataFrame:
    rows = [
        [cell, request, method, "gap/tow", value, 0.1, 2, "40 41", f"{value} {value}", 0.0, 1.0]
        for method, value in tow.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def compared(store: Store, architecture: str, cell: str, request: str, tow: dict[str, float]) -> str:
    """The ranking of one comparison of one cell."""
    config = Config.from_text({"architecture": architecture})
    runs = CellRuns(cell, request, {(method, 40): Finished(method, method, {}, {}, 0) for method in tow})
    with open_run(store, "compare", "compare", {}, {}, {}) as run:
        return _ranking(store, run, config, runs, long_table(cell, request, tow))


def test_each_comparison_hands_on_what_the_earlier_ones_ranked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches cells of other networks or requests that are lost, counted twice, or kept when they are compared anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    store = open_store()
    better_pop, better_omp = {"pop": 0.9, "omp": 0.5}, {"pop": 0.5, "omp": 0.9}
    assert compared(store, "VGGish", "a", "item-10", better_omp) == ""
    assert compared(store, "CCT", "b", "item-10", better_pop) == ""
    text = compared(store, "VGGish", "c", "item-30", better_pop)
    assert "gap/tow, 3 cells, average ranks (1 is best): pop 1.33, omp 1.67" in text
    assert "SyntheticDigits logmel CCT item-10" in text
    again = compared(store, "VGGish", "d", "item-10", better_pop)  # other settings: another cell of that request
    assert "gap/tow, 3 cells, average ranks (1 is best): pop 1.00, omp 2.00" in again
