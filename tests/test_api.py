"""The workflows as functions: the same store as the entry points, tables as results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from audio_mu import api
from audio_mu.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(tmp_path)
        yield tmp_path


def test_a_chain_in_a_notebook(folder: Path, small_digits: Path) -> None:
    """Catches functions that differ from the entry points, or whose tables are not what the store holds."""
    settings: dict[str, Any] = {
        "data_dir": small_digits, "seeds": [40], "n_epochs": 2, "n_epoch_repair": 1, "batch_size": 32,
        "save_models": "none", "n_attack_models": 1, "workers": 1,
    }  # fmt: skip
    trained = api.train(**settings)
    assert trained["seed"].tolist() == [40]
    assert (folder / "mlflow.db").exists()
    attacked = api.attack(**settings)
    assert len(attacked) == 1
    assert 0 <= attacked["balanced_accuracy"][0] <= 1

    table = api.unlearn(**settings, methods=["naive", "pop"], forget="class", forget_class_names=["3"])
    assert set(zip(table["method"], table["seed"])) == {(m, 40) for m in ("original", "naive", "pop")}
    assert table["method"].iloc[0] == "original"

    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    for row in table.to_dict("records"):
        stored = client.get_run(row["run_id"]).data
        assert (stored.tags["method"], stored.tags["seed"]) == (row["method"], str(row["seed"]))
        assert stored.tags["request"] == "class-3"
        assert row["test/accuracy"] == stored.metrics["test/accuracy"]
        assert not [name for name in row if name.startswith("epoch/")]

    long = api.compare(data_dir=small_digits)
    mean = long[(long["method"] == "pop") & (long["metric"] == "forget/loss")]["mean"].item()
    assert mean == pytest.approx(table.set_index("method").loc["pop", "forget/loss"])
    pd.testing.assert_frame_equal(api.attack(**settings), attacked)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"forget_pct": 30}, "did you mean .*forget_percentage"),
        ({"seeds": [40, 40]}, "seeds='40,40'"),
        ({"force": 1}, "force='1'"),
        ({"n_epochs": None}, "n_epochs=None"),
        ({"methods": ["pop", {"a": 1}]}, "methods="),
    ],
)
def test_mistakes_are_refused_in_one_line(parameters: dict[str, Any], words: str, folder: Path) -> None:
    """Catches values that Python knows and the parameters do not, and a store that is made before the check."""
    with pytest.raises(UserError, match=words) as raised:
        api.unlearn(**parameters)
    assert "\n" not in str(raised.value)
    assert not (folder / "mlflow.db").exists()
