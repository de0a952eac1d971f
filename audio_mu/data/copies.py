"""Probable copies: recordings that hold the same sound in another file format, rate, level, length or noise.

A copy's waveform follows the original's through all of the sound; another take of the same word by the same speaker
does so for a few periods of the voice at most. So two recordings are aligned where their cross-correlation is highest
(Knapp and Carter 1976, "The generalized correlation method for estimation of time delay", with unit weights), and the
correlation coefficient is taken there, over the whole overlap and over every 200 ms of sound in it: the lower one is
the pair's peak. A short common beginning (a jingle) or one loud vowel is thereby no copy.

The cross-correlation is not computed for every pair. A vector of 32 numbers, which neither level nor time shift
moves much, leaves about one pair in a hundred; the envelope of the cross-correlation leaves few of these.
experiments/copies.py measures what is found, what is found wrongly, and how long it takes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from audio_mu.data.audio import SAMPLE_RATE

TAU = 0.95  # the least peak of a probable copy; chosen by experiments/copies.py on speakers that it is not tried on
LONGEST = 10 * SAMPLE_RATE  # samples of a recording that are looked at
RATE = 8_000  # Hz of what is compared: a copy may have been at 8 kHz
LOWEST, HIGHEST = 70, 3_600  # Hz: below are hum and handling, above the filters of a telephone
WINDOW, HOP, BANDS = 256, 128, 16  # of the spectrogram, samples at 8 kHz, and mel bands
RADIUS = 2.5  # between vectors of a pair that is looked at
MOST_CANDIDATES = 1_000  # of one recording, the nearest: bounds the time where all recordings sound alike
PROMISING = 0.5  # least envelope of the cross-correlation of a pair that is aligned
OVERSAMPLING = 4  # of the lag, in the alignment
SEGMENT, RUN = 400, 4  # samples at 8 kHz (50 ms), and how many segments in a row are judged together
SHARED = 0.6  # of each recording's active segments must lie in the overlap: two may begin alike and go on otherwise
ACTIVE = 0.1  # of the mean power: quieter segments are not judged, noise may have covered them
STILL = 2 / 32_768  # two steps of 16 bits: less movement is digital silence
STEADY = 0.95  # autocorrelation, at every lag up to half the length, of a tone that never changes
BLOCK = 1 << 24  # samples of pairs that are correlated at once


class Copy(NamedTuple):
    """Two recordings of one sound, by their places in what was compared; `peak` is at least tau, 1 at most."""

    requested: int
    other: int
    peak: float


class Description(NamedTuple):
    """What is compared of one recording: `vector` float32 [32]; `sound` int16 [samples at 8 kHz], scaled to full
    range; whether it is `constant` (see `is_constant`), so that it is compared with nothing."""

    vector: np.ndarray
    sound: np.ndarray
    constant: bool


@dataclass(frozen=True)
class Descriptions:
    """Descriptions of n recordings: `keys` tell which, `vectors` float32 [n, 32], n `sounds`, `constant` bool [n]."""

    keys: tuple[str, ...]
    vectors: np.ndarray
    sounds: Sequence[np.ndarray]
    constant: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, indices: np.ndarray) -> Descriptions:
        """Those at some places, in that order."""
        chosen = indices.tolist()
        return Descriptions(
            tuple(self.keys[i] for i in chosen),
            self.vectors[indices],
            [self.sounds[i] for i in chosen],
            self.constant[indices],
        )


def is_constant(waveform: np.ndarray) -> bool:
    """Whether a waveform float32 [samples] at 16 kHz holds nothing that tells it from others.

    So is one that moves by two steps of 16 bits at most (silence, one value throughout), lasts less than 50 ms, has a
    thousandth of its power or less between 70 and 3,600 Hz, or is one steady tone from beginning to end.
    """
    return describe(waveform).constant


def describe(waveform: np.ndarray) -> Description:
    """What `find_copies` needs of a waveform float32 [samples], mono, 16 kHz, of any length, finite.

    No more than its first ten seconds are looked at.
    """
    waveform = waveform[:LONGEST]
    still = len(waveform) < 2 * SEGMENT or float(np.ptp(waveform)) <= STILL
    if still:
        return Description(np.zeros(2 * BANDS, dtype=np.float32), np.zeros(0, dtype=np.int16), True)
    centred = torch.from_numpy(np.asarray(waveform, dtype=np.float32))
    centred = (centred - centred.mean()) / np.ptp(waveform).item()
    sound = _narrow(centred)
    # -30 dB: what the beginning and the end of a hum or a whistle outside the band leave in it.
    constant = float(sound.square().mean()) < 1e-3 * float(centred.square().mean()) or _is_steady(sound)
    sound = sound / sound.abs().max().clamp(min=1e-12)
    stored = (sound * 32_767).round().to(torch.int16).numpy()
    return Description(_vector(sound).numpy(), stored, constant)


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
        return Description(known.vectors[j], known.sounds[j], bool(known.constant[j]))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(one, range(len(keys))))
    vectors = np.stack([row.vector for row in rows]) if rows else np.zeros((0, 2 * BANDS), dtype=np.float32)
    constant = np.array([row.constant for row in rows], dtype=bool)
    return Descriptions(tuple(keys), vectors, [row.sound for row in rows], constant)


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
    index = {"keys": descriptions.keys, "lengths": lengths, "constant": descriptions.constant.tolist()}
    (folder / "descriptions.json").write_text(json.dumps(index))


def load(folder: Path) -> Descriptions:
    """What `save` wrote, the sounds mapped from their file. Raises OSError, ValueError or KeyError where damaged."""
    index = json.loads((folder / "descriptions.json").read_text())
    sounds, vectors = np.load(folder / "sounds.npy", mmap_mode="r"), np.load(folder / "vectors.npy")
    ends = np.cumsum(index["lengths"], dtype=np.int64)
    if not len(vectors) == len(ends) == len(index["keys"]) or (len(ends) and ends[-1] > len(sounds)):
        raise ValueError(f"the descriptions in {folder} do not fit together")
    parts = [sounds[end - length : end] for end, length in zip(ends.tolist(), index["lengths"], strict=True)]
    return Descriptions(tuple(index["keys"]), vectors, parts, np.array(index["constant"], dtype=bool))


def find_copies(requested: Descriptions, others: Descriptions, tau: float = TAU) -> list[Copy]:
    """The probable copies of the requested recordings among the others, by their places, sorted.

    Found are copies that hold six tenths of the original's sound, of what begins in its first ten seconds: encoded by
    MP3 or Ogg, resampled, louder or quieter, inverted, shifted, trimmed, with noise 20 dB below. Not found are shorter
    excerpts, copies played faster, with reverberation, or under other sounds as loud. Constant recordings, and a
    recording with its own key, are no copies of anything. results/copies.csv has shares, time and memory.
    """
    pairs = _candidates(requested, others)
    scores = np.zeros(len(pairs), dtype=np.float32)
    for block, n in _blocks(requested, others, pairs, BLOCK):
        scores[block] = _envelopes(requested, others, pairs[block], n)
    pairs = pairs[scores >= PROMISING]
    peaks = np.zeros(len(pairs), dtype=np.float32)
    for block, n in _blocks(requested, others, pairs, BLOCK // OVERSAMPLING):
        peaks[block] = _peaks(requested, others, pairs[block], n)
    found = zip(pairs.tolist(), peaks.tolist(), strict=True)
    return sorted(Copy(i, j, peak) for (i, j), peak in found if peak >= tau)


def _narrow(waveform: Tensor) -> Tensor:
    """16 kHz → 8 kHz, what lies between 70 and 3,600 Hz alone, by one pair of transforms."""
    n = _fast_length(len(waveform) + SAMPLE_RATE // 10)
    spectrum = torch.fft.rfft(waveform, n, norm="forward")[: n // 4 + 1]
    frequency = torch.arange(len(spectrum)) * (SAMPLE_RATE / n)
    # Edges of 60 and 200 Hz, the flat part between them.
    gain = ((frequency - LOWEST) / 60).clamp(0, 1) * ((HIGHEST + 200 - frequency) / 200).clamp(0, 1)
    return torch.fft.irfft(spectrum * gain, n // 2, norm="forward")[: (len(waveform) + 1) // 2]


def _is_steady(sound: Tensor) -> bool:
    """Whether a sound repeats itself at every lag: the least envelope of its autocorrelation up to half its length."""
    n, half = _fast_length(2 * len(sound)), len(sound) // 2
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


def _fast_length(n: int) -> int:
    """The least of 4, 5 and 6 times a power of two that is at least n: fast to transform, few different ones."""
    power = 1 << max(n - 1, 4).bit_length()
    return next(length for length in (power * 5 // 8, power * 3 // 4, power) if length >= n)


def _candidates(requested: Descriptions, others: Descriptions) -> np.ndarray:
    """Pairs int64 [pairs, 2] of places whose vectors lie within the radius, the nearest of each where they are many."""
    found = [np.zeros((0, 2), dtype=np.int64)]
    wanted = np.flatnonzero(~requested.constant)
    kept = np.flatnonzero(~others.constant)
    targets = torch.from_numpy(others.vectors[kept])
    own = {key: i for i, key in enumerate(others.keys)}
    for start in range(0, len(wanted), 64):
        rows = wanted[start : start + 64]
        distances = torch.cdist(torch.from_numpy(requested.vectors[rows]), targets).numpy()
        for i, distance in zip(rows.tolist(), distances, strict=True):
            near = np.flatnonzero(distance <= RADIUS)
            if len(near) > MOST_CANDIDATES:
                near = near[np.argpartition(distance[near], MOST_CANDIDATES)[:MOST_CANDIDATES]]
            j = kept[near]
            j = j[j != own.get(requested.keys[i], -1)]
            found.append(np.stack([np.full_like(j, i), j], axis=1))
    return np.concatenate(found)


def _blocks(
    requested: Descriptions, others: Descriptions, pairs: np.ndarray, samples: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Places of pairs to be correlated at once, and the length of their transforms, which holds both sounds."""
    ours = np.array([len(sound) for sound in requested.sounds], dtype=np.int64)
    theirs = np.array([len(sound) for sound in others.sounds], dtype=np.int64)
    both = ours[pairs[:, 0]] + theirs[pairs[:, 1]] if len(pairs) else np.zeros(0, dtype=np.int64)
    fitting = {n: _fast_length(n) for n in np.unique(both).tolist()}
    lengths = np.array([fitting[n] for n in both.tolist()], dtype=np.int64)
    for n in sorted(set(fitting.values())):
        places = np.flatnonzero(lengths == n)
        places = places[np.argsort(pairs[places, 1], kind="stable")]
        for start in range(0, len(places), max(samples // n, 1)):
            yield places[start : start + max(samples // n, 1)], n


def _spectra(descriptions: Descriptions, which: np.ndarray, n: int) -> Tensor:
    """The transforms complex64 [places, n/2 + 1] of sounds of unit energy, each computed once."""
    places, inverse = np.unique(which, return_inverse=True)
    padded = np.zeros((len(places), n), dtype=np.float32)
    for row, place in zip(padded, places.tolist(), strict=True):
        sound = descriptions.sounds[place]
        row[: len(sound)] = sound
    padded /= np.maximum(np.linalg.norm(padded, axis=1, keepdims=True), 1.0)
    return torch.fft.rfft(torch.from_numpy(padded))[torch.from_numpy(inverse)]


def _envelopes(requested: Descriptions, others: Descriptions, pairs: np.ndarray, n: int) -> np.ndarray:
    """The highest envelope of each pair's cross-correlation, float32 [pairs].

    The envelope sees neither polarity nor the half sample by which a copy may be shifted, so that every second lag
    will do: the inverse transform of the positive frequencies alone, at half the rate.
    """
    cross = _spectra(requested, pairs[:, 0], n) * _spectra(others, pairs[:, 1], n).conj()
    return torch.fft.ifft(cross[:, : n // 2]).abs().amax(1).numpy()


def _peaks(requested: Descriptions, others: Descriptions, pairs: np.ndarray, n: int) -> np.ndarray:
    """The pairs' peaks, float32 [pairs]: aligned to a fraction of a sample, correlated in whole and in segments."""
    ours, theirs = _spectra(requested, pairs[:, 0], n), _spectra(others, pairs[:, 1], n)
    lags, signs = _lags(ours * theirs.conj(), n)
    turn = -2 * np.pi / n * torch.arange(n // 2 + 1) * lags[:, None]
    mine = torch.fft.irfft(ours, n)
    aligned = torch.fft.irfft(theirs * torch.polar(torch.ones_like(turn), turn), n) * signs[:, None]
    lengths = torch.tensor([[len(requested.sounds[i]), len(others.sounds[j])] for i, j in pairs.tolist()])
    # Time is a circle of n samples, on which what begins before the requested sound lies at the end.
    time = torch.arange(n)
    overlap = (time < lengths[:, :1]) & ((time - lags[:, None]) % n < lengths[:, 1:])
    whole = (mine * aligned * overlap).sum(1)
    whole /= ((mine * overlap).norm(dim=1) * (aligned * overlap).norm(dim=1)).clamp(min=1e-12)
    return np.minimum(whole.numpy(), _least_run(mine, aligned, overlap, lengths.numpy()))


def _lags(cross: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """By how many samples the others come later, to about a hundredth, and the sign of the correlation there."""
    fine = torch.fft.irfft(torch.nn.functional.pad(cross, (0, (OVERSAMPLING - 1) * n // 2)), OVERSAMPLING * n)
    size, place = fine.abs().max(dim=1)
    around = (place[:, None] + torch.tensor([-1, 0, 1])) % (OVERSAMPLING * n)
    sign = fine.gather(1, around[:, 1:2])[:, 0].sign()
    left, middle, right = (fine.gather(1, around) * sign[:, None]).unbind(1)
    bend = left - 2 * middle + right
    vertex = torch.where(bend < -1e-9 * size, (left - right) / (2 * bend.clamp(max=-1e-20)), 0.0).clamp(-0.5, 0.5)
    steps = torch.where(place < OVERSAMPLING * n // 2, place, place - OVERSAMPLING * n)
    return (steps + vertex) / OVERSAMPLING, sign


def _least_run(mine: Tensor, aligned: Tensor, overlap: Tensor, lengths: np.ndarray) -> np.ndarray:
    """The least mean correlation of four active segments in a row (200 ms), or of all where there are fewer.

    A segment is active where it has a tenth of a sound's mean power. Zero where less than six tenths of either
    sound's active segments lie in the overlap, and where it has none.
    """
    n = mine.shape[1] // SEGMENT

    def summed(values: Tensor) -> np.ndarray:
        return values[:, : n * SEGMENT].reshape(len(values), n, SEGMENT).sum(2).numpy()

    powers = summed(mine.square()), summed(aligned.square())
    inside = summed(overlap.float()) > SEGMENT / 2
    active = [power * lengths[:, k : k + 1] > ACTIVE * SEGMENT for k, power in enumerate(powers)]  # of unit energy
    shared = [(loud & inside).sum(1) >= SHARED * loud.sum(1) for loud in active]
    products = summed(mine * aligned * overlap)
    sizes = np.sqrt(summed((mine * overlap).square()) * summed((aligned * overlap).square()))
    correlations = products / np.maximum(sizes, 1e-12)
    judged = (active[0] | active[1]) & inside & (shared[0] & shared[1])[:, None]
    least = np.zeros(len(mine), dtype=np.float32)
    for row, (values, chosen) in enumerate(zip(correlations, judged, strict=True)):
        if chosen.any():
            run = min(RUN, int(chosen.sum()))
            least[row] = np.convolve(values[chosen], np.full(run, 1 / run), mode="valid").min()
    return least
