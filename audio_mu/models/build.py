"""Networks by name."""

from types import MappingProxyType
from typing import Any

from audio_mu.config.parsers import ARCHITECTURES
from audio_mu.errors import UserError
from audio_mu.models.base import AudioClassifier
from audio_mu.models.cct import CCT
from audio_mu.models.vggish import VGGish
from audio_mu.models.vit import ViT

_NETWORKS = MappingProxyType({"VGGish": VGGish, "CCT": CCT, "ViT": ViT})


def build(architecture: str, input_shape: tuple[int, int], n_classes: int, **widths: Any) -> AudioClassifier:
    """A new network, its weights drawn from torch's global generator.

    `input_shape` is (frequencies, frames); `widths` are keywords of the network's own constructor, the
    study's values where they are left out. Float32 [batch, 1, frequencies, frames] → logits
    [batch, n_classes].

    Raises UserError for an unknown architecture, ValueError for an input too small for it.
    """
    if architecture not in _NETWORKS:
        raise UserError(f"architecture: {architecture!r} is not known; choose {', '.join(ARCHITECTURES)}")
    return _NETWORKS[architecture](n_classes, input_shape, **widths)


def tiny(architecture: str) -> dict[str, Any]:
    """Keywords for `build` that make a network of some thousand parameters, for tests.

    Raises UserError for an unknown architecture.
    """
    transformer = {"width": 16, "depth": 2, "heads": 2, "mlp_width": 32}
    widths: dict[str, dict[str, Any]] = {
        "VGGish": {"blocks": ((8,), (8,), (8, 8), (16, 8)), "hidden": 32},
        "CCT": transformer | {"tokenizer_channels": 4},
        "ViT": transformer | {"head_width": 8},
    }
    if architecture not in widths:
        raise UserError(f"architecture: {architecture!r} is not known; choose {', '.join(ARCHITECTURES)}")
    return widths[architecture]
