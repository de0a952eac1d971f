"""Parts of recordings: names, windows, shared sound, and how a part is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_mu.data.audio import Span, read_clip, read_recording, seconds_of, source_hash
from audio_mu.data.segments import Heard, lengths, named, parted, recording_of, seconds_used, windows, without_format


@pytest.mark.parametrize(
    ("span", "name"),
    [
        (Span(12.0, 14.0), "a/b.wav#12.0-14.0"),
        (Span(0.1 + 0.2, 1e-3), "a/b.wav#0.3-0.001"),
        (Span(1e-6, 3600.25), "a/b.wav#0.000001-3600.25"),
        (None, "a/b.wav"),
    ],
)
def test_a_name_says_recording_and_part(span: Span | None, name: str) -> None:
    """Catches exponents, rounding of doubles in ids, and a name that does not lead back."""
    assert named("a/b.wav", span) == name
    assert parted(name) == ("a/b.wav", Span(*(round(v, 6) for v in span)) if span else None)


@pytest.mark.parametrize("name", ["a#1.wav", "a.wav#1-2", "#1.0-2.0", "a#1.0-2.0.wav", "a.wav#1.0-2.0\n"])
def test_a_file_with_a_hash_in_its_name_is_whole(name: str) -> None:
    """Catches a user's own `#` taken for a part."""
    assert recording_of(name) == name


def test_a_part_keeps_its_place_without_the_format() -> None:
    """Catches `a.wav#0.0-1.5` cut at the last point, which made all windows of a recording one."""
    assert [without_format(name) for name in ("a.wav#0.0-1.5", "a.b.flac", "d.x/a.wav#1.0-2.0")] == [
        "a#0.0-1.5", "a.b", "d.x/a#1.0-2.0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "window", "hop", "starts", "end"),
    [
        (3.0, 1.0, 1.0, [0, 1, 2], 3.0),
        (3.5, 1.0, 1.0, [0, 1, 2, 3], 3.5),  # half a window is enough
        (3.49, 1.0, 1.0, [0, 1, 2], 3.0),  # less is not
        (2.0, 1.0, 0.5, [0, 0.5, 1], 2.0),  # a rest that the last window has is none
        (2.2, 1.0, 0.5, [0, 0.5, 1, 1.5], 2.2),
        (5.0, 1.0, 2.0, [0, 2, 4], 5.0),  # gaps are asked for
        (0.3, 1.0, 1.0, [0], 0.3),  # a short recording is not lost
        (1.0, 0.4, 0.4, [0, 0.4, 0.8], 1.0),  # half a window, though 1 - 0.8 is less than 0.2
        (0.7, 0.1, 0.1, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 0.7),  # sums of tenths
    ],
)
def test_windows_of_a_recording(seconds: float, window: float, hop: float, starts: list[float], end: float) -> None:
    """Catches a rest that is lost or heard twice, a hop that drifts, and a short recording that vanishes."""
    found = windows(Span(10.0, 10.0 + seconds), window, hop)
    assert [span.start for span in found] == pytest.approx([10.0 + start for start in starts])
    assert found[-1].end == pytest.approx(10.0 + end)
    assert all(span.end - span.start == pytest.approx(window) for span in found[:-1])


def test_half_a_window_is_enough_whatever_its_length() -> None:
    """Catches a rest of exactly half a window that is lost to the rounding of doubles."""
    for tenths in range(2, 100, 2):
        for n in range(1, 50):
            half, window = tenths // 2 / 10, tenths / 10
            found = windows(Span(0.0, round(n * window + half, 1)), window, window)
            assert (len(found), named("a", found[-1])) == (n + 1, named("a", Span(n * window, n * window + half)))


def test_what_shares_sound() -> None:
    """Catches a part missed beside others, touching taken for sharing, and a whole that is no longer all its parts."""
    heard = Heard(["a.wav#1.0-2.0", "a.wav#0.0-5.0", "a.wav#3.0-4.0", "b.wav"])
    assert [*heard.sharing("a.wav#4.5-6.0")] == ["a.wav#0.0-5.0"]
    assert {*heard.sharing("a.wav#1.5-3.5")} == {"a.wav#1.0-2.0", "a.wav#0.0-5.0", "a.wav#3.0-4.0"}
    shared = {name: name in heard for name in ("a.wav", "a.wav#5.0-6.0", "b.wav#7.0-8.0", "b.wav", "c.wav", "c#1.wav")}
    assert shared == {
        "a.wav": True, "a.wav#5.0-6.0": False, "b.wav#7.0-8.0": True, "b.wav": True, "c.wav": False, "c#1.wav": False,
    }  # fmt: skip


def test_how_much_sound_is_used() -> None:
    """Catches sound counted twice for overlapping windows or beyond a clip, and a recording counted per part."""
    names, seconds = ["a#0.0-2.0", "a#1.0-3.0", "a#8.0-10.5", "b"], [10.0, 10.0, 10.0, 0.5]
    assert seconds_used(names, seconds, 2.0) == (3.0 + 2.0 + 0.5, 10.5)
    assert [*lengths(names, seconds)] == [2.0, 2.0, 2.0, 0.5]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_part_is_read_as_a_file_of_its_own(tmp_path: Path, suffix: str, rate: int) -> None:
    """Catches a seek that is off, sound read behind the part's end, and a hash of the whole file."""
    draw = np.random.default_rng(0)
    soundfile.write(path := tmp_path / f"long.{suffix}", draw.uniform(-0.5, 0.5, (rate * 4, 2)), rate)
    decoded, _ = soundfile.read(path, dtype="float32")
    span = Span(1.25, 2.0)
    part = decoded[round(1.25 * rate) : 2 * rate]
    soundfile.write(own := tmp_path / "own.wav", part, rate, subtype="FLOAT")
    for samples in (8_000, 12_000, 20_000):
        from_part, from_file = read_clip(path, samples, span), read_clip(own, samples)
        assert np.abs(from_part.waveform - from_file.waveform).max() <= 2e-7
        if suffix != "mp3":  # whose decoder rounds the last bit by how, and into what memory, it is read
            assert (from_part.hash, from_part.source_hash) == (from_file.hash, from_file.source_hash)
    assert np.abs(read_recording(path, 100_000, span) - read_recording(own, 100_000)).max() <= 2e-7
    assert seconds_of(path) == pytest.approx(4.0, abs=0.1)
    assert source_hash(path) == (read_clip(path, 16_000).source_hash, False) or suffix == "mp3"
    assert from_part.seconds == pytest.approx(4.0, abs=0.1)


def test_channels_that_cancel_are_told_in_a_part_too(tmp_path: Path) -> None:
    """Catches the louder channel read from the file's beginning."""
    wave = np.random.default_rng(1).uniform(-0.5, 0.5, 48_000).astype(np.float32)
    soundfile.write(path := tmp_path / "x.wav", np.c_[wave, -wave], 16_000, subtype="FLOAT")
    assert np.array_equal(read_clip(path, 16_000, Span(1.0, 2.0)).waveform, wave[16_000:32_000])
