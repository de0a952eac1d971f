"""Pretrained encoders: where their weights come from, and that training starts from them. The published ones are of the
same classes, which are made tiny here, and are downloaded from a server of the test's own."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from audio_mu.config import Config
from audio_mu.config.parsers import ENCODERS
from audio_mu.errors import UserError
from audio_mu.models import pretrained
from audio_mu.models.pretrained import Encoder, Pretrained
from audio_mu.own_code import load
from tests.conftest import FAST, Command
from tests.finished_store import Results
from tests.servers import ArchiveServer


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("AUDIO_MU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


TINY = """
import torchaudio

from audio_mu.models import pretrained

LAYERS = [(8, 10, 5), (8, 3, 4), (8, 3, 4), (8, 3, 4)]


class TinyWav2Vec2(pretrained.Wav2Vec2):
    address = "{address}"

    @staticmethod
    def network():
        return torchaudio.models.wav2vec2_model(
            "group_norm", LAYERS, False, 16, 0.1, 8, 4, 2, 2, 0.1, 32, 0.0, 0.1, False, 0.0, None
        )


class TinyWavLM(pretrained.WavLM):
    address = "{address}"

    @staticmethod
    def network():
        return torchaudio.models.wavlm_model(
            "group_norm", LAYERS, False, 16, 0.1, 8, 4, 2, 2, 32, 80, 0.1, 32, 0.0, 0.1, False, 0.0, None
        )
"""


def as_published(network: nn.Module) -> bytes:
    """A file of weights as torchaudio's are: the norm and the direction of a weight under their older names."""
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = {re.sub("|".join(names), lambda found: names[found[0]], key): v for key, v in network.state_dict().items()}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def tiny(folder: Path, server: ArchiveServer, name: str) -> type[Encoder]:
    """A tiny encoder of the user's file, whose published weights the server has."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.py").write_text(TINY.format(address=server.url.replace("archive.tar.gz", f"{name}.pth")))
    network: type[Encoder] = load(f"{folder}/tiny.py:{name}")
    torch.manual_seed(7)
    server.content = as_published(network.network())
    return network


@pytest.mark.parametrize("name", ["TinyWav2Vec2", "TinyWavLM"])
def test_training_starts_from_the_published_weights(
    name: str, tmp_path: Path, cache: Path, server: ArchiveServer
) -> None:
    """Catches an encoder that starts from fresh weights, a head that does not, and a download at every start."""
    network_class = tiny(tmp_path, server, name)
    torch.manual_seed(7)
    published = network_class.network().eval()
    sound = torch.randn(2, 8_000)
    networks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        networks.append(network_class(3, (1, 8_000)).eval())
        networks[-1].start(seed)
        with torch.no_grad():
            torch.testing.assert_close(networks[-1].encoder(sound)[0], published(sound)[0])
    assert not torch.equal(networks[0].head.weight, networks[1].head.weight)
    assert len(server.asked) == 1
    frozen = {name for name, parameter in networks[0].named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in networks[0].named_parameters() if "feature_extractor" in name}
    assert not any("parametrizations" in name for name in networks[0].state_dict())


def test_another_file_is_told(tmp_path: Path, cache: Path, server: ArchiveServer) -> None:
    """Catches base models of other weights that are taken for the same, and a traceback for another network's."""
    network_class = tiny(tmp_path, server, "TinyWav2Vec2")
    before = network_class.started_from()
    network_class.weights().write_bytes(as_published(nn.Linear(2, 2)))
    assert network_class.started_from() != before
    with pytest.raises(UserError, match="has no weights of TinyWav2Vec2"):
        network_class(3, (1, 8_000)).start(0)
    network_class.weights().write_bytes(b"nothing of that kind")
    with pytest.raises(UserError, match="remove it to download it again"):
        network_class(3, (1, 8_000)).start(0)


def test_a_mirror_is_asked(tmp_path: Path, cache: Path, server: ArchiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an address that cannot be changed where the network ends at a company's door."""
    monkeypatch.setenv("AUDIO_MU_PRETRAINED_URL", server.url.rpartition("/")[0])
    server.content = b"weights"
    assert pretrained.HuBERT.weights().read_bytes() == b"weights"
    monkeypatch.setenv("AUDIO_MU_PRETRAINED_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"wavlm_base\.pth'.*AUDIO_MU_PRETRAINED_URL"):
        pretrained.WavLM.weights()


def test_every_name_is_a_network_of_waveforms() -> None:
    """Catches a name without its class, and an encoder that is given features."""
    for name, reference in ENCODERS.items():
        config = Config.from_text({"architecture": name})
        assert (config.training.architecture, config.data.pipeline) == (reference, "waveform")
        assert issubclass(load(reference), Pretrained)
    with pytest.raises(UserError, match="pipeline=waveform"):
        load(ENCODERS["hubert"])(3, (32, 63))


def test_the_chain_with_a_pretrained_encoder(
    entry: Command, tmp_path: Path, cache: Path, server: ArchiveServer
) -> None:
    """Catches a method or export that an encoder does not survive, and frozen layers that move."""
    tiny(tmp_path, server, "TinyWav2Vec2")
    time = np.arange(4_000) / 16_000
    for place, pitch in enumerate((300, 1_000, 3_000)):
        for take in range(8):
            (tmp_path / "data" / str(pitch)).mkdir(parents=True, exist_ok=True)
            draw = np.random.default_rng([place, take])
            wave = 0.3 * np.sin(2 * np.pi * pitch * draw.uniform(0.9, 1.1) * time) + draw.normal(0, 0.01, len(time))
            soundfile.write(tmp_path / "data" / str(pitch) / f"p{take % 4}_{take}.wav", wave, 16_000)
    done = entry(
        "main", tmp_path, dataset="folder", dataset_name="tones", data_dir=str(tmp_path / "data"), clip_seconds="0.25",
        pipeline="waveform", architecture=f"{tmp_path}/tiny.py:TinyWav2Vec2", speaker_pattern=r"(p\d)_",
        forget="speaker", forget_speakers="p1", methods="naive,pop,cf_k",
        **FAST | {"seeds": "40", "n_epochs": "2", "optimizer": "adam", "learning_rate": "0.001"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = Results(tmp_path)
    assert {method for method, _ in results.methods("speaker-p1")} == {
        "original", "naive", "pop", "cf_k",
    }  # fmt: skip
    assert len(server.asked) == 1
