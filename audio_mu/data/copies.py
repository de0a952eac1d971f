"""Probable copies: recordings that hold the same sound in another file format, rate, level, length or noise.

A copy's waveform follows the original's through all of the sound; another take of the same word by the same speaker
does so for a few periods of the voice at most. So two recordings are aligned where their cross-correlation is highest
(Knapp and Carter 1976, "The generalized correlation method for estimation of time delay", with unit weights), and the
correlation coefficient is taken there, over the whole overlap and over every 200 ms of sound in it: the lower one is
the pair's peak. A common beginning (a jingle) or one loud vowel is thereby no copy.

The cross-correlation is not computed for every pair. A vector of 32 numbers, which neither level nor time shift
moves much, leaves about one pair in a hundred; the envelope of the cross-correlation leaves few of these.
experiments/copies.py measures what is found, what is found wrongly, and how long it takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from audio_mu.data.descriptions import Descriptions, fast_length

TAU = 0.95  # the least peak of a probable copy, by experiments/copies.py, on speakers that its recall is not of
RADIUS = 2.5  # between vectors of a pair that is looked at
MOST_CANDIDATES = 1_000  # of one recording, the nearest: bounds the time where all recordings sound alike
PROMISING = 0.5  # least envelope of the cross-correlation of a pair that is aligned
OVERSAMPLING = 4  # of the lag, in the alignment
SEGMENT, RUN = 400, 4  # samples at 8 kHz (50 ms), and how many segments in a row are judged together
SHARED = 0.6  # of each recording's heard segments must lie in the overlap: two may begin alike and go on otherwise
ACTIVE = 0.1  # of the mean power: noise 20 dB below the whole may cover quieter segments
FAINT, ABOVE = 0.001, 10  # of the mean power, and times the noise: what is louder is heard, if not active
AGREEING, PAIR = 0.5, 2  # least mean correlation of so many segments in a row that are heard
BLOCK = 1 << 24  # samples of pairs that are correlated at once


class Copy(NamedTuple):
    """Two recordings of one sound, by their places in what was compared; `peak` is at least tau, 1 at most."""

    requested: int
    other: int
    peak: float


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


def _candidates(requested: Descriptions, others: Descriptions) -> np.ndarray:
    """Pairs int64 [pairs, 2] of places whose vectors lie within the radius, the nearest of each where they are many."""
    found = [np.zeros((0, 2), dtype=np.int64)]
    wanted = np.flatnonzero(~requested.featureless)
    kept = np.flatnonzero(~others.featureless)
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
    fitting = {n: fast_length(n) for n in np.unique(both).tolist()}
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

    A segment is active where it has a tenth of a sound's mean power, and heard where it stands 10 dB above the sound's
    noise, the power of its quietest tenth. Zero where less than six tenths of either sound's heard segments lie in the
    overlap, where no active one does, and where what is heard above the noise of both contradicts: words behind a loud
    jingle are no more than heard.
    """
    n = mine.shape[1] // SEGMENT

    def summed(values: Tensor) -> np.ndarray:
        return values[:, : n * SEGMENT].reshape(len(values), n, SEGMENT).sum(2).numpy()

    inside = summed(overlap.float()) > SEGMENT / 2
    # In parts of the mean power: the sounds have unit energy.
    powers = [summed(sound.square()) * lengths[:, k : k + 1] / SEGMENT for k, sound in enumerate((mine, aligned))]
    active = (powers[0] > ACTIVE) | (powers[1] > ACTIVE)
    least_heard = [_least_heard(power, lengths[:, k]) for k, power in enumerate(powers)]
    heard = [power > threshold for power, threshold in zip(powers, least_heard)]
    shared = np.logical_and(*((loud & inside).sum(1) >= SHARED * loud.sum(1) for loud in heard))
    above_both = np.maximum(*powers) > np.maximum(*least_heard)
    products = summed(mine * aligned * overlap)
    sizes = np.sqrt(summed((mine * overlap).square()) * summed((aligned * overlap).square()))
    correlations = products / np.maximum(sizes, 1e-12)
    least = np.zeros(len(mine), dtype=np.float32)
    for row, values in enumerate(correlations):
        judged = active[row] & inside[row]
        if shared[row] and judged.any() and _weakest(values[above_both[row] & inside[row]], PAIR) >= AGREEING:
            least[row] = _weakest(values[judged], RUN)
    return least


def _least_heard(powers: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The power [sounds, 1] from which the segments of sounds are heard; what follows their end counts for nothing."""
    quietest = [np.quantile(np.sort(row)[-max(length // SEGMENT, 1) :], 0.1) for row, length in zip(powers, lengths)]
    return np.clip(ABOVE * np.array(quietest), FAINT, ACTIVE)[:, None]


def _weakest(correlations: np.ndarray, run: int) -> float:
    """The least mean of so many segments in a row, or of all where there are fewer."""
    run = min(run, len(correlations))
    return float(np.convolve(correlations, np.full(run, 1 / run), mode="valid").min())
