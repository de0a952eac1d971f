"""Networks by name, at the study's sizes."""

import inspect

import pytest
import torch

from audio_mu.config.parsers import ARCHITECTURES, STUDY_KEYS
from audio_mu.errors import UserError
from audio_mu.models import build, tiny
from tests.models.networks import MEL, SPEC, small

PUBLISHED = [
    ("VGGishMel", 10, 4_787_850),
    ("VGGishMel", 35, 4_839_075),
    ("VGGishSpec", 10, 7_540_362),
    ("VGGishSpec", 35, 7_591_587),
    ("CTCmel", 10, 3_969_355),
    ("CTCmel", 35, 3_975_780),
    ("CTCspec", 10, 3_984_715),
    ("CTCspec", 35, 3_991_140),
    ("ViTmel", 10, 11_088_586),
    ("ViTmel", 35, 11_101_411),
    ("ViTspec", 10, 12_228_124),
    ("ViTspec", 35, 12_240_949),
]

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


@pytest.mark.parametrize(("key", "n_classes", "expected"), PUBLISHED)
def test_trainable_parameters_are_the_studys(key: str, n_classes: int, expected: int) -> None:
    """Catches any layer, width or bias that differs from the study's network."""
    architecture, pipeline = STUDY_KEYS[key]
    with torch.device("meta"):
        network = build(architecture, {"mel": MEL, "spec": SPEC}[pipeline], n_classes)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == expected


def test_study_keys() -> None:
    """Catches a key that leads to another network or representation."""
    assert dict(STUDY_KEYS) == {
        **{f"VGGish{end}": ("VGGish", end.lower()) for end in ("Mel", "Spec")},
        **{f"{name}{end}": ("CCT", end) for name in ("CTC", "CCT") for end in ("mel", "spec")},
        **{f"ViT{end}": ("ViT", end) for end in ("mel", "spec")},
    }
    assert ARCHITECTURES == ("VGGish", "CCT", "ViT")


@pytest.mark.parametrize("name", ["vggish", "VGGishmel", "ResNet", ""])
def test_an_unknown_key_is_refused(name: str) -> None:
    """Catches a silent default, and a message that does not say what is allowed."""
    for call in (tiny, lambda name: build(name, MEL, 10)):
        with pytest.raises(UserError) as raised:
            call(name)
        message = str(raised.value)
        assert repr(name) in message
        assert all(allowed in message for allowed in ARCHITECTURES)
        assert "\n" not in message


@every_architecture
def test_tiny_is_tiny_and_uses_known_keywords(architecture: str) -> None:
    """Catches widths that would make every other test slow, and a misspelt keyword."""
    network = small(architecture)
    assert 1_000 < sum(p.numel() for p in network.parameters()) < 20_000
    assert set(tiny(architecture)) <= set(inspect.signature(type(network)).parameters)
