"""The attack stage: one set of attack models per set of base models, reused, and and another for another feature."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Command
from tests.finished_store import Results


@pytest.fixture(scope="module")
def attacked(entry: Command, small_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A store with two base models and one attack model."""
    folder = tmp_path_factory.mktemp("attacked")
    for name, more in (("train", {"n_epochs": "1"}), ("attack", {"n_attack_models": "1"})):
        done = entry(name, folder, seeds="40,41", data_dir=str(small_digits), **more)
        assert done.returncode == 0, done.stdout + done.stderr
    return Results(folder)


def test_members_and_nonmembers_are_balanced(attacked: Results) -> None:
    """Catches attack data in which guessing `member` is right more often than not."""
    (run,) = attacked.runs("tags.stage = 'attack'")
    rows = pd.read_csv(attacked.artifact(run, "mia_all_balanced.csv"))
    assert set(rows["label"]) == {0, 1}
    assert rows["label"].mean() == 0.5
    assert run.data.params["n_attack_models"] == "1"
    assert not {"methods", "forget", "n_epoch_repair"} & set(run.data.params)


def test_the_same_attack_is_reused_and_another_is_not(attacked: Results, entry: Command, small_digits: Path) -> None:
    """Catches attack models that are trained again for nothing, or kept though another feature was asked for."""
    data = {"seeds": "40,41", "data_dir": str(small_digits)}
    done = entry("attack", attacked.folder, **data, n_attack_models="1")
    assert "attack: reusing the attack models of run" in done.stdout
    done = entry("attack", attacked.folder, **data, n_attack_models="1", attack_feature="loss")
    assert done.returncode == 0
    assert "reusing" not in done.stdout
