"""A network is tried before hours of work: steps, export, weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from audio_mu.base_models.served import try_training
from audio_mu.config import Config
from audio_mu.errors import UserError

FILE = """
import torch
from torch import nn


class Good(nn.Sequential):
    def __init__(self, n_classes, input_shape):
        super().__init__(nn.Conv1d(1, 4, 32, stride=16), nn.BatchNorm1d(4), nn.ReLU(), nn.AdaptiveAvgPool1d(2),
                         nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, n_classes))


class Frozen(Good):
    def __init__(self, n_classes, input_shape):
        super().__init__(n_classes, input_shape)
        self.requires_grad_(False)


class Lost(Good):
    def start(self, seed):
        self[0].weight.data = torch.load(f"no-such-file-{seed}.pt")


class Detached(Good):
    def forward(self, waveforms):
        return super().forward(waveforms).detach()


class OnlyInTraining(Good):
    def forward(self, waveforms):
        return super().forward(waveforms[:, :, :40] if self.training else waveforms)[:, :0 if self.training else None]


class Branching(Good):
    def forward(self, waveforms):
        return super().forward(waveforms * 2 if waveforms.mean() > 0 else waveforms)


class Counting(Good):
    def forward(self, waveforms):
        return super().forward(waveforms.view(len(waveforms), 1, -1))


class Random(Good):
    def forward(self, waveforms):
        return super().forward(waveforms) + torch.randn(1)
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Good", ""),
        ("Frozen", "cannot be trained"),
        ("Lost", r"start\(40\) fails"),
        ("Detached", "cannot be trained"),
        ("OnlyInTraining", "cannot be trained"),
        ("Branching", "cannot be exported"),
        ("Counting", r"not len\(x\)"),
        ("Random", "not the same once it is exported"),
    ],
)
def test_what_would_fail_after_hours_fails_at_once(name: str, words: str, tmp_path: Path) -> None:
    """Catches networks that train and cannot be served, or answer two clips at a time alone."""
    (tmp_path / "own.py").write_text(FILE)
    given = {"architecture": f"{tmp_path}/own.py:{name}", "pipeline": "waveform", "clip_seconds": "0.1"}
    config = Config.from_text(given)
    if not words:
        return try_training(config, 3)
    with pytest.raises(UserError, match=words) as raised:
        try_training(config, 3)
    assert name in str(raised.value) and "\n" not in str(raised.value)
