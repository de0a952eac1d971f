"""Finding the recordings of a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from audio_mu.data.catalog import audio_files
from audio_mu.data.speech_commands import SpeechCommands
from audio_mu.errors import UserError
from tests.data.layouts import catalog_of, config_of, touch


def test_empty_and_one_class_folders_are_refused(tmp_path: Path) -> None:
    """Catches training on nothing, or on a single class."""
    with pytest.raises(UserError, match="no recordings laid out as NN"):
        catalog_of(config_of("audioMNIST", tmp_path))
    touch(tmp_path, "01/3_01_0.wav", "01/3_01_1.wav")
    with pytest.raises(UserError, match="only the class '3'"):
        catalog_of(config_of("audioMNIST", tmp_path))


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
    found = spoken_digits.recordings
    assert (len(found), len({recording.speaker for recording in found})) == (1_800, 30)
    words = catalog_of(config_of("SpeechCommands", real_speech / "speech_commands_layout"))
    parts = [r.part for r in words.recordings]
    assert (len(words.class_names), len({r.speaker for r in words.recordings})) == (35, 366)
    assert (parts.count("train"), parts.count("validation"), parts.count("test")) == (1_398, 258, 154)
    assert SpeechCommands().root(config_of("SpeechCommands", real_speech)) == real_speech
