"""The study's figures beside ours."""

from __future__ import annotations

import pytest

from audio_mu.report.published import published, published_table
from audio_mu.unlearning import METHODS


def test_rows_are_found_by_data_network_and_request() -> None:
    """Catches percents taken for fractions, and rows of another network or request."""
    rows = published("audioMNIST", "mel", "VGGish", "item-10").set_index("method")
    assert rows.loc["naive", "forget_accuracy"] == pytest.approx(1 - 0.01466)
    assert rows.loc["pop", "mia_score"] == pytest.approx(0.04043)
    assert set(rows["version"]) == {"later"}
    assert set(published("audioMNIST", "mel", "CCT", "item-20")["version"]) == {"thesis"}
    assert published("audioMNIST", "logmel", "VGGish", "item-10").empty
    assert set(rows.index) <= {"original", *METHODS}


def test_table_leaves_out_what_was_not_published() -> None:
    """Catches empty columns, and a missing figure that is shown as a number."""
    table = published_table(published("audioMNIST", "mel", "ViT", "item-10"))
    assert list(table.columns) == ["method", "version", "act. dist. (scaled)", "JS (scaled)"]
    table = published_table(published("audioMNIST", "mel", "VGGish", "item-10"))
    assert table.set_index("method").loc["original", "forget acc"] == "–"
