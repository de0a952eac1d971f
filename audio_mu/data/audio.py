"""Reading one recording: mono, 16 kHz, exactly the clip's length, or a reason why not."""

from __future__ import annotations

import hashlib
import math
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

from audio_mu.data.segments import Span
from audio_mu.system.hashing import sha256

SAMPLE_RATE = 16_000
MAX_CHANNELS = 64
RESAMPLE_MARGIN = 0.1  # seconds read beyond the clip so that the resampling filter sees what follows the cut
MAX_AMPLITUDE = 1e6  # of full scale; far more would overflow the power spectrum in float32
BLOCK = 1 << 16  # frames decoded at once: what a header claims is never allocated
MAX_HASHED = 57_600_000  # samples of all channels: ten minutes of 48 kHz stereo, under a second
CANCELLED = 1e-4  # of the louder channel's power: less is left of channels in opposite phase
OTHER_LENGTH = "of another length than the header says"
OPPOSITE_PHASE = "channels in opposite phase: the louder one taken"
NO_END = 1 << 62  # frames
UNKNOWN_SIZE = 0x7FFF_F000  # bytes of sound from which a WAV header says that it was written to a stream
WHOLE = 0.95  # of a recording's samples; a header of MP3 may be off by a few
MAX_REDUCED_RATE = 200_000  # of a rate without common divisor with ours: scipy's filter has 20 entries for each
MAX_KERNEL = 2_000_000  # entries of torchaudio's resampling kernel; 44,101 Hz would take 12 GB and a minute a clip


class BadRecording(Exception):
    """Why a file cannot be used; the message does not name the file."""


@dataclass(frozen=True)
class Prepared:
    """A waveform float32 [clip_samples] at 16 kHz, its SHA-256, and the changes that it took, in words.

    `source_hash` is the SHA-256 of what the file holds (see `read_clip`), before anything was done to it. `constant`:
    all samples of the clip are one value, as in silence; `constant_source`: all samples of the file are. `seconds`: of
    the file.
    """

    waveform: np.ndarray
    hash: str
    changes: tuple[str, ...]
    source_hash: str
    constant: bool
    constant_source: bool
    seconds: float


def read_clip(path: Path, clip_samples: int, span: Span | None = None, *, whole: bool = True) -> Prepared:
    """A recording, or a part of it as if that were all, as a clip.

    Channels averaged, resampled to 16 kHz, zero-padded on the right or cropped. Where the channels cancel each other
    (their average has less than a ten-thousandth of the louder one's power in the clip), the louder one is taken
    instead. No more than the clip is kept in memory, whatever the header claims.

    The source hash covers rate, channels and every decoded sample as float32: a WAV, a FLAC and an AIFF of the same
    samples agree, on every machine, and so do copies under another clip length or in several channels that are all the
    same; another rate or one other sample does not. Formats that lose (MP3, Ogg) are hashed as the decoder gives them,
    which may differ from one decoder to the next, and for MP3 in the last bit by how it is read. It ends
    after 57.6 million samples (ten minutes of 48 kHz stereo, an hour of 16 kHz mono) or where the rest cannot be
    decoded: longer recordings are told apart by that much.

    Raises `BadRecording` for what is no audio or no regular file (a pipe would be waited for, a device never ends),
    is empty, or holds values that are not finite in the clip; with `whole` for what holds another amount of sound than
    its header says, as published data sets do here and there.
    """
    with _opened(path, span) as recording:
        rate, channels = recording.samplerate, recording.channels
        source = _SourceHash(rate, channels)
        there = _frames_there(recording, span)
        frames = min(_frames(clip_samples, rate), there)
        mono, cancelled = _read_mono(recording, frames, source.add)
        if len(mono) == frames:  # else its end has been read
            _hash_rest(recording, source, there - frames)
        fault = _fault_of_wav(path, path.stat().st_size)
        promised = min(there, recording.frames - (round(span.start * rate) if span else 0))
        if len(mono) < WHOLE * promised < _frames(clip_samples, rate):
            fault = f"is cut short: {len(mono):,} of {promised:,} samples are there"
        if fault and whole:
            raise BadRecording(fault)
        seconds = recording.frames / rate
    if cancelled is not None:
        mono = _read_channel(path, frames, cancelled, span)
    recorded, mono = mono, _at_sample_rate(mono, rate)
    clip = np.zeros(clip_samples, dtype=np.float32)
    clip[: len(mono)] = mono[:clip_samples]
    done = {
        "mixed down": channels > 1 and cancelled is None,
        OPPOSITE_PHASE: cancelled is not None,
        "resampled": rate != SAMPLE_RATE,
        "cut": len(mono) > clip_samples,
        "padded": len(mono) < clip_samples,
        OTHER_LENGTH: bool(fault),
    }
    changes = tuple(words for words, applies in done.items() if applies)
    constant = min(np.ptp(recorded), np.ptp(mono[:clip_samples])) == 0  # resampling makes waves of a constant's ends
    digest = source.hexdigest()
    return Prepared(clip, sha256(clip.tobytes()), changes, digest, bool(constant), source.constant, seconds)


def read_recording(path: Path, longest: int, span: Span | None = None) -> np.ndarray:
    """The first `longest` samples of a recording or a part of it, or as many as it has: float32 [samples], mono,
    16 kHz, not padded.

    Channels and rate as in `read_clip`, which raises the same errors.
    """
    with _opened(path, span) as recording:
        rate = recording.samplerate
        frames = min(_frames(longest, rate), _frames_there(recording, span))
        mono, cancelled = _read_mono(recording, frames, lambda block: None)
    if cancelled is not None:
        mono = _read_channel(path, frames, cancelled, span)
    return _at_sample_rate(mono, rate)[:longest]


def source_hash(path: Path) -> tuple[str, bool]:
    """The source hash of a whole file, as `read_clip` has it, and whether all its samples are one value."""
    return _source_hash(path, *_version(path))


@lru_cache(maxsize=16)  # the parts of a recording come one after the other
def _source_hash(path: Path, size: int, changed: int) -> tuple[str, bool]:
    with _opened(path) as recording:
        source = _SourceHash(recording.samplerate, recording.channels)
        _hash_rest(recording, source)
    return source.hexdigest(), source.constant


def seconds_of(path: Path) -> float:
    """How long a recording is, by its header. Raises `BadRecording` as `read_clip` does."""
    return _seconds_of(path, *_version(path))


@lru_cache(maxsize=1 << 16)  # a command lists its folder several times
def _seconds_of(path: Path, size: int, changed: int) -> float:
    with _opened(path) as recording:
        return recording.frames / recording.samplerate


def _version(path: Path) -> tuple[int, int]:
    try:
        about = path.stat()
    except OSError as error:
        raise BadRecording(f"cannot be read as audio ({error.strerror})") from None
    return about.st_size, about.st_mtime_ns


class _SourceHash:
    """SHA-256 of rate, channels and decoded samples, up to a bound that does not depend on the blocks read.

    Channels that are all the same count as one.
    """

    def __init__(self, rate: int, channels: int) -> None:
        self._every, self._first = (
            hashlib.sha256(f"{rate} Hz, {number} channels\n".encode()) for number in (channels, 1)
        )
        self.frames_left = MAX_HASHED // channels
        self._one = channels > 1  # there are several, all the same so far
        self.constant = True  # all samples are one value
        self._value: float | None = None

    def add(self, samples: np.ndarray) -> None:
        """Add a block float32 [frames, channels]."""
        samples = samples[: self.frames_left]
        self._every.update(np.ascontiguousarray(samples, dtype="<f4").data)
        if self._one:
            self._one = bool((samples == samples[:, :1]).all())
            self._first.update(np.ascontiguousarray(samples[:, 0], dtype="<f4").data)
        if self.constant and samples.size:
            self._value = float(samples.flat[0]) if self._value is None else self._value
            self.constant = bool((samples == self._value).all())
        self.frames_left -= len(samples)

    def hexdigest(self) -> str:
        """The hash."""
        return (self._first if self._one else self._every).hexdigest()


@contextmanager
def _opened(path: Path, span: Span | None = None) -> Iterator[soundfile.SoundFile]:
    """A recording that can be read, from where the part begins; what goes wrong in opening or reading it is told as
    `BadRecording`."""
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
            if span is not None:
                recording.seek(min(round(span.start * rate), recording.frames))
            yield recording
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        reason = str(error).replace(str(path), "it").strip().rstrip(".")
        raise BadRecording(f"cannot be read as audio ({reason})") from None


def _fault_of_wav(path: Path, size: int) -> str:
    """Why a WAV file holds another amount of sound than its header says; empty for whole ones and other formats.

    The decoder takes what is there, so that half a recording would pass for a short one. A size of two gigabytes and
    more is what programs write that cannot know it yet.
    """
    with path.open("rb") as stream:
        start = stream.read(12)
        if start[:4] != b"RIFF" or start[8:] != b"WAVE":
            return ""
        end, place = min(size, 8 + int.from_bytes(start[4:8], "little")), len(start)
        while place + 8 <= size:
            stream.seek(place)
            name, claimed = stream.read(4), int.from_bytes(stream.read(4), "little")
            place += 8
            if name == b"data":
                if claimed >= UNKNOWN_SIZE:
                    return ""
                if claimed > size - place:
                    return f"is cut short: {size - place:,} of the {claimed:,} bytes of sound in its header are there"
                stream.seek(place + claimed)
                rest = stream.read(min(9, max(0, end - place - claimed)))
                if (claimed == 0 and size > place) or _is_sound(rest):
                    return f"holds more sound than the {claimed:,} bytes in its header"
                return ""
            place += claimed + claimed % 2
    return ""


def _is_sound(rest: bytes) -> bool:
    """Whether what follows the sound of a WAV file, perhaps after a filling byte, is no chunk and no filling."""
    names = (rest[:4], rest[1:5])
    return len(rest) > 8 and any(rest) and not any(name.isascii() and name.decode().isprintable() for name in names)


def _frames(samples: int, rate: int) -> int:
    """How many frames of a file are read for so many samples at 16 kHz."""
    return int((samples / SAMPLE_RATE + RESAMPLE_MARGIN) * rate) + 1


def _frames_there(recording: soundfile.SoundFile, span: Span | None) -> int:
    """How many frames of a file a part has at most; of a whole one its header is not believed."""
    return NO_END if span is None else round(span.end * recording.samplerate) - round(span.start * recording.samplerate)


def _blocks(recording: soundfile.SoundFile, frames: int) -> Iterator[np.ndarray]:
    """The next so many frames, or as many as there are, in blocks float32 [block, channels]."""
    while frames > 0:
        samples = recording.read(min(frames, BLOCK), dtype="float32", always_2d=True)
        if not len(samples):
            break
        yield samples
        frames -= len(samples)


def _read_mono(
    recording: soundfile.SoundFile, frames: int, see: Callable[[np.ndarray], None]
) -> tuple[np.ndarray, int | None]:
    """The first so many frames averaged over the channels, and the louder channel where these cancel each other.

    `see` is shown every block before it is averaged.
    """
    mixed: list[np.ndarray] = []
    power, mixed_power = np.zeros(recording.channels), 0.0
    for samples in _blocks(recording, frames):
        see(samples)
        if samples.shape[1] == 1:
            mixed.append(samples[:, 0])
            continue
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            mixed.append(samples.mean(axis=1, dtype=np.float32))
            power += np.einsum("tc,tc->c", samples, samples)
            mixed_power += float(mixed[-1] @ mixed[-1])
    cancel = recording.channels > 1 and mixed_power < CANCELLED * power.max()
    return np.concatenate(mixed) if mixed else np.zeros(0, dtype=np.float32), int(power.argmax()) if cancel else None


def _read_channel(path: Path, frames: int, channel: int, span: Span | None) -> np.ndarray:
    with _opened(path, span) as recording:
        return np.concatenate([samples[:, channel] for samples in _blocks(recording, frames)])


def _hash_rest(recording: soundfile.SoundFile, source: _SourceHash, there: int = NO_END) -> None:
    """Add what follows the clip. Damage there takes nothing from the clip, so that it only ends the hash."""
    with suppress(soundfile.SoundFileError, OSError, RuntimeError):
        for samples in _blocks(recording, min(there, source.frames_left)):
            source.add(samples)


def _at_sample_rate(mono: np.ndarray, rate: int) -> np.ndarray:
    """At 16 kHz. Raises `BadRecording` where there is nothing, or nothing to compute with."""
    if len(mono) == 0:
        raise BadRecording("holds no samples")
    if not np.isfinite(mono).all():
        raise BadRecording("holds samples that are not finite numbers")
    if np.abs(mono).max() > MAX_AMPLITUDE:
        raise BadRecording(f"holds samples beyond {MAX_AMPLITUDE:g} times full scale")
    return mono if rate == SAMPLE_RATE else _resampled(np.ascontiguousarray(mono), rate)


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
