"""Altered copies of clips: the same recordings as MP3, noisy or trimmed, for the audits that ask for them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import soundfile
import torch

from audio_mu.config import DataParameters
from audio_mu.data.audio import SAMPLE_RATE, read_clip
from audio_mu.data.clips import Clips, find_recordings
from audio_mu.data.features import Frontend
from audio_mu.system.hashing import sha256

MOST = 1_000  # clips of either side that are altered
NOISE = 10 ** (-20 / 20)  # of the clip's root mean square: 20 dB below it
TRIMMED = 0.1  # of the clip, at its start
BITRATE = (160 - 64) / (160 - 8)  # 64 kbit/s, as libsndfile counts at 16 kHz


def _mp3(waveform: np.ndarray) -> np.ndarray:
    """Written as MP3 at 64 kbit/s and read again."""
    buffer = io.BytesIO()
    soundfile.write(
        buffer, np.clip(waveform, -1, 1), SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT", compression_level=BITRATE,
    )  # fmt: skip
    buffer.seek(0)
    decoded, _ = soundfile.read(buffer, dtype="float32")
    return decoded


def _noise(waveform: np.ndarray) -> np.ndarray:
    """With white noise 20 dB below it, drawn from what the clip is, so that each command draws the same."""
    drawing = np.random.default_rng(int(sha256(waveform.tobytes())[:16], 16))
    drawn = drawing.standard_normal(len(waveform), dtype=np.float32)
    return waveform + NOISE * np.sqrt(np.mean(waveform**2)) * drawn


def _trimmed(waveform: np.ndarray) -> np.ndarray:
    """Without its first tenth: everything comes earlier, and silence is at the end."""
    return waveform[round(TRIMMED * len(waveform)) :]


ALTERATIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {"mp3": _mp3, "noise": _noise, "trimmed": _trimmed}
"""Name of an alteration → waveform [samples] at 16 kHz → the altered one, of any length."""


@dataclass(frozen=True)
class Altered:
    """Some clips and their altered copies.

    `rows` [n]: the clips, by their place in `Clips`, `n_members` of the forget set before the non-members. `copies`:
    name of an alteration → their features, float32 [n, 1, …] as in `Clips`.
    """

    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    n_members: int = 0
    copies: Mapping[str, np.ndarray] = field(default_factory=dict)


def altered_copies(config: DataParameters, clips: Clips, members: np.ndarray, nonmembers: np.ndarray) -> Altered:
    """Read clips again and alter them, each as prepared for training: mono, 16 kHz, of the clips' length.

    Of more than `MOST` members or non-members evenly spaced ones are taken.
    """
    groups = [rows[np.linspace(0, len(rows) - 1, MOST).astype(int)] if len(rows) > MOST else rows
              for rows in (members, nonmembers)]  # fmt: skip
    rows = np.concatenate(groups).astype(np.int64)
    _, catalog = find_recordings(config)
    at = {recording.id: recording for recording in catalog.recordings}
    frontend = Frontend(config.pipeline, config.recipe)
    copies: dict[str, list[np.ndarray]] = {name: [] for name in ALTERATIONS}
    for row in rows.tolist():
        recording = at[clips.ids[row]]
        waveform = read_clip(recording.path, config.clip_samples, recording.span, whole=False).waveform
        for name, alter in ALTERATIONS.items():
            cut = alter(waveform).astype(np.float32)[: config.clip_samples]
            cut = np.pad(cut, (0, config.clip_samples - len(cut)))
            with torch.inference_mode():
                copies[name].append(frontend(torch.from_numpy(cut[None])).numpy())
    return Altered(rows, len(groups[0]), {name: np.concatenate(found) for name, found in copies.items()})
