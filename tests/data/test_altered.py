"""Altered copies of clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audio_mu.config import Config
from audio_mu.data import altered
from audio_mu.data.altered import ALTERATIONS, altered_copies
from audio_mu.data.clips import load_clips
from tests.alterations import sweep
from tests.answered import tones


def test_alterations_change_what_they_say() -> None:
    """Catches noise of another strength, a copy that is the recording itself, and what is cut at the wrong end."""
    clip = sweep(1).astype(np.float32)
    noisy = ALTERATIONS["noise"](clip) - clip
    assert 20 * np.log10(np.std(clip) / np.std(noisy)) == pytest.approx(20, abs=0.2)
    np.testing.assert_array_equal(ALTERATIONS["noise"](clip), ALTERATIONS["noise"](clip))
    np.testing.assert_array_equal(ALTERATIONS["trimmed"](clip), clip[1_600:])
    mp3 = ALTERATIONS["mp3"](clip)[: len(clip)]
    around = max(range(-1_200, 1_201), key=lambda shift: float(np.dot(np.roll(mp3, shift), clip[: len(mp3)])))
    left = np.roll(mp3, around) - clip[: len(mp3)]
    assert 0 < np.std(left[2_000:-2_000]) < 0.2 * np.std(clip)


def test_copies_are_of_the_asked_clips_and_of_their_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches copies of other clips, of another length than trained on, and members and others mixed up."""
    monkeypatch.setenv("AUDIO_MU_CACHE", str(tmp_path / "cache"))
    folder = tones(tmp_path / "tones")
    text = {"dataset": "folder", "dataset_name": "tones", "data_dir": str(folder), "clip_seconds": "0.4"}
    config = Config.from_text({**text, "pipeline": "logmel"}).data
    clips = load_clips(config)
    monkeypatch.setitem(altered.ALTERATIONS, "nothing", lambda waveform: waveform)
    members, others = np.array([5, 1]), np.array([7])
    found = altered_copies(config, clips, members, others)
    assert found.rows.tolist() == [5, 1, 7] and found.n_members == 2
    assert {copies.shape for copies in found.copies.values()} == {(3, *clips.features.shape[1:])}
    np.testing.assert_allclose(found.copies["nothing"], clips.features[found.rows].numpy(), atol=1e-5)
    assert all(
        np.abs(found.copies[name] - found.copies["nothing"]).max() > 0.01 for name in ("mp3", "noise", "trimmed")
    )
    monkeypatch.setattr(altered, "MOST", 2)
    assert altered_copies(config, clips, np.arange(9), others).rows.tolist() == [0, 8, 7]
