"""What a model was trained on is known from the moment it is in the store, whatever becomes of its run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from audio_mu.compute.pool import LocalEngine
from audio_mu.config import Config
from audio_mu.erasure.descent import Descent
from audio_mu.requests.ledger import COLUMNS, Entry
from audio_mu.store import removal
from audio_mu.store.connect import open_store
from audio_mu.workflows import train as train_module
from audio_mu.workflows import unlearn as unlearn_module
from audio_mu.workflows.attack import attack
from audio_mu.workflows.data import load_data

OWN = """
from torch import nn


class Flat(nn.Sequential):
    def __init__(self, n_classes, input_shape):
        super().__init__(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1], n_classes))
"""


class Killed(BaseException):
    """Stands for the end of the process."""


def test_the_model_of_a_killed_run_is_found(
    tmp_path: Path, small_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches the weights of a run that was killed once they were logged, of which no erasure knows what they saw."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    config = Config.from_text(
        {
            "data_dir": str(small_digits), "architecture": f"{tmp_path}/own.py:Flat", "seeds": "40", "n_epochs": "1",
            "n_attack_models": "1", "workers": "1", "forget_percentage": "30", "methods": "naive",
        }
    )  # fmt: skip
    store, data = open_store(), load_data(config)
    recordings = pd.DataFrame([data.clips.identity[i] for i in data.split.train], columns=list(COLUMNS))
    entry = Entry("", {"request_hash": "1"}, recordings, recordings[:0], {})

    def kill_once_logged(module, work) -> None:
        log = module.log_servable

        def killed(*arguments):
            log(*arguments)
            raise Killed

        with monkeypatch.context() as patch, LocalEngine(1) as engine, pytest.raises(Killed):
            patch.setattr(module, "log_servable", killed)
            work(config, store, engine)

    def left_by(stage: str) -> list[bool | None]:
        runs = {run.id: run for run in removal.every_run(store)}
        left = [
            run.id for run in runs.values() if run.models and run.status != "FINISHED" and run.tags["stage"] == stage
        ]
        return [Descent(runs, entry).holds(id_) for id_ in left]

    kill_once_logged(train_module, train_module.train)
    assert left_by("train") == [True]
    with LocalEngine(1) as engine:
        train_module.train(config, store, engine)
        attack(config, store, engine)
    kill_once_logged(unlearn_module, unlearn_module.unlearn)
    assert left_by("unlearn") == [True]
