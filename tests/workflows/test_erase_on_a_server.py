"""An erasure in a store behind `mlflow server`, which hides records and removes none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from mlflow.entities import LoggedModelOutput

from audio_mu.config import Config
from audio_mu.erasure.find import Search
from audio_mu.requests.ledger import COLUMNS, OF_RECORDINGS, Answer, Entry, enter, read_ledger
from audio_mu.store import removal
from audio_mu.store.connect import open_store
from audio_mu.store.files import Files
from audio_mu.store.handle import Store
from audio_mu.store.runs import Run, lone_run
from audio_mu.workflows.erase import erase
from tests.servers import tracking_server

TAGS = {
    "dataset": "custom", "dataset_name": "Few", "request": "list-1", "request_hash": "0123456789", "pipeline": "logmel",
    "architecture": "cnn",
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An SQLite store and a folder of artifacts that are to be had through a server alone."""
    folder = tmp_path_factory.mktemp("server")
    with (
        tracking_server(folder, f"sqlite:///{folder / 'mlflow.db'}") as uri,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield open_store()


def logged(store: Store, run: Run) -> str:
    """A model of a run, as far as the store is concerned; its id."""
    model = store.client.create_logged_model(store.experiment_id, "model", source_run_id=run.id)
    Files(model.artifact_location).write("weights", b"weights")
    store.client.log_outputs(run.id, [LoggedModelOutput(model.model_id, 0)])
    return model.model_id


def test_a_model_is_there_as_long_as_something_of_it_can_be_removed(store: Store) -> None:
    """Catches hidden weights, or a removal killed half-way, that pass for gone, and a record that never does."""
    run = lone_run(store, "train", "seed", "one", TAGS)
    hidden, emptied = logged(store, run), logged(store, run)
    store.client.delete_logged_model(hidden)
    Files(store.client.get_logged_model(emptied).artifact_location).delete()
    for id_ in (hidden, emptied):
        model = removal.logged_model(store, id_)
        assert model is not None
        removal.remove_model(store, model)
        assert not list(Files(model.artifact_location).paths())
        assert removal.logged_model(store, id_) is None
    assert removal.logged_model(store, "m-0") is None


def test_an_erasure_ends(store: Store) -> None:
    """Catches models that are found again once they are removed, until the server's `mlflow gc` has run."""
    row = pd.DataFrame([["a.wav", "0", "s", "", "f" * 64, "", ""]], columns=list(COLUMNS))
    recordings = row.assign(forgotten="True", scope=OF_RECORDINGS)
    with lone_run(store, "train", "seed", "base", TAGS) as run:
        run.npz("logits/train.npz", clip_id=np.array(["a.wav", "b.wav"]), logits=np.zeros((2, 2)), label=np.zeros(2))
        model = logged(store, run)
    with lone_run(store, "unlearn", "method", "answer", TAGS) as answer:
        pass
    served = Answer("cell", "naive", {"40": "1"}, {"40": "2"}, {"40": answer.id})
    enter(store, read_ledger(store), [Entry("", TAGS, recordings, recordings[:0], {"audio-mu.Few": served})])
    entry = read_ledger(store).entries[0]
    models = [finding for finding in Search(store, entry).findings() if finding.what == "base model"]
    assert len(models) == 1
    models[0].act()  # and there it was killed
    assert "base model" not in {finding.what for finding in Search(store, entry).findings()}
    for _ in range(2):
        erase(Config.from_text({"request": TAGS["request_hash"], "confirm": "true"}), store)
        assert read_ledger(store).entries[0].state == "erased"
    assert removal.logged_model(store, model) is None
