"""The study's networks: features of one clip → logits."""

from audio_mu.models.base import AudioClassifier
from audio_mu.models.build import build, tiny

__all__ = ["AudioClassifier", "build", "tiny"]
