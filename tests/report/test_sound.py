"""What a report plays."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile

from audio_mu.config import Config
from audio_mu.data.audio import Span, read_clip
from audio_mu.report.html import Clip
from audio_mu.report.sound import sound_of


def test_a_part_is_played_and_not_the_beginning_of_its_file(tmp_path: Path) -> None:
    """Catches a report whose reader hears somebody else than the person who was forgotten."""
    samples = np.random.default_rng(0).integers(-9_000, 9_000, 32_000) / 32_768
    (tmp_path / "a").mkdir()
    soundfile.write(path := tmp_path / "a" / "x.wav", samples, 16_000)
    values = {"dataset": "folder", "dataset_name": "t", "data_dir": str(tmp_path), "window": "0.5"}
    data = Config.from_text(values).data
    known = frozenset([read_clip(path, 8_000, Span(1.25, 1.75)).source_hash])
    clips = [Clip(f"a/x.wav#{part}", "a", "", known) for part in ("1.25-1.75", "0.0-0.5", "7.0-8.0")]
    found = sound_of(data, "", clips)
    assert found.keys() == {"a/x.wav#1.25-1.75"}
    played, _ = soundfile.read(io.BytesIO(found["a/x.wav#1.25-1.75"]))
    assert np.abs(played - samples[20_000:28_000]).max() < 1e-4
