"""All features of a data set, and their cache."""

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

from audio_mu.config import Config, DataParameters
from audio_mu.data import clips as clips_module
from audio_mu.data.audio import read_clip
from audio_mu.data.clips import Clips, load_clips
from audio_mu.errors import UserError
from audio_mu.progress import say_once

N_SAMPLES = 16_000


@pytest.fixture
def root(tmp_path: Path, record: Callable[..., Path]) -> Path:
    """Three classes of four recordings, none alike."""
    for i in range(12):
        record(tmp_path / "set" / "abc"[i % 3] / f"{i:02d}.wav", seed=i)
    return tmp_path / "set"


def config_of(root: Path, **values: str) -> DataParameters:
    given = {"dataset": "folder", "dataset_name": "test", "data_dir": str(root), "pipeline": "mel"} | values
    return Config.from_text(given).data


def built(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of the cache that are built from here on."""
    folders: list[Path] = []
    original = clips_module._build

    def build(config: DataParameters, catalog: object, folder: Path, *barred: object) -> None:
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
    say_once.cache_clear()  # as in the next command, which finds the features in the cache
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
from audio_mu.config import Config, DataParameters
from audio_mu.data.clips import load_clips
from audio_mu.errors import UserError
from audio_mu.progress import say_once
config = Config.from_text({"dataset": "folder", "dataset_name": "t", "data_dir": sys.argv[1], "pipeline": "mel"})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    load_clips(config.data)
except UserError as error:
    print(error)
    sys.exit(3)
"""


@pytest.mark.slow
def test_full_disk_is_told(root: Path, cache: Path) -> None:
    """Catches the bus error of a mapped file on a full disk, and half a cache entry left behind."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(root)], capture_output=True, env=environment, check=False, text=True
    )
    assert done.returncode == 3, done.stderr
    assert "AUDIO_MU_CACHE" in done.stdout.splitlines()[-1]
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_copies_are_found_whatever_their_name_format_and_length(root: Path) -> None:
    """Catches hashes of files instead of hashes of sound."""
    samples, rate = soundfile.read(root / "a" / "00.wav", dtype="int16")
    soundfile.write(root / "b" / "copy.flac", samples, rate)
    soundfile.write(root / "c" / "padded.wav", np.r_[samples, np.zeros(99, dtype=np.int16)], rate)
    clips = load_clips(config_of(root))
    by_id = dict(zip(clips.ids, clips.hashes))
    assert by_id["a/00.wav"] == by_id["b/copy.flac"] == by_id["c/padded.wav"]
    assert len(set(clips.hashes)) == 12


def test_real_speech_is_read_whole(real_speech: Path) -> None:
    """Catches real files misread: their sound must be what soundfile gives, padded with zeros."""
    root = real_speech / "speech_commands_layout"
    for path in sorted(root.glob("five/*.wav"))[:20]:
        samples = soundfile.read(path, dtype="float32")[0][:N_SAMPLES]
        clip = read_clip(path, N_SAMPLES).waveform
        assert np.array_equal(clip[: len(samples)], samples)
        assert not clip[len(samples) :].any()


BUILD_AT_ONCE = """
import sys
from audio_mu.config import Config, DataParameters
from audio_mu.data.clips import load_clips
config = Config.from_text({"dataset": "folder", "dataset_name": "t", "data_dir": sys.argv[1], "pipeline": "mel"})
print(load_clips(config.data).digest)
"""


@pytest.mark.slow
def test_two_processes_build_the_cache_once(root: Path, cache: Path) -> None:
    """Catches features computed by every command that starts on a cold cache, or half of them read."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-c", BUILD_AT_ONCE, str(root)]
    processes = [subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0].splitlines() for process in processes]
    assert sum(line.startswith("features (") for lines in outputs for line in lines) == 1
    assert outputs[0][-1] == outputs[1][-1]
