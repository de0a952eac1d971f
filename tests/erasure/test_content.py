"""Under which names a store knows the recordings of a request, and what is said where it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.entities import LoggedModelOutput

from audio_mu.config import Config
from audio_mu.erasure.find import Search
from audio_mu.erasure.remains import remaining
from audio_mu.requests.ledger import COLUMNS, Entry
from audio_mu.store.connect import open_store
from audio_mu.store.handle import Store
from audio_mu.store.runs import lone_run

HASH = "f" * 64
OWN = {"dataset": "folder", "dataset_name": "mine", "request": "list-1", "request_hash": "1"}


def trained(store: Store, stage: str, name: str, ids: list[str], lists: dict[str, pd.DataFrame]) -> str:
    """A run with a model, as far as the store is concerned."""
    tags = {"dataset": "folder", "dataset_name": "other", "method": "naive"}
    with lone_run(store, stage, "seed", name, tags) as run:
        path = "logits/train.npz" if stage == "train" else "logits/remain.npz"
        run.npz(path, clip_id=np.array(ids), logits=np.zeros((len(ids), 2)))
        for list_, table in lists.items():
            run.csv(list_, table)
    model = store.client.create_logged_model(store.experiment_id, "model", source_run_id=run.id)
    store.client.log_outputs(run.id, [LoggedModelOutput(model.model_id, 0)])
    return run.id


def test_a_model_whose_lists_do_not_tell_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a prototype of an earlier version that passes for one that has not seen the person."""
    monkeypatch.chdir(tmp_path)
    store, ids = open_store(), ["b/1.wav", "b/2.wav"]
    bare = pd.DataFrame({"clip_id": ids})
    hashed = bare.assign(audio_hash=[HASH, "0" * 64])
    runs = {
        "holds": trained(store, "train", "holds", ids, {"losses.csv": hashed}),
        "free": trained(
            store, "unlearn", "free", ids[1:], {"losses/remain.csv": hashed[1:], "request.csv": hashed[:1]}
        ),
        "old base": trained(store, "train", "old base", ids, {"losses.csv": bare}),
        "old answer": trained(
            store, "unlearn", "old answer", ids[:1], {"losses/remain.csv": bare[:1], "request.csv": hashed[1:]}
        ),
    }
    row = pd.DataFrame([["a/1.wav", "a", "s", "", HASH, "", ""]], columns=list(COLUMNS)).assign(forgotten="True")
    search = Search(store, Entry("", OWN, row, row[:0], {}))
    held = {name: search.descent.holds(id_) for name, id_ in runs.items()}
    assert held == {"holds": True, "free": False, "old base": None, "old answer": None}
    assert [found.where.split(" (")[0] for found in search.findings() if found.what == "base model"] == ["run holds"]
    told = {part.what: part.why for part in remaining(Config.from_text({}).data, search)}
    assert "no list says what they were trained on" in told["models of 2 runs (old answer, old base)"]
