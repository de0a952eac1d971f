"""Encoders of speech that others have trained on thousands of hours, with a new head: wav2vec 2.0, HuBERT, WavLM.

The networks are torchaudio's, in its base size; their weights are the published ones, downloaded once. Each is used as
a network of the user's own is (docs/extending.md), and another encoder is a subclass of four lines there.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn.utils import parametrize

from audio_mu.data.download import Archive, fetch_file
from audio_mu.errors import UserError, one_line
from audio_mu.models.base import AudioClassifier
from audio_mu.system.hashing import file_sha256
from audio_mu.system.writing import cache_root

WIDTH = 256  # of the layer before the head
LARGEST = 2 << 30  # bytes of a file of weights
PUBLISHED = "https://download.pytorch.org/torchaudio/models/"


class Pretrained(AudioClassifier):
    """A network whose training starts from weights that others have published, and a new head.

    Subclasses name the `address` of the file of weights, and say how a file fills them.
    """

    address: ClassVar[str]

    def fill(self, path: Path) -> None:
        """Put a file's weights into all but the head, which keeps those that were drawn from the seed.

        Raises whatever its reader does where it is not of this network.
        """
        raise NotImplementedError

    def start(self, seed: int) -> None:
        """Start from the published weights. Raises `UserError` where they cannot be had, or are of another network."""
        path = self.weights()
        try:
            self.fill(path)
        except Exception as error:  # of whatever kind: the file is not what it should be
            raise UserError(
                f"{str(path)!r} has no weights of {type(self).__name__} ({one_line(error)}): remove it to download it "
                "again"
            ) from error

    @classmethod
    def weights(cls) -> Path:
        """The file of weights, downloaded on first use to the cache's folder `pretrained`, or put there by hand.

        AUDIO_MU_PRETRAINED_URL names a mirror's folder.
        """
        mirror, name = os.environ.get("AUDIO_MU_PRETRAINED_URL", ""), cls.file_name()
        address = f"{mirror.rstrip('/')}/{name}" if mirror else cls.address
        path = cache_root() / "pretrained" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        instead = f"put the file there as {str(path)!r}, or set AUDIO_MU_PRETRAINED_URL to a mirror's folder"
        return fetch_file(Archive(name, address, "", None, max_packed_bytes=LARGEST, instead=instead), path)

    @classmethod
    def file_name(cls) -> str:
        """The name of the file of weights in the cache and at a mirror."""
        return cls.address.rpartition("/")[2]

    @classmethod
    def started_from(cls) -> str:
        """SHA-256 of the file of weights: with another file the base models are other ones."""
        path = cls.weights()
        about = path.stat()
        return _sha256_of(path, about.st_size, about.st_mtime_ns)


class Encoder(Pretrained):
    """An encoder of 16 kHz waveforms, the mean of its last layer over time, and two linear layers.

    The convolutions that make frames of samples are frozen, as usual in fine-tuning (Baevski et al. 2020, section 4.2).
    Layers are never dropped whole, so that every step computes the same graph. Subclasses name the file of weights at
    its `address` and make the network it is of.

    Input: float32 [batch, 1, samples], at least 400 samples; output: float32 [batch, n_classes].
    """

    def __init__(self, n_classes: int, input_shape: tuple[int, int]) -> None:
        super().__init__()
        if input_shape[0] != 1 or input_shape[1] < 400:
            raise UserError(
                f"architecture {type(self).__name__!r} hears at least 400 samples, not {input_shape}: give "
                "pipeline=waveform and longer clips"
            )
        encoder: Any = self._plain()  # torch's types know no layers of a module's own
        self.encoder = encoder
        width = encoder.encoder.feature_projection.projection.out_features
        self.projection = nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU())
        self.head = nn.Linear(WIDTH, n_classes)

    @staticmethod
    def network() -> nn.Module:
        """The encoder with fresh weights, as torchaudio makes it."""
        raise NotImplementedError

    def penultimate(self, features: Tensor) -> Tensor:
        """[batch, 1, samples] → [batch, WIDTH]."""
        frames, _ = self.encoder(features.squeeze(1))
        return self.projection(frames.mean(dim=1))

    def last_block(self) -> list[nn.Module]:
        """The last transformer layer, the projection and the head."""
        return [self.encoder.encoder.transformer.layers[-1], self.projection, self.head]

    def fill(self, path: Path) -> None:
        """Put the published weights into the encoder."""
        published = self.network()
        published.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.encoder.load_state_dict(_without_weight_norm(published).state_dict())

    def _plain(self) -> nn.Module:
        network = _without_weight_norm(self.network())
        network.get_submodule("feature_extractor").requires_grad_(False)
        return network


@cache
def _sha256_of(path: Path, size: int, changed: int) -> str:
    """Of a file of hundreds of megabytes, which every fingerprint and every logged model asks for, once."""
    return file_sha256(path)


def _without_weight_norm(network: nn.Module) -> nn.Module:
    """The network with plain weights, which methods that look at single weights need."""
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return network


class Wav2Vec2(Encoder):
    """wav2vec 2.0, base (Baevski et al. 2020), trained on 960 hours of LibriSpeech without labels."""

    address = PUBLISHED + "wav2vec2_fairseq_base_ls960.pth"

    @staticmethod
    def network() -> nn.Module:
        return torchaudio.models.wav2vec2_base(encoder_layer_drop=0.0)


class HuBERT(Encoder):
    """HuBERT, base (Hsu et al. 2021), trained on 960 hours of LibriSpeech without labels."""

    address = PUBLISHED + "hubert_fairseq_base_ls960.pth"

    @staticmethod
    def network() -> nn.Module:
        return torchaudio.models.hubert_base(encoder_layer_drop=0.0)


class WavLM(Encoder):
    """WavLM, base (Chen et al. 2022), trained on 960 hours of LibriSpeech without labels."""

    address = PUBLISHED + "wavlm_base.pth"

    @staticmethod
    def network() -> nn.Module:
        return torchaudio.models.wavlm_base(encoder_layer_drop=0.0)
