"""A table of labels in place of folders: what it says, what it cannot mean, and what of the folder it leaves out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_mu.config import Config
from audio_mu.data.catalog import Barred, Catalog
from audio_mu.data.clips import find_recordings, load_clips
from audio_mu.errors import UserError
from audio_mu.progress import say_once
from audio_mu.requests.same_people import refuse_other_people

FILES = ("a/1.wav", "a/2.wav", "b/3.wav", "4.wav", "unlisted.wav")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five tones, one of them in no folder."""
    folder = tmp_path / "recordings"
    for i, id_ in enumerate(FILES, 1):
        (folder / id_).parent.mkdir(parents=True, exist_ok=True)
        tone = np.sin(np.arange(16_000) * i / 50) / 2
        soundfile.write(folder / id_, tone, 16_000)
    return folder


def config_of(root: Path, text: str | bytes, **values: str) -> Config:
    say_once.cache_clear()  # a command of its own
    table = root.parent / "labels.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    given = {"dataset": "folder", "dataset_name": "pets", "data_dir": str(root), "labels": str(table)}
    return Config.from_text(given | values)


def catalog_of(root: Path, text: str | bytes, **values: str) -> Catalog:
    return find_recordings(config_of(root, text, **values).data)[1]


def test_classes_people_and_sides_come_from_the_table(root: Path, capsys: pytest.CaptureFixture) -> None:
    """Catches classes of folders, columns by position, a side that is lost, and files that nobody misses."""
    rows = ["train,Ann,dog,a/1.wav", f"test,Ben,cat,{root}/a/2.wav", "test,,dog,b\\3.wav", "train,Ben,cat,./4.wav"]
    found = catalog_of(root, "\n".join(["Split,SPEAKER, Label ,Path", *rows]))
    assert found.class_names == ("cat", "dog")
    assert [(r.id, r.label, r.speaker, r.part) for r in found.recordings] == [
        ("4.wav", "cat", "Ben", "train"),
        ("a/1.wav", "dog", "Ann", "train"),
        ("a/2.wav", "cat", "Ben", "test"),
        ("b/3.wav", "dog", "", "test"),
    ]
    said = capsys.readouterr().out
    assert "left out 1 file not in labels.csv: unlisted.wav\n" in said
    assert "no speaker is known for 1 of 4 recordings: b/3.wav\n" in said


def test_a_table_of_a_spreadsheet_is_read(root: Path) -> None:
    """Catches a byte order mark in the first column's name, semicolons, UTF-16, and blanks around a value."""
    table = "path;label;speaker\r\na/1.wav ; dog;Müller, Ann\r\n;;\r\nb/3.wav;cat;Zoë\r\n"
    for text in ("\ufeff" + table).encode(), ("\ufeff" + table).encode("utf-16-le"):
        found = catalog_of(root, text)
        assert [(r.id, r.label, r.speaker) for r in found.recordings] == [
            ("a/1.wav", "dog", "Müller, Ann"),
            ("b/3.wav", "cat", "Zoë"),
        ]


def test_sides_of_the_table_are_the_split_unless_another_is_given(root: Path, capsys: pytest.CaptureFixture) -> None:
    """Catches sides that are read and not used, and a split of the user's that is overruled without a word."""
    table = "path,label,split\na/1.wav,dog,train\nb/3.wav,cat,test\n"
    assert config_of(root, table).data.split == "official"
    config = config_of(root, table)
    for later in (Config.from_text(config.as_text()), config.with_values({"n_epochs": "1"})):
        assert later.data.split == "official"
    assert config_of(root, "path,label\na/1.wav,dog\n").data.split == "random"
    catalog_of(root, table, split="random")
    assert "split='random' was given: the column split of labels.csv decides nothing" in capsys.readouterr().out


def test_people_without_a_column_come_from_the_pattern(root: Path) -> None:
    """Catches a pattern that a table without speakers puts out of force."""
    found = catalog_of(root, "path,label\na/1.wav,dog\nb/3.wav,cat\n", speaker_pattern="([0-9])[.]wav")
    assert [r.speaker for r in found.recordings] == ["1", "3"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("path,class\na/1.wav,dog\n", ["labels=", "['path', 'class']", "it needs id (or path) and label"]),
        ("", ["it needs id (or path) and label"]),
        ("path,label\n", ["names no recordings"]),
        ("path,label,label\na/1.wav,dog,cat\n", ["the column label twice"]),
        ("path,label\na/1.wav\n", ["line 2", "2 columns"]),
        ("path,label\na/1.wav,dog\nb/3.wav,cat\na/1.wav,cat\n", ["line 4", "'a/1.wav'", "'cat'", "'dog' in line 2"]),
        ("path,label,speaker\na/1.wav,dog,Ann\na/1.wav,dog,Ben\n", ["line 3", "speaker 'Ben'", "'Ann' in line 2"]),
        ("path,label,split\na/1.wav,dog,dev\n", ["line 2", "split 'dev'", "train, test, validation"]),
        ("path,label,split\na/1.wav,dog,\n", ["line 2", "split ''"]),
        ("path,label\na/1.wav,\n", ["line 2", "the label ''"]),
        ("path,label\n,dog\n", ["line 2", "path ''"]),
        ("path,label\n../secret.wav,dog\n", ["line 2", "'../secret.wav' is no path below data_dir"]),
        ("path,label\n/etc/passwd.wav,dog\n", ["line 2", "'/etc/passwd.wav' is no path below data_dir"]),
        ("path,label\na/1.wav,dog\nb/3.wav,dog\n", ["holds only the class 'dog'"]),
    ],
)
def test_what_a_table_cannot_mean_is_refused(root: Path, table: str, words: list[str]) -> None:
    """Catches a row that is read as if it said something else, and a message without the row or its value."""
    with pytest.raises(UserError) as raised:
        catalog_of(root, table)
    message = str(raised.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_contradicting_parameters_are_refused(root: Path) -> None:
    """Catches a table that nobody reads, and speakers from two sources."""
    table = "path,label,speaker\na/1.wav,dog,Ann\nb/3.wav,cat,Ben\n"
    with pytest.raises(UserError, match="a column speaker and speaker_pattern was given"):
        catalog_of(root, table, speaker_pattern="([0-9])")
    path = str(root.parent / "labels.csv")
    for given in ({}, {"dataset": "audioMNIST"}):
        with pytest.raises(UserError, match=r"labels=.* give -P dataset=folder"):
            Config.from_text({"labels": path, **given})
    with pytest.raises(UserError, match=r"labels=.* is not a file"):
        Config.from_text({**config_of(root, table).as_text(), "labels": str(root / "none.csv")})


def test_a_row_without_its_file_is_a_bad_file(root: Path, capsys: pytest.CaptureFixture) -> None:
    """Catches recordings that are missing without a word, and a table refused for those of an answered person."""
    rows = "a/1.wav,dog,Ann\nb/3.wav,cat,Ben\n4.wav,dog,Ben\na/gone.wav,dog,Cleo\nnotes.txt,cat,Cleo\n"
    table = f"path,label,speaker\n{rows}"
    told = "a/gone.wav is no recording below data_dir (line 5 of labels.csv)"
    with pytest.raises(UserError) as raised:
        load_clips(config_of(root, table).data)
    assert f"cannot use 2 recordings: {told}; notes.txt is no recording" in str(raised.value)
    clips = load_clips(config_of(root, table, bad_files="skip").data)
    assert clips.ids == ("4.wav", "a/1.wav", "b/3.wav")
    assert told in capsys.readouterr().out
    barred = load_clips(config_of(root, table).data, Barred(speakers=frozenset({"Cleo"})))
    assert barred.ids == clips.ids and not barred.skipped
    for absent in (Barred(ids=frozenset({"a/gone.wav", "notes.txt"})), Barred(speakers=frozenset({"Cleo", "Ben"}))):
        answered = load_clips(config_of(root, table).data, Barred(absent=absent))
        assert answered.ids == clips.ids and not answered.skipped


def test_a_row_says_the_same_twice(root: Path) -> None:
    """Catches rows that were pasted twice, and a name whose accents are encoded otherwise in the table."""
    (root / "a" / "Jose\u0301.wav").write_bytes((root / "a" / "1.wav").read_bytes())
    table = "path,label\na/Jos\u00e9.wav,dog\na/Jos\u00e9.wav,dog\nb/3.wav,cat\n"
    found = catalog_of(root, table)
    assert [r.id for r in found.recordings] == ["a/Jose\u0301.wav", "b/3.wav"]
    assert not any(r.fault for r in found.recordings)


def test_another_table_changes_the_identity_of_what_it_changes(root: Path) -> None:
    """Catches a cache or a digest that knows the files alone, and one that another order of rows makes anew."""
    table = "path,label,speaker\na/1.wav,dog,Ann\nb/3.wav,cat,Ben\n4.wav,dog,Ben\n"
    head, *rows = table.splitlines()
    first = load_clips(config_of(root, table).data)
    again = load_clips(config_of(root, "\n".join([head + ",note", *(f"{row},x" for row in reversed(rows))])).data)
    assert again.digest == first.digest and again.features_file == first.features_file
    for old, new in (("Ann", "Eve"), ("cat", "emu"), ("4.wav,dog", "4.wav,cat")):
        assert load_clips(config_of(root, table.replace(old, new)).data).digest != first.digest
    folder = Config.from_text({"dataset": "folder", "dataset_name": "pets", "data_dir": str(root)}).data
    assert load_clips(folder).ids == ("a/1.wav", "a/2.wav", "b/3.wav")


def test_people_of_another_table_are_told(root: Path, tmp_path: Path) -> None:
    """Catches an answered person who comes back under the table's new name, and a table that was only moved refused."""
    table = "path,label,speaker\na/1.wav,dog,Ann\nb/3.wav,cat,Ben\n"
    data = config_of(root, table).data
    then = tmp_path / "then.csv"
    run = {"speaker_pattern": "", "labels": str(then)}
    then.write_text(table + "4.wav,dog,Cleo\n")
    refuse_other_people(data, run, "which")
    then.write_text(table.replace("Ann", "Anna"))
    with pytest.raises(
        UserError, match=r"labels.csv finds other speakers than labels=.*then.csv \('a/1.wav' is of .*\), with"
    ):
        refuse_other_people(data, run, "which")
    then.unlink()
    refuse_other_people(data, run, "which")
    told = r"finds other speakers than speaker_pattern=.* labels='' \('a/1.wav' is of 'Ann' now, of 'a' then\), with"
    with pytest.raises(UserError, match=told):
        refuse_other_people(data, {"speaker_pattern": "([a-z])/"}, "which")


def test_recordings_by_the_parameters_of_then_are_not_talked_about(root: Path, capsys: pytest.CaptureFixture) -> None:
    """Catches a recording called nobody's, by the pattern of then, whose segments have a speaker in today's table."""
    data = config_of(root, LONG + "4.wav,cat,Ben,0,0.5\na/1.wav,dog,Ann,,\n").data
    catalog_of(root, LONG + "4.wav,cat,Ben,0,0.5\na/1.wav,dog,Ann,,\n")
    with pytest.raises(UserError, match=r"finds other speakers than speaker_pattern=.*'a/1.wav' is of 'Ann' now"):
        refuse_other_people(data, {"speaker_pattern": "([a-z])/"}, "which")
    assert "no speaker is known" not in capsys.readouterr().out


LONG = "path,label,speaker,start,end\n"


def test_segments_of_a_recording_are_clips(root: Path) -> None:
    """Catches a second row that replaces the first, a row without times that is no whole recording, other spellings."""
    rows = ["a/1.wav,dog,Ann,0,0.25", "a/1.wav,cat,Ben,0.25,1.005", "a/2.wav,dog,,,", "./4.wav,cat,Ben,0.5,.75"]
    found = catalog_of(root, LONG.replace("start", "Start") + "\n".join(rows))
    assert [(r.id, r.label, r.speaker, r.span) for r in found.recordings] == [
        ("4.wav#0.5-0.75", "cat", "Ben", (0.5, 0.75)),
        ("a/1.wav#0.0-0.25", "dog", "Ann", (0.0, 0.25)),
        ("a/1.wav#0.25-1.005", "cat", "Ben", (0.25, 1.005)),
        ("a/2.wav", "dog", "", None),
    ]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("a/1.wav,dog,,0.5,0.5", "line 3: 'a/1.wav' has start 0.5 and end 0.5: the end must come after the start"),
        ("a/1.wav,dog,,0.6,0.5", "line 3: 'a/1.wav' has start 0.6 and end 0.5: the end must come after the start"),
        ("a/1.wav,dog,,-0.5,0.5", "line 3: 'a/1.wav' has start '-0.5': give both start and end, in seconds from 0 on"),
        ("a/1.wav,dog,,nan,0.5", "line 3: 'a/1.wav' has start 'nan': give both"),
        ("a/1.wav,dog,,0,inf", "line 3: 'a/1.wav' has end 'inf': give both"),
        ("a/1.wav,dog,,0:01,0:02", "line 3: 'a/1.wav' has start '0:01': give both"),
        ('a/1.wav,dog,,"0,4","0,5"', "line 3: 'a/1.wav' has start '0,4': give a point, 0.4"),
        ("a/1.wav,dog,,0.5,", "line 3: 'a/1.wav' has end '': give both start and end"),
        ("a/1.wav,dog,,,0.5", "line 3: 'a/1.wav' has start '': give both start and end"),
        ("a/1.wav,dog,,0,1.2", "line 3: 'a/1.wav' has end 1.2, but the recording has 1.000 s: give an end within it"),
        ("4.wav,dog,,0.2,0.5", "has label 'cat', and '4.wav#0.2-0.5' in line 3, which overlaps, 'dog': a clip has one"),
        ("4.wav,dog,,,", "line 2: '4.wav#0.0-0.25' has label 'cat', and '4.wav' in line 3, which overlaps, 'dog': a"),
        ("4.wav,cat,Ben,0,0.25", "'4.wav#0.0-0.25' has speaker 'Ben', and 'Ann' in line 2: keep one"),
    ],
)
def test_a_segment_that_cannot_be_meant_is_refused(root: Path, row: str, told: str) -> None:
    """Catches a row that is guessed at, an empty clip, and several labels of one clip; each is told in one line."""
    with pytest.raises(UserError) as error:
        catalog_of(root, f"{LONG}4.wav,cat,Ann,0,0.25\n{row}\n")
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("one", "other"), [("start", "end"), ("end", "start")])
def test_a_beginning_needs_an_end(root: Path, one: str, other: str) -> None:
    """Catches half a segment that passes for the whole recording."""
    with pytest.raises(UserError, match=f"has a column {one} and no column {other}: give both"):
        catalog_of(root, f"path,label,{one}\n4.wav,cat,0\na/1.wav,dog,0\n")


def test_a_recording_has_one_side(root: Path) -> None:
    """Catches a table that trains on one part of a recording and tests on another."""
    table = "path,label,start,end,split\n4.wav,cat,0,.5,train\n4.wav,cat,.5,1,test\na/1.wav,dog,0,1,test\n"
    with pytest.raises(UserError, match=r"line 3: '4\.wav#0\.5-1\.0' has split 'test', and '4\.wav#0\.0-0\.5' 'train'"):
        catalog_of(root, table)
    assert len(catalog_of(root, table, split="random").recordings) == 3


def test_segments_and_recordings_are_cut_into_windows(root: Path) -> None:
    """Catches windows that ignore the segment, or start at the file's beginning, and a window without its label."""
    table = f"{LONG}4.wav,cat,Ann,0.3,0.8\na/1.wav,dog,Ben,,\n"
    found = catalog_of(root, table, window="0.4", hop="0.2")
    assert [(r.id, r.label, r.speaker) for r in found.recordings] == [
        ("4.wav#0.3-0.7", "cat", "Ann"),
        ("4.wav#0.5-0.8", "cat", "Ann"),
        *((f"a/1.wav#{start}-{end}", "dog", "Ben") for start, end in ((0.0, 0.4), (0.2, 0.6), (0.4, 0.8), (0.6, 1.0))),
    ]


def test_parts_keep_the_hash_of_their_recording(root: Path) -> None:
    """Catches a copy of a segment that is not known, and a recording that is no longer found by its content."""
    samples, _ = soundfile.read(root / "4.wav")
    soundfile.write(root / "own.wav", samples[4_000:8_000], 16_000)
    table = f"{LONG}4.wav,cat,Ann,0.25,0.5\nown.wav,cat,Ben,,\na/1.wav,dog,Ann,,\n"
    clips = load_clips(config_of(root, table).data)
    assert clips.ids == ("4.wav#0.25-0.5", "a/1.wav", "own.wav")
    assert clips.sources[0] == clips.sources[2] and clips.hashes[0] == clips.hashes[2]
    whole = load_clips(config_of(root, "path,label\n4.wav,cat\na/1.wav,dog\n").data).sources[0]
    assert clips.files[0] == whole and clips.within == (f"{whole}#0.25-0.5", "", "")
    assert clips.recordings.tolist() == [0, 1, 2] and clips.seconds == (1.0, 1.0, 0.25)


@pytest.mark.parametrize("barred", ["4.wav#0.4-0.6", "4.wav"])
def test_what_shares_an_erased_parts_sound_is_not_read(root: Path, barred: str) -> None:
    """Catches an erased segment that is learnt again because its recording is cut otherwise, or renamed as well."""
    whole = load_clips(config_of(root, "path,label\n4.wav,cat\na/1.wav,dog\n").data).sources[0]
    table = f"{LONG}4.wav,cat,Ann,0,0.5\n4.wav,cat,Ann,0.6,1\na/1.wav,dog,Ann,,\n"
    left = ["a/1.wav"] if barred == "4.wav" else ["4.wav#0.6-1.0", "a/1.wav"]
    config = config_of(root, table)
    assert [*load_clips(config.data, Barred(ids=frozenset([barred]))).ids] == left
    by_sound = load_clips(config.data, Barred(hashes=frozenset([barred.replace("4.wav", whole)])))
    assert [*by_sound.ids] == left
    assert {unread.id for unread in by_sound.unread} == {"4.wav#0.0-0.5", "4.wav#0.6-1.0"} - {*left}
