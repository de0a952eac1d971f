"""AudioMNIST's layout, and the synthetic digits in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from audio_mu.data.audiomnist import AudioMNIST, SyntheticDigits, holds
from tests.data.layouts import catalog_of, config_of, touch


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    folder = tmp_path / "digits"
    touch(folder, *(f"{s}/{d}_{s}_{t}.wav" for s in ("07", "60") for d in range(10) for t in (0, 49)))
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


def test_synthetic_digits_with_data_dir_reads_that_folder(digits: Path) -> None:
    """Catches generation in spite of data_dir."""
    assert SyntheticDigits().root(config_of("SyntheticDigits", digits)) == digits
    assert len(catalog_of(config_of("SyntheticDigits", digits)).recordings) == 40
