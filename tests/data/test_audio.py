"""Reading one recording: its clip, its own hash, and channels that cancel each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from audio_mu.data import audio
from audio_mu.data.audio import BadRecording, read_clip, read_recording

N_SAMPLES = 16_000


def written(path: Path, samples: np.ndarray, rate: int = 16_000, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def noise(n: int = 20_000, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Samples that 16 bits hold exactly, float64 [n, channels]."""
    return np.random.default_rng(seed).integers(-20_000, 20_000, (n, channels)) / 32_768


@pytest.mark.parametrize(("name", "subtype"), [("x.flac", "PCM_16"), ("x.aiff", "PCM_24"), ("float.wav", "FLOAT")])
def test_source_hash_is_of_the_samples_not_of_the_file(tmp_path: Path, name: str, subtype: str) -> None:
    """Catches a hash of bytes, of integers as they are stored, or of the header."""
    samples = noise(channels=2)
    plain = read_clip(written(tmp_path / "plain.wav", samples), N_SAMPLES)
    assert read_clip(written(tmp_path / name, samples, subtype=subtype), N_SAMPLES).source_hash == plain.source_hash


def test_source_hash_sees_what_the_clip_does_not(tmp_path: Path) -> None:
    """Catches a hash of the prepared clip: of its length, mixed down, resampled, or without what follows its end."""
    samples = noise()
    path = written(tmp_path / "x.wav", samples)
    source = read_clip(path, N_SAMPLES).source_hash
    assert {read_clip(path, n).source_hash for n in (100, 8_000, 20_000, 50_000)} == {source}
    samples[-1] += 1 / 32_768
    others = [
        read_clip(written(tmp_path / "end.wav", samples), N_SAMPLES),
        read_clip(written(tmp_path / "longer.wav", np.r_[noise(), np.zeros((1, 1))]), N_SAMPLES),
        read_clip(written(tmp_path / "rate.wav", noise(), rate=16_001), N_SAMPLES),
        read_clip(written(tmp_path / "channels.wav", np.c_[noise(), noise() / 2]), N_SAMPLES),
    ]
    assert len({other.source_hash for other in others} | {source}) == 5


@pytest.mark.parametrize("n", [100, 8_000, 50_000])
def test_equal_channels_count_as_one(tmp_path: Path, n: int) -> None:
    """Catches a recording that passes for another one, at another clip length, because a player wrote it in stereo."""
    samples = noise()
    source = read_clip(written(tmp_path / "x.wav", samples), N_SAMPLES).source_hash
    assert read_clip(written(tmp_path / "stereo.wav", np.tile(samples, 2)), n).source_hash == source
    late = np.tile(samples, 2)
    late[-1, 1] += 1 / 32_768
    assert read_clip(written(tmp_path / "late.wav", late), n).source_hash != source


def test_source_hash_is_what_the_words_say(tmp_path: Path) -> None:
    """Catches another order of samples, byte order or header than the published one: stored hashes would miss."""
    import hashlib

    samples = noise(channels=2)
    expected = hashlib.sha256(b"16000 Hz, 2 channels\n" + samples.astype("<f4").tobytes()).hexdigest()
    assert read_clip(written(tmp_path / "x.wav", samples), N_SAMPLES).source_hash == expected


def test_source_hash_ends_at_its_bound_whatever_is_read_for_the_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches hours decoded for one clip, and a bound that moves with the clip's length or the blocks."""
    monkeypatch.setattr(audio, "MAX_HASHED", 10_000)
    first, second = noise(200_000), noise(200_000)
    second[10_000:] = 0
    paths = [written(tmp_path / f"{i}.wav", samples) for i, samples in enumerate((first, second, second[:9_999]))]
    hashes = [[read_clip(path, n).source_hash for n in (1_000, 50_000)] for path in paths]
    assert hashes[0] == hashes[1] and hashes[0][0] == hashes[0][1]
    assert hashes[2][0] not in hashes[0]


def test_damage_behind_the_clip_takes_nothing_from_it(tmp_path: Path) -> None:
    """Catches a recording refused for what its clip does not hold."""
    path = written(tmp_path / "x.flac", noise(400_000))
    before = read_clip(path, N_SAMPLES)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    after = read_clip(path, N_SAMPLES)
    assert np.array_equal(after.waveform, before.waveform)
    assert after.source_hash != before.source_hash


@pytest.mark.parametrize("left", [0.0, 0.005])
def test_opposite_phase_is_told_and_the_louder_channel_taken(tmp_path: Path, left: float) -> None:
    """Catches a clip of silence, or of what little two cancelling channels leave, made without a word."""
    voice = noise()[:, 0]
    path = written(tmp_path / "x.wav", np.stack([-voice, voice * (1 + left)], axis=1), subtype="FLOAT")
    prepared = read_clip(path, N_SAMPLES)
    assert prepared.changes == ("channels in opposite phase: the louder one taken", "cut")
    expected = -voice if left == 0 else voice * (1 + left)
    assert np.array_equal(prepared.waveform, expected[:N_SAMPLES].astype(np.float32))
    assert np.array_equal(read_recording(path, N_SAMPLES), prepared.waveform)


@pytest.mark.parametrize("second", [0.0, 1.0, -0.9])
def test_other_stereo_is_averaged(tmp_path: Path, second: float) -> None:
    """Catches one silent channel, or channels that cancel in part, taken for opposite phase."""
    voice = noise()[:, 0]
    path = written(tmp_path / "x.wav", np.stack([voice, second * voice], axis=1), subtype="FLOAT")
    prepared = read_clip(path, N_SAMPLES)
    assert prepared.changes == ("mixed down", "cut")
    both = soundfile.read(path, dtype="float32")[0]
    assert np.array_equal(prepared.waveform, both.mean(axis=1, dtype=np.float32)[:N_SAMPLES])


def test_silent_stereo_is_no_opposite_phase(tmp_path: Path) -> None:
    """Catches silence told as channels that cancel."""
    path = written(tmp_path / "x.wav", np.zeros((N_SAMPLES, 2)))
    assert read_clip(path, N_SAMPLES).changes == ("mixed down",)


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (8_000, 1)])
def test_a_recording_is_read_as_its_clip_is(
    tmp_path: Path, record: Callable[..., Path], rate: int, channels: int
) -> None:
    """Catches a description of another sound than the network's, padding that would be compared, and no bound."""
    path = record(tmp_path / "x.wav", seconds=0.5, rate=rate, channels=channels)
    whole = read_recording(path, N_SAMPLES)
    assert (whole.shape, whole.dtype) == ((8_000,), np.float32)
    assert np.array_equal(whole, read_clip(path, 8_000).waveform)
    assert len(read_recording(path, 2_000)) == 2_000


def test_unreadable_recordings_raise_the_same_error(tmp_path: Path) -> None:
    """Catches a library's exception from the search for copies where the clips' reader has one of its own."""
    (tmp_path / "x.wav").write_bytes(b"RIFF")
    for read in (read_clip, read_recording):
        with pytest.raises(BadRecording, match="cannot be read as audio"):
            read(tmp_path / "x.wav", N_SAMPLES)


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
