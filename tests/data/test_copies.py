"""Probable copies: every alteration is found, other takes and recordings without sound of their own are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_mu.data.audio import SAMPLE_RATE, read_recording
from audio_mu.data.copies import TAU, Copy, find_copies
from audio_mu.data.descriptions import LONGEST, Descriptions, describe, described, load, save
from tests.alterations import ALTERATIONS, sweep


def of(waveforms: Sequence[np.ndarray], name: str = "") -> Descriptions:
    return described([f"{name}{i}" for i in range(len(waveforms))], lambda i: waveforms[i].astype(np.float32))


def pairs(found: list[Copy]) -> list[tuple[int, int]]:
    return [(copy.requested, copy.other) for copy in found]


def hiss(seed: int, seconds: float = 1.0, level: float = 0.1) -> np.ndarray:
    return level * np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE))


@pytest.fixture(scope="module")
def glides() -> list[np.ndarray]:
    return [sweep(i) for i in range(12)]


@pytest.fixture(scope="module")
def words(real_speech: Path) -> list[np.ndarray]:
    """Two words of two speakers, four takes each: 16 real recordings."""
    root = real_speech / "arabic_commands_folder"
    paths = sorted(path for word in ("open", "zero") for path in root.glob(f"{word}/0000000[12]_*.flac"))
    assert len(paths) == 16
    return [read_recording(path, LONGEST) for path in paths]


@pytest.mark.parametrize("alteration", list(ALTERATIONS))
@pytest.mark.parametrize("kind", ["glides", "words"])
def test_altered_copies_are_found(kind: str, alteration: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Catches a lag, level, polarity, rate or codec that hides a copy, and a copy taken for one of another original."""
    originals = request.getfixturevalue(kind)
    chosen = list(range(0, len(originals), 5))
    files = [ALTERATIONS[alteration](originals[i], tmp_path / str(i)) for i in chosen]
    altered = of([read_recording(path, LONGEST) for path in files], "altered ")
    found = find_copies(of(originals), altered)
    assert pairs(found) == [(i, place) for place, i in enumerate(chosen)]
    assert all(TAU <= copy.peak <= 1.00001 for copy in found)


@pytest.mark.parametrize("seed", range(3))
def test_a_little_louder_and_a_millisecond_shorter(glides: list[np.ndarray], seed: int) -> None:
    """Catches the copies that an exact hash misses and nobody hears."""
    altered = 1.01 * glides[seed][SAMPLE_RATE // 1_000 + 1 :]
    assert pairs(find_copies(of(glides), of([altered], "altered "))) == [(seed, 0)]


def test_half_a_sample_hides_no_copy_of_a_hiss() -> None:
    """Catches a lag rounded to samples at 8 kHz: what sounds at 3 kHz would be a third of a period off."""
    whole = hiss(0, 1.5)
    whole = whole - np.convolve(whole, np.full(8, 1 / 8), mode="same")  # little below 1 kHz
    [copy] = find_copies(of([whole]), of([whole[3_001:-2_000]], "altered "))
    assert copy.peak > 0.99


def test_other_takes_of_synthetic_digits_are_no_copies(small_digits: Path) -> None:
    """Catches a vowel of one voice that counts for a whole word."""
    recordings = [read_recording(path, LONGEST) for path in sorted(small_digits.glob("*/*.wav"))]
    assert len(recordings) == 180
    digits = of(recordings)
    assert find_copies(digits, digits) == []


def test_other_takes_of_real_words_are_no_copies(real_speech: Path) -> None:
    """Catches a threshold that takes the takes nearest to each other for copies, and misses the one that is a copy."""
    root = real_speech / "arabic_commands_folder"
    # By results/copies.csv the highest peaks of two takes: 0.93 and below; the last two files are one recording.
    names = [f"{word}/000000{take}.flac" for word, take in (
        ("zero", "16_NO_01"), ("zero", "16_NO_02"), ("zero", "16_NO_03"), ("open", "09_NO_01"), ("open", "09_NO_03"),
        ("open", "04_NO_01"), ("open", "04_NO_02"), ("options", "07_NO_01"), ("options", "07_NO_03"),
    )]  # fmt: skip
    takes = of([read_recording(root / name, LONGEST) for name in names])
    assert pairs(find_copies(takes, takes)) == [(7, 8), (8, 7)]


@pytest.mark.parametrize(
    "waveform",
    [
        np.zeros(SAMPLE_RATE),
        np.full(SAMPLE_RATE, 0.25),
        np.random.default_rng(0).integers(-1, 2, SAMPLE_RATE) / 32_768,
        0.3 * np.sin(np.arange(SAMPLE_RATE) / 7),
        0.3 * np.sin(np.arange(SAMPLE_RATE) / 7) + hiss(0, level=0.001),
        0.3 * np.sin(2 * np.pi * 50 / SAMPLE_RATE * np.arange(SAMPLE_RATE)),
        0.3 * np.sin(2 * np.pi * 6_000 / SAMPLE_RATE * np.arange(SAMPLE_RATE)),
        np.zeros(0),
        np.ones(300),
    ],
    ids=["silence", "offset", "last bit", "tone", "tone in a room", "hum", "whistle", "nothing", "a moment"],
)
def test_recordings_without_a_sound_of_their_own_are_never_matched(waveform: np.ndarray) -> None:
    """Catches recordings without a sound of their own that are all copies of each other, or that end in NaN."""
    waveform = waveform.astype(np.float32)
    assert describe(waveform).featureless
    same = of([waveform, waveform, sweep(0)])
    assert same.featureless.tolist() == [True, True, False]
    assert find_copies(same, of([waveform, waveform], "other ")) == []
    assert np.isfinite(same.vectors).all()


def test_what_has_a_sound_of_its_own_is_compared(glides: list[np.ndarray]) -> None:
    """Catches quiet, short or noisy recordings that are left out of the search."""
    for waveform in (glides[0], glides[0] / 1_000, hiss(0), hiss(0, 0.1), np.r_[np.zeros(16_000), hiss(1, 0.2)]):
        assert not describe(waveform.astype(np.float32)).featureless


def test_a_common_second_of_silence_is_no_copy(glides: list[np.ndarray]) -> None:
    """Catches recordings matched by a beginning of digital silence; their copies must still be found."""
    late = [np.r_[np.zeros(SAMPLE_RATE), glide] for glide in glides]
    found = find_copies(of(late), of([*late, *glides], "other "))
    assert pairs(found) == sorted([(i, i) for i in range(12)] + [(i, i + 12) for i in range(12)])


@pytest.mark.parametrize("seconds", [1.0, 2.0])
@pytest.mark.parametrize("level", [0.5, 1.0, 2.0, 8.0])
def test_a_common_jingle_is_no_copy(words: list[np.ndarray], level: float, seconds: float) -> None:
    """Catches recordings of other people matched by a jingle before their words, up to eight times as loud as these."""
    jingle = sweep(99, seconds)
    spoken = [np.r_[level * jingle * np.abs(word).max() / np.abs(jingle).max(), word] for word in words]
    found = find_copies(of(spoken), of([0.5 * sound[1_001:] for sound in spoken], "other "))
    assert pairs(found) == [(i, i) for i in range(len(words))]


def test_a_jingle_alone_is_no_copy_of_what_follows_it(glides: list[np.ndarray]) -> None:
    """Catches the half that two recordings share taken for the whole."""
    jingle = sweep(99)
    spoken = [np.r_[jingle, glide] for glide in glides]
    assert find_copies(of(spoken), of([jingle], "other ")) == []


def test_a_recording_is_no_copy_of_itself(glides: list[np.ndarray]) -> None:
    """Catches every request that lists its own recordings; equal keys name one file."""
    all_ = of(glides)
    assert find_copies(all_.take(np.array([3, 5])), all_) == []


def test_places_are_those_of_the_given_order_and_constant_ones_keep_theirs(glides: list[np.ndarray]) -> None:
    """Catches indices into what is left after constant recordings, and lengths of several transforms mixed up."""
    silence, long = np.zeros(SAMPLE_RATE), sweep(50, 7.0)
    others = of([silence, glides[4], long, silence, glides[2][: SAMPLE_RATE * 9 // 10], long[SAMPLE_RATE // 2 :]])
    requested = of([silence, long, glides[2], glides[4]], "requested ")
    assert pairs(find_copies(requested, others)) == [(1, 2), (1, 5), (2, 4), (3, 1)]


def test_no_more_than_ten_seconds_are_looked_at() -> None:
    """Catches memory that grows with the recording; ten seconds are enough to know an hour by."""
    hour = np.concatenate([sweep(i, 4.0) for i in range(4)])
    one = describe(hour.astype(np.float32))
    assert len(one.sound) == LONGEST // 2
    assert pairs(find_copies(of([hour]), of([hour[800:], hour[80_000:]], "other "))) == [(0, 0)]


def test_blocks_change_nothing(glides: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches pairs lost or mixed up between the blocks that bound the memory."""
    others = of([glide[::-1] for glide in glides] + [-glide for glide in glides], "other ")
    whole = find_copies(of(glides), others)
    monkeypatch.setattr("audio_mu.data.copies.BLOCK", 40_000)
    parts = find_copies(of(glides), others)
    assert pairs(parts) == pairs(whole) == [(i, i + 12) for i in range(12)]
    np.testing.assert_allclose([copy.peak for copy in parts], [copy.peak for copy in whole], atol=1e-5)


def test_many_alike_are_bounded_to_the_nearest(glides: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches the copy dropped among those that merely sound alike when time is bounded."""
    monkeypatch.setattr("audio_mu.data.copies.MOST_CANDIDATES", 1)
    assert pairs(find_copies(of(glides[:3]), of([0.5 * glide for glide in glides], "other "))) == [
        (0, 0), (1, 1), (2, 2),
    ]  # fmt: skip


def test_known_descriptions_are_not_read_again(tmp_path: Path, glides: list[np.ndarray]) -> None:
    """Catches a cache on disk that changes a description, loses the order, or reads recordings that it knows."""
    first = of([*glides, np.zeros(SAMPLE_RATE)])
    save(first, tmp_path)
    kept = load(tmp_path)
    read: list[int] = []

    def waveform(i: int) -> np.ndarray:
        read.append(i)
        return sweep(70).astype(np.float32)

    second = described(["12", "new", "3"], waveform, kept)
    assert read == [1]
    assert second.featureless.tolist() == [True, False, False]
    assert np.array_equal(second.vectors[2], first.vectors[3])
    assert np.array_equal(second.sounds[2], first.sounds[3])
    assert find_copies(second, of([-glides[3]], "other ")) == find_copies(
        first.take(np.array([12, 11, 3])), of([-glides[3]], "other ")
    )


def test_damaged_descriptions_are_refused(tmp_path: Path, glides: list[np.ndarray]) -> None:
    """Catches a cache cut short whose sounds belong to other recordings."""
    save(of(glides), tmp_path)
    np.save(tmp_path / "vectors.npy", np.zeros((3, 32), dtype=np.float32))
    with pytest.raises(ValueError, match="do not fit together"):
        load(tmp_path)


def test_nothing_asked_and_nothing_there(tmp_path: Path, glides: list[np.ndarray]) -> None:
    """Catches an error for an empty request, an empty data set or an empty cache."""
    nothing = of([])
    assert find_copies(nothing, of(glides)) == find_copies(of(glides), nothing) == []
    save(nothing, tmp_path)
    assert len(load(tmp_path)) == 0


def test_a_file_is_described_as_it_is_read(tmp_path: Path, glides: list[np.ndarray]) -> None:
    """Catches stereo, another rate or a 24-bit copy that is another sound to the search."""
    soundfile.write(tmp_path / "x.wav", np.stack([glides[0], glides[0]], axis=1), SAMPLE_RATE, subtype="PCM_24")
    assert pairs(find_copies(of(glides), of([read_recording(tmp_path / "x.wav", LONGEST)], "other "))) == [(0, 0)]
