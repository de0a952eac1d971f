"""Reading one recording."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from audio_mu.data.audio import BadRecording, read_clip

N_SAMPLES = 16_000


def test_stereo_of_another_rate_and_length(tmp_path: Path) -> None:
    """Catches channels taken for one another, a wrong rate, a clip of the wrong second, and what was done not told."""
    seconds = np.arange(2 * 44_100) / 44_100
    tone = np.sin(2 * np.pi * 1_000 * seconds)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([0.8 * tone, 0.2 * tone], axis=1), 44_100, subtype="FLOAT")
    prepared = read_clip(path, N_SAMPLES)
    assert prepared.changes == ("mixed down", "resampled", "cut")
    clip = prepared.waveform
    expected = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(N_SAMPLES) / 16_000)
    assert (clip.shape, clip.dtype) == ((N_SAMPLES,), np.float32)
    # The start differs by the resampling filter's run-in; the end must not, as more is read than the clip needs.
    np.testing.assert_allclose(clip[100:], expected[100:], atol=2e-3)


def test_usual_rates_are_resampled_by_torchaudio(tmp_path: Path, record: Callable[..., Path]) -> None:
    """Catches AudioMNIST's 48 kHz resampled in another way than the study's."""
    path = record(tmp_path / "48.wav", seconds=1.0, rate=48_000)
    expected = torchaudio.functional.resample(
        torch.from_numpy(soundfile.read(path, dtype="float32")[0]), 48_000, 16_000
    )
    assert np.array_equal(read_clip(path, N_SAMPLES).waveform, expected.numpy())


def test_short_recording_is_padded_on_the_right(tmp_path: Path) -> None:
    """Catches padding on the left or on both sides."""
    soundfile.write(tmp_path / "short.wav", np.full(4_000, 0.25), 16_000)
    clip = read_clip(tmp_path / "short.wav", N_SAMPLES).waveform
    assert np.array_equal(clip, np.r_[np.full(4_000, 0.25), np.zeros(12_000)].astype(np.float32))


def test_odd_sample_rate_needs_no_memory(tmp_path: Path) -> None:
    """Catches a kernel of 705 million entries for 44,101 Hz, a rate that a broken header can claim."""
    tone = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(44_101) / 44_101)
    soundfile.write(tmp_path / "odd.wav", tone, 44_101, subtype="FLOAT")
    clip = read_clip(tmp_path / "odd.wav", N_SAMPLES).waveform
    expected = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(N_SAMPLES) / 16_000)
    np.testing.assert_allclose(clip[200:-200], expected[200:-200], atol=2e-3)


def resized(content: bytes, riff: int, data: int) -> bytes:
    """A WAV file of 44 bytes of header with these sizes in it."""
    return content[:4] + riff.to_bytes(4, "little") + content[8:40] + data.to_bytes(4, "little") + content[44:]


LIST = b"LIST" + (4).to_bytes(4, "little") + b"INFO"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda wav: wav[:20_000], "is cut short: 19,956 of the 32,000 bytes"),
        (lambda wav: resized(wav, 36, 0), "holds more sound than the 0 bytes"),
        (lambda wav: resized(wav, 32_036, 0), "holds more sound than the 0 bytes"),
        (lambda wav: resized(wav, 32_036, 8_000), "holds more sound than the 8,000 bytes"),
        (lambda wav: resized(wav, 0xFFFFFFFF, 0xFFFFFFFF), ""),  # written to a stream
        (lambda wav: resized(wav, 0x7FFFF024, 0x7FFFF000), ""),
        (lambda wav: resized(wav, 32_048, 32_000) + LIST, ""),
        (lambda wav: resized(wav, 32_036, 31_999), ""),  # without its filling byte
        (lambda wav: resized(wav, 32_136, 32_000) + bytes(100), ""),
        (lambda wav: wav + b"TAG of another program" * 9, ""),
    ],
)
def test_a_wav_that_holds_another_amount_than_its_header_says(
    tmp_path: Path, record: Callable[..., Path], change: Callable[[bytes], bytes], told: str
) -> None:
    """Catches half a recording that passes for a short one, padded, and whole files refused for what follows."""
    path = record(tmp_path / "x.wav", seconds=1.0)
    path.write_bytes(change(path.read_bytes()))
    if told:
        with pytest.raises(BadRecording, match=told):
            read_clip(path, N_SAMPLES)
    if "the 0 bytes" not in told:
        changes = read_clip(path, N_SAMPLES, whole=not told).changes  # a published one is taken and told
        assert ("of another length than the header says" in changes) == bool(told)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_other_formats_that_are_cut(tmp_path: Path, record: Callable[..., Path], suffix: str) -> None:
    """Catches an MP3 of a quarter of its samples that is padded to a clip."""
    path = record(tmp_path / f"x.{suffix}", seconds=2.0)
    read_clip(path, 4 * N_SAMPLES)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 4])
    with pytest.raises(BadRecording):
        read_clip(path, 4 * N_SAMPLES)


def test_reader_raises_what_the_cache_expects(tmp_path: Path) -> None:
    """Catches a library's own exception escaping from a file that is no audio."""
    (tmp_path / "x.mp3").write_bytes(os.urandom(500))
    with pytest.raises(BadRecording, match="cannot be read as audio"):
        read_clip(tmp_path / "x.mp3", N_SAMPLES)
