"""What the tests of the data sets share: a cache of their own and small recordings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("AUDIO_MU_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def record() -> Callable[..., Path]:
    """A function that writes one recording of noise, [frames] or [frames, channels]."""

    def write(path: Path, seed: int = 0, seconds: float = 0.5, rate: int = 16_000, channels: int = 1) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(seconds * rate), channels))
        soundfile.write(path, noise.squeeze(), rate)
        return path

    return write
