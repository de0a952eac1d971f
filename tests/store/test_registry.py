"""Models in the registry: all six study networks answer raw waveforms, and nothing is unpickled."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from audio_mu.config import STUDY_KEYS, load_recipe
from audio_mu.data.features import Frontend, feature_shape
from audio_mu.errors import UserError
from audio_mu.models import build
from audio_mu.models.waveform import network_state, servable
from audio_mu.store.runs import open_run

KEYS = ["VGGishMel", "VGGishSpec", "CTCmel", "CTCspec", "ViTmel", "ViTspec"]
SAMPLES = 16_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    from audio_mu.store.connect import open_store

    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield open_store()


@pytest.mark.parametrize("key", KEYS)
def test_study_networks_are_served_from_waveforms(key: str, store) -> None:
    """Catches a network that does not export, answers otherwise once registered, or loses weights on the way back."""
    import mlflow

    from audio_mu.store import registry

    architecture, pipeline = STUDY_KEYS[key]
    torch.manual_seed(0)
    network = build(architecture, feature_shape(pipeline, SAMPLES), 10).to(memory_format=torch.channels_last).eval()
    frontend = Frontend(pipeline, load_recipe("audioMNIST"))
    run = open_run(store, "train", key, {}, {}, {})
    with run:
        uri = registry.log_model(
            run, registry.Traced(servable(frontend, network), SAMPLES), "model", 10, {"sample_rate": 16_000}
        )
        version = registry.register(store, f"audio-mu.test.{key}", uri, run.id, {"seed": "40"}, "a test")
    registry.set_alias(store, version, "seed-40")
    waveforms = np.random.default_rng(1).normal(0, 0.1, (3, SAMPLES)).astype(np.float32)
    with torch.inference_mode():
        expected = network(frontend(torch.from_numpy(waveforms))).numpy()
    served = mlflow.pyfunc.load_model(f"models:/audio-mu.test.{key}@seed-40")
    np.testing.assert_allclose(served.predict(waveforms), expected, atol=1e-3, rtol=1e-4)
    found = registry.by_alias(store, f"audio-mu.test.{key}", "seed-40")
    assert found is not None and found.tags["seed"] == "40"
    loaded = network_state(registry.load_state(found.source))
    assert loaded.keys() == network.state_dict().keys()
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.items())
    assert registry.by_alias(store, f"audio-mu.test.{key}", "seed-41") is None


def test_models_of_one_trace_keep_their_own_weights(store) -> None:
    """Catches a model that is logged with the weights of the one traced first, or changes with the next."""
    import mlflow

    from audio_mu.store import registry

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(2)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.norm(self.layer(rows))

    traced, rows = registry.Traced(Named(), 4), np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    logged = []
    for seed in range(3):
        torch.manual_seed(seed)
        network = Named()
        network(torch.randn(8, 4))  # moves the statistics of the norm, which are no parameters
        traced.module.load_state_dict(network.state_dict())
        run = open_run(store, "train", f"traced {seed}", {}, {}, {})
        with run, torch.no_grad():
            uri = registry.log_model(run, traced, "model", 2, {"seed": seed})
            logged.append((uri, network.eval()(torch.from_numpy(rows)).numpy(), seed))
    for uri, expected, seed in logged:
        served = mlflow.pyfunc.load_model(uri)
        np.testing.assert_allclose(served.predict(rows), expected, atol=1e-6)
        assert served.predict(rows[:1]).shape == (1, 2)
        assert served.metadata.metadata["seed"] == seed


def test_pickled_models_are_refused(store, tmp_path: Path) -> None:
    """Catches the protection against unpickling being switched off: a pickle runs what its author likes."""
    import mlflow
    from mlflow.exceptions import MlflowException

    folder = tmp_path / "pickled"
    mlflow.pytorch.save_model(torch.nn.Linear(2, 2), str(folder), serialization_format="pickle", pip_requirements=[])
    with pytest.raises(MlflowException, match=r"(?i)pickle|deserializ"):
        mlflow.pytorch.load_model(str(folder))


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


def poisoned(name: str, content: bytes, marker: Path) -> bytes:
    """A member of a pt2 archive with code in it, wherever torch would run it."""
    if name.endswith("models/model.json"):  # symbolic sizes, which torch evaluates as Python
        code = f"__import__('pathlib').Path({str(marker)!r}).touch() or Symbol("
        return content.replace(b"Symbol(", json.dumps(code)[1:-1].encode())
    if name.endswith("sample_inputs/model.pt"):
        pickled = io.BytesIO()
        torch.save(Payload(marker), pickled)
        return pickled.getvalue()
    return content


def test_weights_are_read_from_a_poisoned_model_without_running_it(store, tmp_path: Path) -> None:
    """Catches torch.export.load: it evaluates a graph's sizes as Python, which MLflow's check of pickles lets pass."""
    from audio_mu.store import registry

    marker, network = tmp_path / "marker", torch.nn.Linear(4, 2).eval()
    run = open_run(store, "train", "poisoned", {}, {}, {})
    with run:
        uri = registry.log_model(run, registry.Traced(network, 4), "model", 2, {})
    folder = Path(store.client.get_logged_model(uri.removeprefix("models:/")).artifact_location)
    archive = folder / "data" / "model.pt2"
    with zipfile.ZipFile(archive) as content:
        members = {info.filename: content.read(info) for info in content.infolist()}

    def write(changed: dict[str, bytes]) -> None:
        with zipfile.ZipFile(archive, "w") as content:
            for name, part in changed.items():
                content.writestr(name, part)

    write({name: poisoned(name, content, marker) for name, content in members.items()})
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in registry.load_state(uri).items())
    assert not marker.exists()
    with contextlib.suppress(Exception):
        torch.export.load(str(archive))
    assert marker.exists()  # the code in it works
    marker.unlink()
    write({name: content.replace(b'"use_pickle": false', b'"use_pickle": true') for name, content in members.items()})
    with pytest.raises(UserError, match="'weight' is pickled, which may run code"):
        registry.load_state(uri)
    archive.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        registry.load_state(uri)


def test_versions_carry_the_newest_alias(store) -> None:
    """Catches an alias that stays on an older version, or a run whose version is not found again."""
    from audio_mu.store import registry

    name = "audio-mu.test.alias"
    ids = []
    for _ in range(2):
        run = open_run(store, "train", "alias", {}, {}, {})
        with run:
            uri = registry.log_model(run, registry.Traced(torch.nn.Linear(4, 2), 4), "model", 2, {})
            registry.set_alias(store, registry.register(store, name, uri, run.id, {}, ""), "seed-1")
        ids.append(run.id)
    newest = registry.by_alias(store, name, "seed-1")
    assert newest is not None and (newest.run_id, newest.version) == (ids[1], "2")
    older = registry.of_run(store, name, ids[0])
    assert older is not None and older.version == "1"
