"""AudioMNIST's and Speech Commands' layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from audio_mu.config import Config
from audio_mu.data.audiomnist import AudioMNIST, SyntheticDigits, holds, speaker_attributes
from audio_mu.data.catalog import Catalog, audio_files
from audio_mu.data.datasets import DATASETS
from audio_mu.data.speech_commands import SpeechCommands
from audio_mu.errors import UserError


def config_of(dataset: str, folder: Path, **values: str) -> Config:
    return Config.from_text({"dataset": dataset, "data_dir": str(folder), **values})


def catalog_of(config: Config) -> Catalog:
    dataset = DATASETS[config.dataset]
    return dataset.catalog(dataset.root(config), config)


def touch(folder: Path, *ids: str) -> None:
    for id_ in ids:
        (folder / id_).parent.mkdir(parents=True, exist_ok=True)
        (folder / id_).touch()


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    folder = tmp_path / "digits"
    touch(folder, *(f"{s}/{d}_{s}_{t}.wav" for s in ("07", "60") for d in range(10) for t in (0, 49)))
    return folder


@pytest.fixture
def words(tmp_path: Path) -> Path:
    folder = tmp_path / "words"
    clips = [
        f"{word}/{speaker:08x}_nohash_{n}.wav" for word in ("bed", "five") for speaker in (1, 2, 3) for n in (0, 1)
    ]
    touch(folder, *clips, "_background_noise_/pink_noise.wav", "_silence_/00000001_nohash_0.wav", "LICENSE")
    (folder / "testing_list.txt").write_text("bed/00000001_nohash_0.wav\r\nfive/00000001_nohash_1.wav\r\n\n")
    (folder / "validation_list.txt").write_text("bed/00000002_nohash_0.wav\n")
    return folder


def test_audiomnist_reads_digit_and_speaker(digits: Path) -> None:
    """Catches swapped digit and speaker, and an order that follows the file system."""
    catalog = catalog_of(config_of("audioMNIST", digits))
    assert len(catalog.recordings) == 40
    assert [r.id for r in catalog.recordings] == sorted(r.id for r in catalog.recordings)
    first = catalog.recordings[0]
    assert (first.id, first.label, first.speaker, first.part) == ("07/0_07_0.wav", "0", "07", "")
    assert catalog.class_names == tuple("0123456789")


@pytest.mark.parametrize("inside", ["data", "AudioMNIST-abc/data"])
def test_audiomnist_finds_the_data_folder_of_the_repository(digits: Path, tmp_path: Path, inside: str) -> None:
    """Catches ids that depend on whether the repository or its data folder was given."""
    place = tmp_path / "repository" / inside
    place.parent.mkdir(parents=True)
    (tmp_path / "repository" / "README.md").touch()
    digits.rename(place)
    whole = catalog_of(config_of("audioMNIST", tmp_path / "repository"))
    assert [r.id for r in whole.recordings] == [r.id for r in catalog_of(config_of("audioMNIST", place)).recordings]
    assert AudioMNIST().root(config_of("audioMNIST", tmp_path / "repository")) == place


def test_audiomnist_leaves_out_other_files_and_says_so(digits: Path, capsys: pytest.CaptureFixture) -> None:
    """Catches a clip under another speaker's name, a copy or a non-ASCII digit taken for a recording."""
    touch(digits, "07/1_60_3.wav", "07/1_07_0 (copy).wav", "07/\u0664_07_0.wav", "07/.1_07_9.wav")
    assert len(catalog_of(config_of("audioMNIST", digits)).recordings) == 40
    assert "left out 3 files" in capsys.readouterr().out


def test_audiomnist_archive_must_hold_everything(digits: Path) -> None:
    """Catches a truncated repository taken for the data set."""
    assert holds(40, 2)(digits) == ""
    (digits / "07/0_07_0.wav").unlink()
    assert holds(40, 2)(digits) == "it holds 39 clips of 2 speakers, not 40 of 2"


def test_metadata_is_text_and_tidy(tmp_path: Path) -> None:
    """Catches one age as a number and others as text, the age 1234 and rooms and accents spelt in several ways."""
    path = tmp_path / "audioMNIST_meta.txt"
    people = {
        "01": {"accent": "german", "age": 30, "gender": "male", "recordingroom": "Kino"},
        "45": {"accent": "German", "age": "1234", "gender": "male", "recordingroom": "VR-Room"},
        "52": {"accent": "French", "age": " 34", "gender": "female", "recordingroom": "vr-romm"},
    }
    path.write_text(json.dumps(people))
    assert speaker_attributes(path) == {
        "01": {"accent": "German", "age": "30", "gender": "male", "recordingroom": "kino"},
        "45": {"accent": "German", "age": "unknown", "gender": "male", "recordingroom": "vr-room"},
        "52": {"accent": "French", "age": "34", "gender": "female", "recordingroom": "vr-room"},
    }
    path.write_text("[1, 2]")
    with pytest.raises(UserError, match="not AudioMNIST's metadata"):
        speaker_attributes(path)


def test_empty_and_one_class_folders_are_refused(tmp_path: Path) -> None:
    """Catches training on nothing, or on a single class."""
    with pytest.raises(UserError, match="no recordings laid out as NN"):
        catalog_of(config_of("audioMNIST", tmp_path))
    touch(tmp_path, "01/3_01_0.wav", "01/3_01_1.wav")
    with pytest.raises(UserError, match="only the class '3'"):
        catalog_of(config_of("audioMNIST", tmp_path))


def test_synthetic_digits_with_data_dir_reads_that_folder(digits: Path) -> None:
    """Catches generation in spite of data_dir."""
    assert SyntheticDigits().root(config_of("SyntheticDigits", digits)) == digits
    assert len(catalog_of(config_of("SyntheticDigits", digits)).recordings) == 40


def test_speech_commands_parts_and_speakers(words: Path) -> None:
    """Catches noise folders as words, the lists mixed up, and Windows line ends in them."""
    catalog = catalog_of(config_of("SpeechCommands", words))
    assert catalog.class_names == ("bed", "five")
    assert len(catalog.recordings) == 12
    parts = {r.id: r.part for r in catalog.recordings}
    assert sorted(id_ for id_, part in parts.items() if part == "test") == [
        "bed/00000001_nohash_0.wav",
        "five/00000001_nohash_1.wav",
    ]
    assert [id_ for id_, part in parts.items() if part == "validation"] == ["bed/00000002_nohash_0.wav"]
    assert {r.speaker for r in catalog.recordings} == {"00000001", "00000002", "00000003"}


@pytest.mark.parametrize("name", ["testing_list.txt", "validation_list.txt"])
def test_missing_list_is_refused_only_where_it_matters(words: Path, name: str) -> None:
    """Catches validation or test clips trained on because their list was gone."""
    (words / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        catalog_of(config_of("SpeechCommands", words))
    assert {r.part for r in catalog_of(config_of("SpeechCommands", words, split="random")).recordings} == {""}


def test_listed_recording_that_is_not_there_is_left_out(words: Path, capsys: pytest.CaptureFixture) -> None:
    """Catches a person's deletion that stops every command, and an incomplete copy used without a word."""
    (words / "five/00000001_nohash_1.wav").unlink()
    parts = {r.id: r.part for r in catalog_of(config_of("SpeechCommands", words)).recordings}
    assert len(parts) == 11
    assert sorted(parts.values()) == ["test", *["train"] * 9, "validation"]
    said = "1 of the lists' entries are not there and are left out: five/00000001_nohash_1.wav\n"
    assert capsys.readouterr().out == said


def test_list_of_nothing_that_is_there_is_refused(words: Path) -> None:
    """Catches the list of another data set taken for one whose recordings were deleted."""
    (words / "bed/00000002_nohash_0.wav").unlink()
    with pytest.raises(UserError, match=r"names 1 recordings, none of which is there \(bed/00000002_nohash_0\.wav"):
        catalog_of(config_of("SpeechCommands", words))
    assert len(catalog_of(config_of("SpeechCommands", words, split="speaker")).recordings) == 11


def test_recording_in_both_lists_is_refused(words: Path) -> None:
    """Catches a clip whose part depends on which list is read last."""
    (words / "validation_list.txt").write_text("bed/00000001_nohash_0.wav\n")
    with pytest.raises(UserError, match="names 1 of the test list"):
        catalog_of(config_of("SpeechCommands", words))


def test_links_are_followed_but_not_in_circles(tmp_path: Path, record: Callable[..., Path]) -> None:
    """Catches endless recursion through a link up the tree, and lost recordings behind links."""
    record(tmp_path / "elsewhere" / "a.wav")
    root = tmp_path / "root"
    (root / "dog").mkdir(parents=True)
    (root / "dog" / "up").symlink_to(root)
    (root / "cat").symlink_to(tmp_path / "elsewhere")
    (root / "dog" / "gone.wav").symlink_to(tmp_path / "nothing.wav")
    (root / "dog" / "folder.wav").mkdir()
    assert sorted(id_ for id_, _ in audio_files(root)) == ["cat/a.wav", "dog/gone.wav"]


def test_real_layouts(real_speech: Path) -> None:
    """Catches any recording of the real layouts lost or doubled (counts from their own README)."""
    spoken_digits = catalog_of(config_of("audioMNIST", real_speech / "audiomnist_layout"))
    assert (len(spoken_digits.recordings), len(spoken_digits.speakers)) == (1_800, 30)
    words = catalog_of(config_of("SpeechCommands", real_speech / "speech_commands_layout"))
    parts = [r.part for r in words.recordings]
    assert (len(words.class_names), len({r.speaker for r in words.recordings})) == (35, 366)
    assert (parts.count("train"), parts.count("validation"), parts.count("test")) == (1_398, 258, 154)
    assert SpeechCommands().root(config_of("SpeechCommands", real_speech)) == real_speech
