"""One second of two tones in noise: ten classes that a network can learn, and the project's own features of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audio_mu.config import load_recipe
from audio_mu.data.features import Frontend
from benchmarks.gpu.measuring import CLASSES, SHAPE
from benchmarks.gpu.table import Settings

SAMPLES, RATE = 16_000, 16_000
LOW, HIGH = (350.0, 500.0, 700.0, 980.0), (1_300.0, 1_800.0, 2_500.0)
SPEAKERS = 60
AT_ONCE = 1_000
WRONG = 0.02
"""The share of clips with a wrong label: what a network knows of these, it learned by heart."""


def waveforms(first: int, n: int, device: str) -> tuple[Tensor, Tensor]:
    """Waveforms float32 [n, 16000] and labels [n] of the clips from `first` on; the same in every process.

    Class k is a pair of a low and a high tone; pitch follows the speaker (of 60) and a little the take; onset, length,
    loudness, phases and noise are drawn for each clip.
    """
    draw = torch.Generator(device).manual_seed(first)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, generator=draw, device=device)

    clip = torch.arange(first, first + n, device=device)
    labels, speaker = clip % CLASSES, clip // CLASSES % SPEAKERS
    low, high = (torch.tensor(tones, device=device) for tones in (LOW, HIGH))
    pitch = (1 + 0.06 * torch.sin(2.4 * speaker))[:, None] * uniform(0.99, 1.01)
    time = torch.arange(SAMPLES, device=device) / RATE
    tones = torch.zeros(n, SAMPLES, device=device)
    for tone, loudness in ((low[labels % len(LOW)], 1.0), (high[labels // len(LOW)], 0.7)):
        tones += loudness * torch.sin(2 * math.pi * (tone[:, None] * pitch * time + uniform(0, 1)))
    begin, length = uniform(0.0, 0.4), uniform(0.3, 0.6)
    tones *= torch.sigmoid(60 * (time - begin)) * torch.sigmoid(60 * (begin + length - time))
    tones *= 10 ** uniform(-1.9, -1.6)
    tones += 10 ** uniform(-3.0, -2.3) * torch.randn(n, SAMPLES, generator=draw, device=device)
    wrong = torch.rand(n, generator=draw, device=device) < WRONG
    return tones, torch.where(wrong, (labels + 1) % CLASSES, labels)


def parts(n: int, device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """The waveforms and labels of n clips, a thousand at a time."""
    for first in range(0, n, AT_ONCE):
        yield waveforms(first, min(AT_ONCE, n - first), device)


def frontend(device: str) -> Frontend:
    """The project's mel features."""
    return Frontend("mel", load_recipe("audioMNIST")).to(device)


def features_file(settings: Settings, n: int) -> tuple[Path, np.ndarray]:
    """The file of the features float32 [n, 1, 32, 63] of n clips, and their labels [n]; made once."""
    path, labels_path = settings.folder / f"features-{n}.npy", settings.folder / f"labels-{n}.npy"
    if not labels_path.exists():
        transform = frontend(settings.device)
        with torch.inference_mode():
            made = [(transform(waves).cpu(), labels.cpu()) for waves, labels in parts(n, settings.device)]
        features = torch.cat([features for features, _ in made])
        if features.shape != (n, 1, *SHAPE):
            raise ValueError(f"features have the shape {tuple(features.shape)}")
        np.save(path, features.numpy())
        np.save(labels_path, torch.cat([labels for _, labels in made]).numpy())
    return path, np.load(labels_path)


def clips(settings: Settings, n: int) -> tuple[Tensor, Tensor]:
    """Features [n, 1, 32, 63] and labels [n] on the CPU, with memory of their own."""
    path, labels = features_file(settings, n)
    return torch.from_numpy(np.load(path)), torch.from_numpy(labels)
