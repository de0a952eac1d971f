"""Reading one recording: mono, 16 kHz, exactly the clip's length, or a reason why not."""

from __future__ import annotations

import math
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from audio_mu.system.hashing import sha256

SAMPLE_RATE = 16_000
MAX_CHANNELS = 64
RESAMPLE_MARGIN = 0.1  # seconds read beyond the clip so that the resampling filter sees what follows the cut
MAX_AMPLITUDE = 1e6  # of full scale; far more would overflow the power spectrum in float32
BLOCK = 1 << 16  # frames decoded at once: what a header claims is never allocated
MAX_REDUCED_RATE = 200_000  # of a rate without common divisor with ours: scipy's filter has 20 entries for each
MAX_KERNEL = 2_000_000  # entries of torchaudio's resampling kernel; 44,101 Hz would take 12 GB and a minute a clip


class BadRecording(Exception):
    """Why a file cannot be used; the message does not name the file."""


@dataclass(frozen=True)
class Prepared:
    """A waveform float32 [clip_samples] at 16 kHz, its SHA-256, and the changes that it took, in words."""

    waveform: np.ndarray
    hash: str
    changes: tuple[str, ...]


def read_clip(path: Path, clip_samples: int) -> Prepared:
    """A recording as a clip: channels averaged, resampled to 16 kHz, zero-padded on the right or cropped.

    No more is read than the clip needs, whatever the header claims. Raises `BadRecording` for a file that is no audio
    or no regular file (a pipe would be waited for, a device never ends), is empty, or holds values that are not finite.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise BadRecording("is no regular file")
        if not about.st_size:
            raise BadRecording("is empty")
        with soundfile.SoundFile(path) as recording:
            rate, channels = recording.samplerate, recording.channels
            reduced = rate // math.gcd(rate, SAMPLE_RATE)
            if not 1_000 <= rate <= 768_000 or reduced > MAX_REDUCED_RATE or channels > MAX_CHANNELS:
                raise BadRecording(f"{channels} channels at {rate} Hz is outside what is supported")
            frames = int((clip_samples / SAMPLE_RATE + RESAMPLE_MARGIN) * rate) + 1
            mono = _read_mono(recording, frames)
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        reason = str(error).replace(str(path), "it").strip().rstrip(".")
        raise BadRecording(f"cannot be read as audio ({reason})") from None
    if len(mono) == 0:
        raise BadRecording("holds no samples")
    if not np.isfinite(mono).all():
        raise BadRecording("holds samples that are not finite numbers")
    if np.abs(mono).max() > MAX_AMPLITUDE:
        raise BadRecording(f"holds samples beyond {MAX_AMPLITUDE:g} times full scale")
    if rate != SAMPLE_RATE:
        mono = _resampled(np.ascontiguousarray(mono), rate)
    clip = np.zeros(clip_samples, dtype=np.float32)
    clip[: len(mono)] = mono[:clip_samples]
    done = {
        "mixed down": channels > 1,
        "resampled": rate != SAMPLE_RATE,
        "cut": len(mono) > clip_samples,
        "padded": len(mono) < clip_samples,
    }
    return Prepared(clip, sha256(clip.tobytes()), tuple(words for words, applies in done.items() if applies))


def _read_mono(recording: soundfile.SoundFile, frames: int) -> np.ndarray:
    """The first so many frames, or as many as there are, averaged over the channels."""
    blocks = []
    while frames > 0:
        samples = recording.read(min(frames, BLOCK), dtype="float32", always_2d=True)
        if not len(samples):
            break
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            blocks.append(samples.mean(axis=1, dtype=np.float32) if samples.shape[1] > 1 else samples[:, 0])
        frames -= len(samples)
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)


def _resampled(mono: np.ndarray, rate: int) -> np.ndarray:
    """By torchaudio, whose kernel grows with the product of the reduced rates; by scipy where that is too large."""
    shared = math.gcd(rate, SAMPLE_RATE)
    # Imported where they are used: most folders need neither, and their start takes a second.
    if (rate // shared) * (SAMPLE_RATE // shared) <= MAX_KERNEL:
        import torch
        from torchaudio.functional import resample

        return resample(torch.from_numpy(mono), rate, SAMPLE_RATE).numpy()
    from scipy.signal import resample_poly

    return resample_poly(mono, SAMPLE_RATE // shared, rate // shared).astype(np.float32)
