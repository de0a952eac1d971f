"""The Audio Spectrogram Transformer: its features and answers are those of the library that publishes it, its weights
come from a server of the test's own. The network is of the same class, made tiny."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from audio_mu.base_models.served import try_training
from audio_mu.compute.pool import LocalEngine
from audio_mu.config import Config
from audio_mu.config.parsers import ENCODERS
from audio_mu.errors import UserError
from audio_mu.models.spectrogram_encoder import AST, LogMel
from audio_mu.own_code import load
from audio_mu.training import Examples, mean_squared_gradient
from tests.answered import Answered
from tests.servers import ArchiveServer

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TINY = """
from audio_mu.models.spectrogram_encoder import AST


class TinyAST(AST):
    address = "{address}"
    sizes = {sizes}
""".replace("{sizes}", str(SIZES))


@pytest.fixture(scope="module")
def library() -> Any:
    """The package that publishes the network."""
    return pytest.importorskip(
        "transformers", reason="transformers is not installed (requirements-pretrained.txt): AST is not tested"
    )


@pytest.fixture
def tiny(tmp_path: Path, server: ArchiveServer, monkeypatch: pytest.MonkeyPatch) -> type[AST]:
    """A tiny network of a user's file, whose weights the server has."""
    monkeypatch.setenv("AUDIO_MU_CACHE", str(tmp_path / "cache"))
    address = server.url.replace("archive.tar.gz", "tiny.safetensors")
    (tmp_path / "tiny.py").write_text(TINY.replace("{address}", address))
    found: type[AST] = load(f"{tmp_path}/tiny.py:TinyAST")
    return found


def published(library: Any, folder: Path, max_length: int = 1_024, n_classes: int = 3) -> tuple[nn.Module, bytes]:
    """A network of the library with weights so large that mistakes show, and the file that it is published as."""
    torch.manual_seed(7)
    config = library.ASTConfig(**SIZES, max_length=max_length, num_labels=n_classes)
    network = library.ASTForAudioClassification(config).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    return network, (folder / "model.safetensors").read_bytes()


def speech(folder: Path, n_samples: int) -> list[np.ndarray]:
    """Two words, and one between silences of digital zeros."""
    paths = sorted((folder / "arabic_commands_folder" / "right").iterdir())[:3]
    words = [soundfile.read(path, dtype="float32")[0][:n_samples] for path in paths]
    words[2][: n_samples // 4] = 0
    return [np.pad(word, (0, n_samples - len(word))) for word in words]


@pytest.mark.parametrize("n_samples", [2_800, 16_000, 40_123])
def test_features_and_answers_are_the_library_s_own(
    library: Any, tmp_path: Path, real_speech: Path, n_samples: int, tiny: type[AST]
) -> None:
    """Catches another window, filter bank, floor or scale than the network was trained on, a token too many, and a
    layer left out."""
    words = speech(real_speech, n_samples)
    waveforms = torch.from_numpy(np.stack(words))
    features = LogMel()(waveforms)
    extract = library.ASTFeatureExtractor(max_length=features.shape[1])
    expected = torch.from_numpy(np.stack(extract(words, sampling_rate=16_000)["input_values"]))
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)
    longer = library.ASTFeatureExtractor(max_length=features.shape[1] + 1)(words[:1], sampling_rate=16_000)
    assert features[0].std() > 0.1 and not np.ptp(longer["input_values"][0][-1])  # padded: no frame is missing

    theirs, _ = published(library, tmp_path, max_length=features.shape[1])
    ours = tiny(3, (1, n_samples)).eval()
    ours.encoder.load_state_dict(theirs.audio_spectrogram_transformer.state_dict())
    ours.projection.load_state_dict(theirs.classifier.layernorm.state_dict())
    ours.head.load_state_dict(theirs.classifier.dense.state_dict())
    with torch.no_grad():
        logits = theirs(expected).logits
        torch.testing.assert_close(ours(waveforms.unsqueeze(1)), logits, rtol=0, atol=1e-5)
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_training_starts_from_the_published_weights(
    library: Any, tmp_path: Path, server: ArchiveServer, tiny: type[AST]
) -> None:
    """Catches weights under older names that stay fresh, a head that is not, positions of other moments or
    frequencies, and a download at every start."""
    theirs, server.content = published(library, tmp_path)
    waveforms = 0.1 * torch.randn(2, 1, 1_024 * 160 + 240)
    networks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        networks.append(tiny(3, tuple(waveforms.shape[1:])).eval())
        networks[-1].start(seed)
        own = networks[-1].features(waveforms[:, 0])
        with torch.no_grad():
            pooled = theirs.audio_spectrogram_transformer(own).pooler_output
            torch.testing.assert_close(networks[-1].penultimate(waveforms), networks[-1].projection(pooled))
    assert not torch.equal(networks[0].head.weight, networks[1].head.weight)
    assert len(server.asked) == 1 and all(parameter.requires_grad for parameter in networks[0].parameters())

    grid = theirs.audio_spectrogram_transformer.embeddings.position_embeddings.detach()[0, 2:].view(12, 101, -1)

    def positions(n_frames: int) -> Tensor:
        network = tiny(3, (1, n_frames * 160 + 240))
        network.start(0)
        return network.encoder.embeddings.position_embeddings.detach()[0, 2:].view(12, -1, 16)

    torch.testing.assert_close(positions(98), grid[:, 46:55])  # 9 moments of 101
    assert positions(2_048).shape == (12, 204, 16)


def test_another_file_and_a_missing_package_are_told(
    library: Any, tmp_path: Path, server: ArchiveServer, tiny: type[AST], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a network that is half fresh, a traceback, and a download for nothing."""
    from safetensors.torch import save

    server.content = save({"encoder.layer.0.output.dense.bias": torch.zeros(16)})
    with pytest.raises(UserError, match="has no weights of TinyAST"):
        tiny(3, (1, 2_800)).start(0)
    with pytest.raises(UserError, match="at least 2800 samples"):
        tiny(3, (1, 2_799))
    assert AST.file_name() == "ast-finetuned-audioset-10-10-0.4593.safetensors"
    monkeypatch.setenv("AUDIO_MU_PRETRAINED_URL", server.url.rpartition("/")[0])
    monkeypatch.setitem(sys.modules, "transformers", None)
    asked = len(server.asked)
    for act in (AST.weights, lambda: AST(3, (1, 16_000))):
        with pytest.raises(UserError, match=r"pip install -r requirements-pretrained\.txt") as raised:
            act()
        assert "\n" not in str(raised.value)
    assert len(server.asked) == asked


def test_it_is_exported_and_looked_at_clip_by_clip(
    library: Any, tmp_path: Path, server: ArchiveServer, tiny: type[AST]
) -> None:
    """Catches a front end or a layer that torch's export or its per-clip gradients do not take."""
    _, server.content = published(library, tmp_path)
    (tmp_path / "data").mkdir()
    config = Config.from_text(
        {
            "dataset": "folder", "dataset_name": "d", "data_dir": str(tmp_path / "data"), "clip_seconds": "0.25",
            "architecture": f"{tmp_path}/tiny.py:TinyAST", "pipeline": "waveform",
        }
    )  # fmt: skip
    try_training(config, 3)
    network = tiny(3, (1, 4_000))
    squares = mean_squared_gradient(network, Examples(torch.randn(4, 1, 4_000), torch.arange(4) % 3, torch.arange(4)))
    assert all(square.isfinite().all() for square in squares) and sum(float(square.sum()) for square in squares) > 0


def test_a_speaker_is_removed_from_it(library: Any, tmp_path: Path, server: ArchiveServer, tiny: type[AST]) -> None:
    """Catches a network that worker processes cannot make, start or unlearn with methods of each kind."""
    config = Config.from_text({"architecture": "ast"})
    assert (config.training.architecture, config.data.pipeline) == (ENCODERS["ast"], "waveform")
    assert load(ENCODERS["ast"]) is AST
    _, server.content = published(library, tmp_path)
    with LocalEngine(1) as engine:
        project = Answered.new(tmp_path / "project", engine)
        of_it = {"architecture": f"{tmp_path}/tiny.py:TinyAST", "pipeline": "waveform", "n_epochs": "1"}
        project = replace(project, parameters={**project.parameters, **of_it, "accumulate": "2"})
        project.run("train")
        project.run("attack")
        methods = ("naive", "cf_k", "ssd", "msg")
        request = {"forget": "speaker", "forget_speakers": "p1", "methods": ",".join(methods)}
        project.run("unlearn", **request, save_models="none")
    runs = [project.runs(stage="unlearn", role="method", method=method) for method in methods]
    assert [len(found) for found in runs] == [1, 1, 1, 1]
    assert len(server.asked) == 1  # the workers have read the same file
