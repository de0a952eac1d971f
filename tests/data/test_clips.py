"""Features, their cache, and splits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from sklearn.model_selection import train_test_split

from audio_mu.config import Config, load_recipe
from audio_mu.data import clips as clips_module
from audio_mu.data.audio import BadRecording, read_clip
from audio_mu.data.clips import Clips, load_clips
from audio_mu.data.features import Frontend, feature_shape
from audio_mu.data.splits import split_clips
from audio_mu.errors import UserError

N_SAMPLES = 16_000


@pytest.fixture
def root(tmp_path: Path, record: Callable[..., Path]) -> Path:
    """Three classes of four recordings, none alike."""
    for i in range(12):
        record(tmp_path / "set" / "abc"[i % 3] / f"{i:02d}.wav", seed=i)
    return tmp_path / "set"


def config_of(root: Path, **values: str) -> Config:
    given = {"dataset": "folder", "dataset_name": "test", "data_dir": str(root), "pipeline": "mel"} | values
    return Config.from_text(given)


def built(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of the cache that are built from here on."""
    folders: list[Path] = []
    original = clips_module._build

    def build(config: Config, catalog: object, folder: Path, *barred: object) -> None:
        folders.append(folder)
        original(config, catalog, folder, *barred)

    monkeypatch.setattr(clips_module, "_build", build)
    return folders


def same(left: Clips, right: Clips) -> bool:
    """Equal in every field; the features bit for bit."""
    nothing = torch.empty(0)
    plain = [replace(clips, features=nothing, labels=nothing) for clips in (left, right)]
    return (
        torch.equal(left.features, right.features)
        and torch.equal(left.labels, right.labels)
        and all(getattr(plain[0], name) == getattr(plain[1], name) for name in ("ids", "hashes", "digest", "skipped"))
    )


def test_second_load_maps_what_the_first_wrote(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches features computed again, or read into memory instead of mapped."""
    folders = built(monkeypatch)
    first, second = load_clips(config_of(root)), load_clips(config_of(root))
    assert len(folders) == 1
    assert same(first, second)
    mappings = Path("/proc/self/maps")
    assert not mappings.exists() or str(second.features_file) in mappings.read_text()
    assert (first.features.shape, first.features.dtype) == ((12, 1, 32, 63), torch.float32)
    assert first.ids == tuple(sorted(first.ids))
    assert [first.class_names[label] for label in first.labels] == [id_[0] for id_ in first.ids]


def test_writing_to_the_features_leaves_the_cache_alone(root: Path) -> None:
    """Catches a mapping through which a caller's mistake reaches the file."""
    first = load_clips(config_of(root))
    content = first.features_file.read_bytes()
    first.features.zero_()
    assert first.features_file.read_bytes() == content


@pytest.mark.parametrize("damage", ["a byte", "truncated", "emptied", "labels", "no index", "no JSON"])
def test_altered_cache_is_built_anew(root: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    """Catches training on a damaged cache, or a traceback from one."""
    before = load_clips(config_of(root))
    features, index = before.features_file, before.features_file.with_name("index.json")
    content, described = features.read_bytes(), json.loads(index.read_text())
    described["labels"] = described["labels"][::-1]
    path, new = {
        "a byte": (features, content[:-1] + bytes([content[-1] ^ 1])),
        "truncated": (features, content[:-100]),
        "emptied": (features, b""),
        "labels": (index, json.dumps(described).encode()),
        "no index": (index, b"[]"),
        "no JSON": (index, b"\xff"),
    }[damage]
    path.write_bytes(new)
    folders = built(monkeypatch)
    after = load_clips(config_of(root))
    assert len(folders) == 1
    assert features.read_bytes() == content
    assert torch.equal(after.labels, before.labels)


def test_changed_recording_is_read_again(root: Path, record: Callable[..., Path]) -> None:
    """Catches a recording replaced by another of the same length and name that goes unnoticed."""
    before = load_clips(config_of(root))
    kept = before.features.clone()
    record(root / before.ids[3], seed=99)
    os.utime(root / before.ids[3], ns=(1, 1))
    after = load_clips(config_of(root))
    assert [i for i in range(12) if not torch.equal(kept[i], after.features[i])] == [3]
    assert before.digest != after.digest


def test_moved_folder_has_the_same_digest(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a digest or a cache key that depends on where the data lies."""
    before = load_clips(config_of(root))
    folders = built(monkeypatch)
    moved = root.rename(root.with_name("moved"))
    assert load_clips(config_of(moved)).digest == before.digest
    assert folders == []


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


def plant_bad(root: Path) -> dict[str, str]:
    """Unreadable recordings, and what must be said about each."""
    (root / "a" / "corrupt.wav").write_bytes(b"RIFF" + bytes(200))
    (root / "a" / "empty.wav").write_bytes(b"")
    soundfile.write(root / "b" / "frameless.wav", np.zeros(0), 16_000)
    soundfile.write(root / "b" / "nan.wav", np.array([0.0, np.nan]), 16_000, subtype="FLOAT")
    soundfile.write(root / "c" / "loud.wav", np.array([0.0, 1e30]), 16_000, subtype="FLOAT")
    (root / "c" / "missing.wav").symlink_to(root / "nowhere.wav")
    return {
        "a/corrupt.wav": "cannot be read as audio",
        "a/empty.wav": "is empty",
        "b/frameless.wav": "holds no samples",
        "b/nan.wav": "not finite",
        "c/loud.wav": "times full scale",
        "c/missing.wav": "cannot be read as audio",
    }


def test_bad_files_fail_by_name(root: Path) -> None:
    """Catches a traceback, or an error that does not say which recording is bad."""
    bad = plant_bad(root)
    with pytest.raises(UserError) as raised:
        load_clips(config_of(root))
    message = str(raised.value)
    assert message.startswith("cannot use 6 recordings: ")
    assert [id_ for id_ in bad if f"{id_} " in message] == list(bad)[:5]
    assert "and 1 more" in message
    assert "\n" not in message
    assert str(root) not in message


def test_bad_files_skipped_are_listed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches features shifted against labels behind a skipped recording, and one that is skipped without a word."""
    clean = load_clips(config_of(root))
    kept, ids = clean.features.clone(), clean.ids
    bad = plant_bad(root)
    clips = load_clips(config_of(root, bad_files="skip"))
    assert clips.ids == ids
    assert torch.equal(clips.features, kept)
    assert [id_ for id_, _ in clips.skipped] == list(bad)
    assert all(bad[id_] in reason for id_, reason in clips.skipped)
    said = capsys.readouterr().out
    assert "left out 6 recordings: a/corrupt.wav" in said
    clips_module._say_skipped.cache_clear()  # as in the next command, which finds the features in the cache
    assert same(clips, load_clips(config_of(root, bad_files="skip")))
    assert said.endswith(capsys.readouterr().out)


def test_nothing_readable_is_refused(tmp_path: Path) -> None:
    """Catches an empty data set made by skipping everything."""
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "x.wav").touch()
    with pytest.raises(UserError, match=r"cannot use 2 recordings: a/x\.wav is empty"):
        load_clips(config_of(tmp_path / "set", bad_files="skip"))


FULL_DISK = """
import resource, sys
from audio_mu.config import Config
from audio_mu.data.clips import load_clips
from audio_mu.errors import UserError
config = Config.from_text({"dataset": "folder", "dataset_name": "t", "data_dir": sys.argv[1], "pipeline": "mel"})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    load_clips(config)
except UserError as error:
    print(error)
    sys.exit(3)
"""


def test_full_disk_is_told(root: Path, cache: Path) -> None:
    """Catches the bus error of a mapped file on a full disk, and half a cache entry left behind."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(root)], capture_output=True, env=environment, check=False, text=True
    )
    assert done.returncode == 3, done.stderr
    assert "AUDIO_MU_CACHE" in done.stdout.splitlines()[-1]
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def power_spectrogram(waveform: np.ndarray) -> np.ndarray:
    """[257, frames] by the definition: reflected borders, a periodic Hann window, one matrix product per frame."""
    padded = np.pad(waveform.astype(np.float64), 256, mode="reflect")
    n = np.arange(512)
    window = np.sin(np.pi * n / 512) ** 2
    transform = np.exp(-2j * np.pi * np.outer(np.arange(257), n) / 512)
    frames = np.stack([padded[start : start + 512] for start in range(0, len(padded) - 511, 256)], axis=1)
    return np.abs(transform @ (window[:, None] * frames)) ** 2


def mel_filters() -> np.ndarray:
    """[32, 257]: triangles between points equally spaced on the HTK scale, 2595 log10(1 + f / 700), height 1."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8_000 / 700), 34) / 2595) - 1)
    bins = np.linspace(0, 8_000, 257)
    return np.stack([np.interp(bins, edges[i : i + 3], [0, 1, 0]) for i in range(32)])


@pytest.fixture
def waveform() -> np.ndarray:
    """A second that fades from a loud chirp to exact silence, so that every floor is met."""
    seconds = np.arange(N_SAMPLES) / 16_000
    chirp = np.sin(2 * np.pi * (200 + 1_500 * seconds) * seconds) * np.exp(-8 * seconds)
    return np.where(seconds < 0.7, chirp, 0).astype(np.float32)


def computed(pipeline: str, *waveforms: np.ndarray) -> np.ndarray:
    frontend = Frontend(pipeline, load_recipe("SyntheticDigits"))
    return frontend(torch.from_numpy(np.stack(waveforms))).numpy()


def test_mel_by_its_definition(waveform: np.ndarray) -> None:
    """Catches another mel scale, norm, window or border, and a logarithm."""
    expected = mel_filters() @ power_spectrogram(waveform)
    got = computed("mel", waveform)[0, 0]
    assert got.shape == feature_shape("mel", N_SAMPLES) == (32, 63)
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=1e-6 * expected.max())
    assert (got == 0).any()


def test_spec_is_decibels_above_each_clips_floor(waveform: np.ndarray) -> None:
    """Catches amplitudes for power, a missing floor, and a floor shared by the clips of a batch."""
    power = power_spectrogram(waveform)
    for got, scale in zip(computed("spec", waveform, 0.01 * waveform), (1.0, 1e-4), strict=True):
        decibels = 10 * np.log10(np.maximum(scale * power, 1e-10))
        expected = np.maximum(decibels, decibels.max() - 80)
        assert got[0].shape == feature_shape("spec", N_SAMPLES) == (257, 63)
        np.testing.assert_allclose(got[0], expected, atol=0.02)
        assert got[0].min() == pytest.approx(decibels.max() - 80, abs=1e-3)


def test_logmel_is_a_fixed_function_of_mel(waveform: np.ndarray) -> None:
    """Catches log10, another floor, and standardisation by the data."""
    recipe = load_recipe("SyntheticDigits")
    mel = mel_filters() @ power_spectrogram(waveform)
    expected = (np.log(np.maximum(mel, 1e-6)) - recipe.logmel_shift) / recipe.logmel_scale
    np.testing.assert_allclose(computed("logmel", waveform)[0, 0], expected, atol=5e-3)


def test_copies_are_found_whatever_their_name_format_and_length(root: Path) -> None:
    """Catches hashes of files instead of hashes of sound."""
    samples, rate = soundfile.read(root / "a" / "00.wav", dtype="int16")
    soundfile.write(root / "b" / "copy.flac", samples, rate)
    soundfile.write(root / "c" / "padded.wav", np.r_[samples, np.zeros(99, dtype=np.int16)], rate)
    clips = load_clips(config_of(root))
    by_id = dict(zip(clips.ids, clips.hashes))
    assert by_id["a/00.wav"] == by_id["b/copy.flac"] == by_id["c/padded.wav"]
    assert len(set(clips.hashes)) == 12


def test_random_split_is_scikit_learns_over_the_sorted_ids() -> None:
    """Catches a split that nobody else can repeat from the list of ids."""
    ids = [f"{i:03d}" for i in range(101)]
    split = split_clips("random", 42, ("",) * 101, ("",) * 101, tuple(ids))
    train, test = train_test_split(ids, test_size=0.2, random_state=42)
    assert [ids[i] for i in split.train] == sorted(train)
    assert [ids[i] for i in split.test] == sorted(test)
    assert not np.array_equal(split.test, split_clips("random", 43, ("",) * 101, ("",) * 101, tuple(ids)).test)


def test_test_copies_of_training_clips_are_no_nonmembers() -> None:
    """Catches members counted as non-members, and the published test list changed because of a copy."""
    parts = ("train", "train", "validation", "test", "test", "test")
    split = split_clips("official", 42, parts, ("s",) * 6, ("a", "b", "c", "a", "c", "d"))
    assert (split.train.tolist(), split.test.tolist(), split.nonmembers.tolist()) == ([0, 1], [3, 4, 5], [4, 5])
    assert split.n_test_copies == 1


def test_speaker_split_shares_no_speaker() -> None:
    """Catches a speaker on both sides."""
    speakers = tuple(f"{i % 10:02d}" for i in range(100))
    split = split_clips("speaker", 42, ("",) * 100, speakers, tuple(map(str, range(100))))
    tested = {speakers[i] for i in split.test}
    assert len(tested) == 2
    assert not tested & {speakers[i] for i in split.train}
    assert len(split.train) + len(split.test) == 100


@pytest.mark.parametrize(
    ("kind", "speakers", "complaint"),
    [
        ("official", ("a", "b"), "no test list"),
        ("speaker", ("a", "a"), "found 1 speakers and 0 clips without"),
        ("speaker", ("a", ""), "found 1 speakers and 1 clips without"),
    ],
)
def test_impossible_splits_are_refused(kind: str, speakers: tuple[str, ...], complaint: str) -> None:
    """Catches an empty test set, and all clips of unknown speakers taken for one speaker."""
    with pytest.raises(UserError, match=complaint):
        split_clips(kind, 42, ("", ""), speakers, ("x", "y"))


def test_real_speech_is_read_whole(real_speech: Path) -> None:
    """Catches real files misread: their sound must be what soundfile gives, padded with zeros."""
    root = real_speech / "speech_commands_layout"
    for path in sorted(root.glob("five/*.wav"))[:20]:
        samples = soundfile.read(path, dtype="float32")[0][:N_SAMPLES]
        clip = read_clip(path, N_SAMPLES).waveform
        assert np.array_equal(clip[: len(samples)], samples)
        assert not clip[len(samples) :].any()


def test_reader_raises_what_the_cache_expects(tmp_path: Path) -> None:
    """Catches a library's own exception escaping from a file that is no audio."""
    (tmp_path / "x.mp3").write_bytes(os.urandom(500))
    with pytest.raises(BadRecording, match="cannot be read as audio"):
        read_clip(tmp_path / "x.mp3", N_SAMPLES)


BUILD_AT_ONCE = """
import sys
from audio_mu.config import Config
from audio_mu.data.clips import load_clips
config = Config.from_text({"dataset": "folder", "dataset_name": "t", "data_dir": sys.argv[1], "pipeline": "mel"})
print(load_clips(config).digest)
"""


def test_two_processes_build_the_cache_once(root: Path, cache: Path) -> None:
    """Catches features computed by every command that starts on a cold cache, or half of them read."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-c", BUILD_AT_ONCE, str(root)]
    processes = [subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0].splitlines() for process in processes]
    assert sum(line.startswith("features (") for lines in outputs for line in lines) == 1
    assert outputs[0][-1] == outputs[1][-1]
