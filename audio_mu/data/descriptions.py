"""What is compared of recordings to find copies: their sound at 8 kHz, and 32 numbers that tell most sounds apart."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from audio_mu.data.audio import SAMPLE_RATE
from audio_mu.system.hashing import checksum
from audio_mu.system.reading import read_array

LONGEST = 10 * SAMPLE_RATE  # samples of a recording that are looked at
RATE = 8_000  # Hz of what is compared: a copy may have been at 8 kHz
LOWEST, HIGHEST = 70, 3_600  # Hz: below are hum and handling, above the filters of a telephone
WINDOW, HOP, BANDS = 256, 128, 16  # of the spectrogram, samples at 8 kHz, and mel bands
STILL = 2 / 32_768  # two steps of 16 bits: less movement is digital silence
STEADY = 0.95  # autocorrelation, at every lag up to half the length, of a tone that never changes
MIN_SAMPLES = SAMPLE_RATE // 20  # shorter recordings hold no word


class Description(NamedTuple):
    """What is compared of one recording: `vector` float32 [32]; `sound` int16 [samples at 8 kHz], scaled to full
    range; whether it is `featureless`, so that it is compared with nothing: silence and whatever else moves by two
    steps of 16 bits at most, less than 50 ms, a thousandth of the power or less between 70 and 3,600 Hz, or one steady
    tone from beginning to end."""

    vector: np.ndarray
    sound: np.ndarray
    featureless: bool


@dataclass(frozen=True)
class Descriptions:
    """Of n recordings: `keys` tell which, `vectors` float32 [n, 32], n `sounds`, `featureless` bool [n]."""

    keys: tuple[str, ...]
    vectors: np.ndarray
    sounds: Sequence[np.ndarray]
    featureless: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, indices: np.ndarray) -> Descriptions:
        """Those at some places, in that order."""
        chosen = indices.tolist()
        return Descriptions(
            tuple(self.keys[i] for i in chosen),
            self.vectors[indices],
            [self.sounds[i] for i in chosen],
            self.featureless[indices],
        )


def describe(waveform: np.ndarray) -> Description:
    """What `find_copies` needs of a waveform float32 [samples], mono, 16 kHz, of any length, finite.

    No more than its first ten seconds are looked at.
    """
    waveform = waveform[:LONGEST]
    still = len(waveform) < MIN_SAMPLES or float(np.ptp(waveform)) <= STILL
    if still:
        return Description(np.zeros(2 * BANDS, dtype=np.float32), np.zeros(0, dtype=np.int16), True)
    centred = torch.from_numpy(np.asarray(waveform, dtype=np.float32))
    centred = (centred - centred.mean()) / np.ptp(waveform).item()
    sound = _narrow(centred)
    # -30 dB: what the beginning and the end of a hum or a whistle outside the band leave in it.
    featureless = float(sound.square().mean()) < 1e-3 * float(centred.square().mean()) or _is_steady(sound)
    sound = sound / sound.abs().max().clamp(min=1e-12)
    stored = (sound * 32_767).round().to(torch.int16).numpy()
    return Description(_vector(sound).numpy(), stored, featureless)


def described(
    keys: Sequence[str], read: Callable[[int], np.ndarray], known: Descriptions | None = None
) -> Descriptions:
    """The descriptions of recordings in the order of their keys, those of known keys taken from `known`.

    A key identifies a recording's content (its source hash, or path, size and time of change); `read(i)` gives the
    waveform float32 [samples] of the i-th at 16 kHz, as `read_recording(path, LONGEST)` does, and is called for unknown
    keys alone, from several threads. The result takes 16 kB for a second of sound; `save` and `load` keep it on disk.
    """
    place = {key: i for i, key in enumerate(known.keys)} if known else {}

    def one(i: int) -> Description:
        j = place.get(keys[i])
        if known is None or j is None:
            return describe(read(i))
        return Description(known.vectors[j], known.sounds[j], bool(known.featureless[j]))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(one, range(len(keys))))
    vectors = np.stack([row.vector for row in rows]) if rows else np.zeros((0, 2 * BANDS), dtype=np.float32)
    featureless = np.array([row.featureless for row in rows], dtype=bool)
    return Descriptions(tuple(keys), vectors, [row.sound for row in rows], featureless)


def save(descriptions: Descriptions, folder: Path) -> None:
    """Write descriptions into an existing folder, the sounds one after the other, without a copy of all in memory."""
    lengths = [len(sound) for sound in descriptions.sounds]
    sounds = np.lib.format.open_memmap(folder / "sounds.npy", "w+", np.dtype("<i2"), (max(sum(lengths), 1),))
    start = 0
    for sound in descriptions.sounds:
        sounds[start : start + len(sound)] = sound
        start += len(sound)
    sounds.flush()
    np.save(folder / "vectors.npy", descriptions.vectors)
    index = {"keys": descriptions.keys, "lengths": lengths, "featureless": descriptions.featureless.tolist()}
    index["checksums"] = [checksum(sounds), checksum(descriptions.vectors)]
    (folder / "descriptions.json").write_text(json.dumps(index))


def load(folder: Path) -> Descriptions:
    """What `save` wrote, the sounds mapped from their file. Raises OSError, ValueError or KeyError where damaged."""
    index = json.loads((folder / "descriptions.json").read_text())
    sounds, vectors = read_array(folder / "sounds.npy", "r"), read_array(folder / "vectors.npy")
    ends = np.cumsum(index["lengths"], dtype=np.int64)
    fit = len(vectors) == len(ends) == len(index["keys"]) and not (len(ends) and ends[-1] > len(sounds))
    if not fit or [checksum(sounds), checksum(vectors)] != index["checksums"]:
        raise ValueError(f"the descriptions in {folder} do not fit together")
    parts = [sounds[end - length : end] for end, length in zip(ends.tolist(), index["lengths"], strict=True)]
    return Descriptions(tuple(index["keys"]), vectors, parts, np.array(index["featureless"], dtype=bool))


def _narrow(waveform: Tensor) -> Tensor:
    """16 kHz → 8 kHz, what lies between 70 and 3,600 Hz alone, by one pair of transforms."""
    n = fast_length(len(waveform) + SAMPLE_RATE // 10)
    spectrum = torch.fft.rfft(waveform, n, norm="forward")[: n // 4 + 1]
    frequency = torch.arange(len(spectrum)) * (SAMPLE_RATE / n)
    # Edges of 60 and 200 Hz, the flat part between them.
    gain = ((frequency - LOWEST) / 60).clamp(0, 1) * ((HIGHEST + 200 - frequency) / 200).clamp(0, 1)
    return torch.fft.irfft(spectrum * gain, n // 2, norm="forward")[: (len(waveform) + 1) // 2]


def _is_steady(sound: Tensor) -> bool:
    """Whether a sound repeats itself at every lag: the least envelope of its autocorrelation up to half its length."""
    n, half = fast_length(2 * len(sound)), len(sound) // 2
    spectrum = torch.fft.rfft(sound, n)
    analytic = torch.fft.ifft(spectrum.abs().square()[: n // 2], n).abs()[:half] * 2
    energy = sound.square().cumsum(0)
    lags = torch.arange(half)
    both = (energy[len(sound) - 1 - lags] * (energy[-1] - energy[lags] + sound[lags].square())).sqrt()
    return bool((analytic >= STEADY * both).all())


@cache
def _mel_bands() -> Tensor:
    """The weights of 16 mel bands, float32 [bins, bands]."""
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(WINDOW // 2 + 1, 100.0, float(HIGHEST), BANDS, RATE)


def _vector(sound: Tensor) -> Tensor:
    """Two numbers of each mel band: its share of the power, and its share of the loudness.

    Power in steps of 3 dB, not lower than 23 dB below the whole; loudness is the sum over frames of ln(1 + p/p0) of a
    band's power p, where p0 lies 20 dB below the loudest frame, in steps of a twentieth. Silence adds to neither,
    level and time shift cancel, noise 20 dB below and what a codec adds are small beside these floors.
    """
    frames = torch.nn.functional.pad(sound, (WINDOW, WINDOW)).unfold(0, WINDOW, HOP)
    power = torch.fft.rfft(frames * torch.hann_window(WINDOW)).abs().square() @ _mel_bands()
    total = power.sum(0)
    loudness = torch.log1p(power / (0.01 * power.sum(1).max()).clamp(min=1e-12)).sum(0)
    shares = torch.log10(total / total.sum().clamp(min=1e-12) + 0.005) * (10 / 3)
    return torch.cat([shares, loudness / loudness.sum().clamp(min=1e-12) * 20])


def fast_length(n: int) -> int:
    """The least of 4, 5 and 6 times a power of two that is at least n: fast to transform, few different ones."""
    power = 1 << max(n - 1, 4).bit_length()
    return next(length for length in (power * 5 // 8, power * 3 // 4, power) if length >= n)
