"""Recordings and copies of them that are not the same file: other formats, rates, levels, trimmed, shifted, noisy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from audio_mu.data.audio import SAMPLE_RATE

TOGETHER = "trimmed, silence, noise, MP3"
Writer = Callable[[np.ndarray, Path], Path]
"""Writes an altered copy of a waveform [samples] at 16 kHz under a stem; returns its path."""


def _file(suffix: str, rate: int = SAMPLE_RATE, **options: object) -> Writer:
    def write(waveform: np.ndarray, stem: Path) -> Path:
        path = stem.with_suffix(suffix)
        soundfile.write(path, np.clip(waveform, -1, 1), rate, **options)
        return path

    return write


def _changed(change: Callable[[np.ndarray], np.ndarray], write: Writer | None = None) -> Writer:
    return lambda waveform, stem: (write or _file(".wav"))(change(waveform), stem)


def _noisy(waveform: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(len(waveform)).standard_normal(len(waveform))
    return waveform + 0.1 * np.sqrt(np.mean(waveform**2)) * noise


def _later(waveform: np.ndarray) -> np.ndarray:
    return np.r_[np.zeros(SAMPLE_RATE // 10), waveform]


def _without_start(waveform: np.ndarray) -> np.ndarray:
    return waveform[len(waveform) // 10 + 1 :]  # an odd number: half a sample at 8 kHz


MP3 = _file(".mp3", subtype="MPEG_LAYER_III", bitrate_mode="CONSTANT", compression_level=(160 - 64) / (160 - 8))
ALTERATIONS: Mapping[str, Writer] = {
    "MP3, 64 kbit/s": MP3,
    "Ogg Vorbis": _file(".ogg", subtype="VORBIS"),
    "8 kHz": _changed(lambda waveform: resample_poly(waveform, 1, 2), _file(".wav", 8_000)),
    "44.1 kHz": _changed(lambda waveform: resample_poly(waveform, 441, 160), _file(".wav", 44_100)),
    "6 dB louder, clipped": _changed(lambda waveform: waveform * 10 ** (6 / 20)),
    "6 dB quieter": _changed(lambda waveform: waveform * 10 ** (-6 / 20)),
    "inverted": _changed(lambda waveform: -waveform),
    "100 ms of silence before": _changed(_later),
    "10 % trimmed at the start": _changed(_without_start),
    "10 % trimmed at the end": _changed(lambda waveform: waveform[: -(len(waveform) // 10)]),
    "white noise, 20 dB": _changed(_noisy),
    TOGETHER: _changed(lambda waveform: _noisy(_later(_without_start(waveform))), MP3),
}


def sweep(seed: int, seconds: float = 1.0) -> np.ndarray:
    """A gliding tone with two overtones, in a quiet room: no two seeds glide alike."""
    draw = np.random.default_rng(seed)
    n = round(seconds * SAMPLE_RATE)
    low, high = draw.uniform(120, 250, 2)
    phase = 2 * np.pi * np.cumsum(np.linspace(low, high, n) + 20 * np.sin(np.arange(n) / draw.uniform(900, 2_000)))
    tone = sum(np.sin(k * phase / SAMPLE_RATE) / k for k in (1, 3, 7))
    return 0.2 * tone * np.hanning(n) ** 2 + 0.0005 * draw.standard_normal(n)
