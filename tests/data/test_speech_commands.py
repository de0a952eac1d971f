"""Speech Commands' layout and its lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from audio_mu.errors import UserError
from tests.data.layouts import catalog_of, config_of, touch


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
    said = "left out 1 entry of the lists, not in the folder: five/00000001_nohash_1.wav\n"
    assert capsys.readouterr().out == said


def test_list_of_nothing_that_is_there_is_refused(words: Path) -> None:
    """Catches the list of another data set taken for one whose recordings were deleted."""
    (words / "bed/00000002_nohash_0.wav").unlink()
    with pytest.raises(UserError, match=r"names 1 recording, none of which is there \(bed/00000002_nohash_0\.wav"):
        catalog_of(config_of("SpeechCommands", words))
    assert len(catalog_of(config_of("SpeechCommands", words, split="speaker")).recordings) == 11


def test_recording_in_both_lists_is_refused(words: Path) -> None:
    """Catches a clip whose part depends on which list is read last."""
    (words / "validation_list.txt").write_text("bed/00000001_nohash_0.wav\n")
    with pytest.raises(UserError, match="names 1 of the test list"):
        catalog_of(config_of("SpeechCommands", words))
