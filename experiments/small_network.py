"""A small network for experiments that train many."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from audio_mu.models import AudioClassifier


class Small(AudioClassifier):
    """Three convolutions of 16, 32 and 64 channels, each with max-pooling, and a layer of 128."""

    def __init__(self, n_classes: int, input_shape: tuple[int, int]) -> None:
        super().__init__()
        channels, layers = (1, 16, 32, 64), list[nn.Module]()
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
        size = channels[-1] * (input_shape[0] // 8) * (input_shape[1] // 8)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(size, 128), nn.ReLU())
        self.head = nn.Linear(128, n_classes)

    def penultimate(self, features: Tensor) -> Tensor:
        """[batch, 1, frequencies, frames] → [batch, 128]."""
        return self.layers(features)

    def last_block(self) -> list[nn.Module]:
        """The layer before the head, and the head."""
        return [self.layers[-2], self.head]
