"""A user's own folder of recordings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from audio_mu.config import Config
from audio_mu.data.catalog import Catalog
from audio_mu.data.folder import Folder
from audio_mu.errors import UserError
from audio_mu.progress import say_once


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    for id_ in ("dog/anna_1.wav", "dog/deep/down/ben_2.FLAC", "cat/anna_3.Mp3", "cat/ben_4.ogg", "cat/nobody.wav"):
        (folder / id_).parent.mkdir(parents=True, exist_ok=True)
        (folder / id_).touch()
    return folder


def catalog_of(root: Path, **values: str) -> Catalog:
    say_once.cache_clear()  # a command of its own
    config = Config.from_text({"dataset": "folder", "dataset_name": "pets", "data_dir": str(root), **values}).data
    return Folder().catalog(Folder().root(config), config)


def speakers_of(catalog: Catalog) -> dict[str, str]:
    return {r.id: r.speaker for r in catalog.recordings}


def test_class_is_the_first_folder(root: Path) -> None:
    """Catches the last folder taken for the class, and suffixes in capitals overlooked."""
    found = {r.id: r.label for r in catalog_of(root).recordings}
    assert found == {
        "cat/anna_3.Mp3": "cat",
        "cat/ben_4.ogg": "cat",
        "cat/nobody.wav": "cat",
        "dog/anna_1.wav": "dog",
        "dog/deep/down/ben_2.FLAC": "dog",
    }
    assert set(speakers_of(catalog_of(root)).values()) == {""}


def test_hidden_other_and_top_level_files_are_skipped(root: Path, capsys: pytest.CaptureFixture) -> None:
    """Catches resource forks, hidden folders and files of no class in the data set."""
    (root / ".git").mkdir()
    for id_ in (".git/a.wav", "dog/._anna_1.wav", "dog/notes.txt", "top.wav"):
        (root / id_).touch()
    assert len(catalog_of(root).recordings) == 5
    assert "left out 1 file in no class's folder: top.wav" in capsys.readouterr().out


def test_pattern_gives_speakers(root: Path) -> None:
    """Catches matching at the id's start only, and a clip without a match given somebody's name."""
    speakers = speakers_of(catalog_of(root, speaker_pattern=r"([a-z]+)_[0-9]"))
    assert speakers["dog/deep/down/ben_2.FLAC"] == "ben"
    assert speakers["cat/anna_3.Mp3"] == "anna"
    assert speakers["cat/nobody.wav"] == ""


def test_recordings_without_a_speaker_are_told(root: Path, capsys: pytest.CaptureFixture) -> None:
    """Catches a request for a person that passes over recordings whose name the pattern or table misses."""
    said = "no speaker is known for 1 of 5 recordings: cat/nobody.wav\n"
    catalog_of(root, speaker_pattern=r"([a-z]+)_[0-9]")
    assert capsys.readouterr().out == said
    rows = [f"{id_},Anna" for id_ in ("dog/anna_1.wav", "dog/deep/down/ben_2.FLAC", "cat/anna_3.Mp3", "cat/ben_4.ogg")]
    (root / "speakers.csv").write_text("\n".join(["id,speaker", *rows, "cat/nobody.wav,"]))
    catalog_of(root)
    assert capsys.readouterr().out == said
    catalog_of(root, speaker_pattern="(anna_1)")
    found = "cat/anna_3.Mp3, cat/ben_4.ogg, cat/nobody.wav, …"
    assert capsys.readouterr().out == f"no speaker is known for 4 of 5 recordings: {found}\n"
    (root / "speakers.csv").unlink()
    catalog_of(root)
    assert capsys.readouterr().out == ""


def test_names_that_look_alike_are_told(root: Path, capsys: pytest.CaptureFixture) -> None:
    """Catches one person under two names, or one class in two folders, that nobody sees are two."""
    names = ("17", "017", "Anna", "anna", "Jos\u00e9", "Jose\u0301", "0", "00", "bird")
    for name in names:
        (root / "cat" / f"{name}_9.wav").touch()
    (root / "Cat").mkdir()
    (root / "Cat" / "ben_9.wav").touch()
    catalog_of(root, speaker_pattern=r"([^/]+)_[0-9]")
    end = "differ only in case or in how accents are encoded, in blanks or in zeros at the start\n"
    out = capsys.readouterr().out
    assert f"note: the classes 'Cat' and 'cat' {end}" in out
    people = r"'017' and '17', 'Anna' and 'anna', 'Jose\u0301' and 'Jos\xe9'"
    assert f"note: the speakers {people} {end}" in out


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [("(", "is no regular expression"), ("anna", "has no group"), ("([0-9]{9})_", "in none of the 5 ids")],
)
def test_useless_patterns_are_refused(root: Path, pattern: str, complaint: str) -> None:
    """Catches a mistyped pattern that leaves every speaker unknown."""
    with pytest.raises(UserError, match=complaint) as raised:
        catalog_of(root, speaker_pattern=pattern)
    assert "speaker_pattern=" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["id", "path", " Path "])
def test_table_gives_speakers(root: Path, key: str, capsys: pytest.CaptureFixture) -> None:
    """Catches columns taken by position, absolute paths not understood, and stale rows unreported."""
    rows = [f"Speaker,note,{key}", "Anna,x,dog/anna_1.wav", f'"Ben, Jr.",y,{root}/cat/ben_4.ogg', "Zoe,z,dog/gone.wav"]
    (root / "speakers.csv").write_text("\ufeff" + "\r\n".join(rows), encoding="utf-8")
    speakers = speakers_of(catalog_of(root))
    assert (speakers["dog/anna_1.wav"], speakers["cat/ben_4.ogg"], speakers["cat/nobody.wav"]) == (
        "Anna",
        "Ben, Jr.",
        "",
    )
    assert "1 recording not in the folder: dog/gone.wav" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("id,name\ndog/anna_1.wav,Anna\n", "it needs id .or path. and speaker"),
        ("", "it needs id .or path. and speaker"),
        ("id,speaker\nanna_1.wav,Anna\n", "names none of the 5 recordings"),
        ("id,speaker\ndog/anna_1.wav,A\ndog/anna_1.wav,B\n", "two speakers .again in line 3"),
        ("id,speaker\ndog/anna_1.wav,A\ncat/ben_4.ogg\n", "line 3, does not have the header's 2 columns"),
    ],
)
def test_useless_tables_are_refused(root: Path, text: str, complaint: str) -> None:
    """Catches a table that is read as if it said something else."""
    (root / "speakers.csv").write_text(text)
    with pytest.raises(UserError, match=complaint):
        catalog_of(root)


def test_names_that_cannot_be_listed_are_refused(root: Path) -> None:
    """Catches ids that would break a list of requests, or the JSON of the cache."""
    broken = os.fsencode(root / "dog") + b"/\xff\xfe.wav"
    Path(os.fsdecode(broken)).touch()
    with pytest.raises(UserError, match="not valid UTF-8"):
        catalog_of(root)
    os.unlink(broken)
    (root / "dog" / "two\nlines.wav").touch()
    with pytest.raises(UserError, match="line break") as raised:
        catalog_of(root)
    assert "\n" not in str(raised.value)
