"""Requests: the clips that they name, and the other sets that follow."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from audio_mu.config import Config
from audio_mu.data.clips import Clips, load_clips
from audio_mu.data.splits import Split, split_clips
from audio_mu.errors import UserError
from audio_mu.requests.probable import NOT_SOUGHT, Copies
from audio_mu.requests.request import Request, request_table, resolve_request

DIGITS = tuple("0123456789")

WORDS = tuple(
    """
    backward bed bird cat dog down eight five follow forward four go happy house learn left marvin nine no off on one
    right seven sheila six stop three tree two up visual wow yes zero
    """.split()  # noqa: SIM905 (a list would be 35 lines)
)


def clips_of(labels: list[int], class_names: tuple[str, ...] = DIGITS, **changes: object) -> Clips:
    """Clips without sound: ids in order, ten speakers in turn, all different."""
    n = len(labels)
    clips = Clips(
        features=torch.empty(n, 1, 0, 0),
        features_file=Path("none"),
        labels=torch.tensor(labels),
        ids=tuple(f"clip/{i:06d}.wav" for i in range(n)),
        speakers=tuple(f"{i % 10:02d}" for i in range(n)),
        hashes=tuple(f"hash {i}" for i in range(n)),
        sources=tuple(f"source {i}" for i in range(n)),
        parts=("",) * n,
        class_names=class_names,
        skipped=(),
        constant=(),
        root=Path("/data/root"),
        digest="digest",
    )
    return replace(clips, **changes)


def split_of(clips: Clips, n_train: int) -> Split:
    """The first clips train."""
    trained = set(clips.hashes[:n_train])
    test = np.arange(n_train, len(clips))
    return Split("random", np.arange(n_train), test, np.array([i for i in test if clips.hashes[i] not in trained], int))


def resolved(clips: Clips, split: Split, **values: str) -> Request:
    return resolve_request(Config.from_text(values).request, clips, split)


@pytest.fixture
def clips() -> Clips:
    """200 clips of ten digits; each of the ten speakers says every digit twice."""
    return clips_of([(i // 10) % 10 for i in range(200)])


@pytest.mark.parametrize(
    ("n_train", "percentage", "expected"),
    [
        (24_000, "10", 2_400),
        (24_000, "20", 4_800),
        (24_000, "30", 7_200),
        (84_843, "10", 8_485),
        (84_843, "20", 16_969),
        (84_843, "30", 25_453),
        (375, "8.8", 33),
        (10, "0.001", 1),
    ],
)
def test_item_request_has_the_studys_size(n_train: int, percentage: str, expected: int) -> None:
    """Catches rounding down, a share of all clips, not of the training clips, and a ceiling of 33.000000000000004."""
    clips = clips_of([i % 10 for i in range(n_train + 10)])
    request = resolved(clips, split_of(clips, n_train), forget_percentage=percentage)
    assert len(request.forget) == request.n_requested == expected == -(-Fraction(percentage) * n_train // 100)
    assert len(request.remain) == n_train - expected
    assert request.name == f"item-{percentage}"


def test_items_are_numpys_draw_over_the_sorted_ids(clips: Clips) -> None:
    """Catches a draw with repetition, from the test set, or that nobody else can repeat."""
    train = np.array([i for i in range(200) if i % 3])
    split = Split("random", train, np.arange(0, 200, 3), np.arange(0, 200, 3))
    request = resolved(clips, split, forget_percentage="30")
    expected = np.random.default_rng(42).choice(train, 40, replace=False)
    assert request.forget.tolist() == sorted(expected)
    assert sorted([*request.forget, *request.remain]) == train.tolist()
    assert not np.array_equal(request.forget, resolved(clips, split, forget_percentage="30", forget_seed="43").forget)


def test_forget_set_is_the_same_for_all_seeds_and_draws(clips: Clips) -> None:
    """Catches a request that depends on the model's seeds or on random numbers drawn before."""
    split = split_of(clips, 160)
    one = resolved(clips, split, seeds="40")
    np.random.seed(7)
    torch.manual_seed(7)
    other = resolved(clips, split, seeds="41,42")
    assert np.array_equal(one.forget, other.forget)
    assert one.hash == other.hash


@pytest.mark.parametrize(
    ("class_names", "number", "expected"),
    [
        (DIGITS, "1", "1"),
        (DIGITS, "2", "1 0"),
        (DIGITS, "3", "1 0 4"),
        (WORDS, "1", "five"),
        (WORDS, "2", "five bed"),
        (WORDS, "3", "five bed nine"),
    ],
)
def test_class_request_draws_the_studys_classes(class_names: tuple[str, ...], number: str, expected: str) -> None:
    """Catches another generator or another order of the classes (the study's published draws)."""
    n_classes = len(class_names)
    clips = clips_of([i % n_classes for i in range(20 * n_classes)], class_names)
    request = resolved(clips, split_of(clips, 15 * n_classes), forget="class", forget_classes_num=number)
    labels = clips.labels.numpy()
    wanted = {class_names.index(name) for name in expected.split()}
    assert set(labels[request.forget]) == set(labels[request.held_out]) == wanted
    assert not wanted & set(labels[request.remain])
    assert not wanted & set(labels[request.test])
    assert len(request.forget) == 15 * len(wanted)
    assert request.nonmembers.tolist() == request.held_out.tolist()
    assert request.name == f"class-{number}"


def test_named_classes(clips: Clips) -> None:
    """Catches names that are ignored, unknown ones that pass, and a request for every class."""
    split = split_of(clips, 160)
    request = resolved(clips, split, forget="class", forget_class_names="7,2")
    assert set(clips.labels[request.forget].tolist()) == {2, 7}
    assert request.name == "class-7+2"
    with pytest.raises(UserError, match=r"unknown classes \['11', 'x'\]"):
        resolved(clips, split, forget="class", forget_class_names="x,1,11")
    with pytest.raises(UserError, match="at least one must remain"):
        resolved(clips, split, forget="class", forget_classes_num="10")


def test_speaker_request_keeps_the_test_set_whole(clips: Clips) -> None:
    """Catches the speaker's test clips missing from the test set, or from those that are reported apart."""
    split = split_of(clips, 160)
    request = resolved(clips, split, forget="speaker", forget_speakers="07")
    assert {clips.speakers[i] for i in request.forget} == {clips.speakers[i] for i in request.held_out} == {"07"}
    assert "07" not in {clips.speakers[i] for i in request.remain}
    assert request.test.tolist() == split.test.tolist()
    assert request.nonmembers.tolist() == request.held_out.tolist() == [167, 177, 187, 197]
    assert request.name == "speaker-07"
    drawn = resolved(clips, split, forget="speaker", forget_speakers_num="3")
    assert len({clips.speakers[i] for i in drawn.forget}) == 3
    assert len(drawn.forget) == 48


def test_unknown_speakers_are_refused(clips: Clips) -> None:
    """Catches a person who is believed forgotten because the name was mistyped, and clips without a speaker drawn."""
    split = split_of(clips, 160)
    with pytest.raises(UserError, match=r"\['7'\], not among the 10 speakers .*: did you mean '07'\?"):
        resolved(clips, split, forget="speaker", forget_speakers="7")
    nameless = replace(clips, speakers=("",) * 200)
    with pytest.raises(UserError, match=r"give speaker_pattern.*or put speakers.csv into data_dir"):
        resolved(nameless, split, forget="speaker")


def test_the_only_person_who_is_known_can_be_forgotten(clips: Clips) -> None:
    """Catches a person who cannot be forgotten because nobody else in the folder has a name."""
    split = split_of(clips, 160)
    one = replace(clips, speakers=tuple("Ann" if i % 5 == 0 else "" for i in range(200)))
    for values in ({"forget_speakers": "Ann"}, {}):
        request = resolved(one, split, forget="speaker", **values)
        assert (len(request.forget), len(request.remain)) == (32, 128)
    alone = replace(clips, speakers=("Ann",) * 200)
    with pytest.raises(UserError, match="takes the only speaker of the training set: nothing would remain"):
        resolved(alone, split, forget="speaker", forget_speakers="Ann")
    two = replace(clips, speakers=("Ann", "Ben") * 100)
    with pytest.raises(UserError, match="takes all 2 speakers"):
        resolved(two, split, forget="speaker", forget_speakers_num="2")
    with pytest.raises(UserError, match="forget_speakers_num=3, but the training set has 2 speakers: ask for fewer"):
        resolved(two, split, forget="speaker", forget_speakers_num="3")


def test_names_with_commas_are_quoted(clips: Clips) -> None:
    """Catches one person who becomes two unknown ones, and a request that cannot be given again as it was logged."""
    clips, split = replace(clips, speakers=("Smith, John", "Ann", "Ben", "Cem") * 50), split_of(clips, 160)
    request = resolved(clips, split, forget="speaker", forget_speakers='"Smith, John",Ann')
    assert {clips.speakers[i] for i in request.forget} == {"Smith, John", "Ann"}
    assert request.name == "speaker-Smith_John+Ann"
    with pytest.raises(UserError, match="""into double quotes, as in forget_speakers='"Smith, John"'"""):
        resolved(clips, split, forget="speaker", forget_speakers="Smith, John")


def test_a_class_is_found_however_it_is_written_and_told_beside_its_like(
    clips: Clips, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a class of a Mac's folder that cannot be named, and one of two that look the same taken for the other."""
    names = ("cafe\u0301", "cat", "cat ", "dog", "a, b")
    clips = clips_of([i % 5 for i in range(200)], names)
    split = split_of(clips, 160)
    assert resolved(clips, split, forget="class", forget_class_names="caf\u00e9").classes == ("cafe\u0301",)
    capsys.readouterr()
    assert resolved(clips, split, forget="class", forget_class_names='"cat "').classes == ("cat ",)
    assert "forget_class_names='cat ' leaves out the class 'cat', which looks the same" in capsys.readouterr().out
    assert resolved(clips, split, forget="class", forget_class_names='"a, b",dog').classes == ("a, b", "dog")
    with pytest.raises(UserError, match="""as in forget_class_names='"a, b"'"""):
        resolved(clips, split, forget="class", forget_class_names="a, b")
    with pytest.raises(UserError, match=r"unknown classes.*did you mean 'dog'"):
        resolved(clips, split, forget="class", forget_class_names="Dog")


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("004 - Baby cry", "class-004_-_Baby_cry"),
        ("../x", "class-_x"),
        (",".join("abcdefghij"[i] * 30 for i in range(5)), f"class-{'a' * 30}+{'b' * 30}+{'c' * 30}+2_more"),
    ],
)
def test_a_named_class_is_in_the_requests_name(asked: str, name: str) -> None:
    """Catches a request for a named class that reads like one for a drawn class, and a name that leads elsewhere."""
    names = (*asked.split(","), "other")
    clips = clips_of([i % len(names) for i in range(200)], tuple(sorted(names)))
    assert resolved(clips, split_of(clips, 160), forget="class", forget_class_names=asked).name == name


@pytest.mark.parametrize(
    ("one", "other"), [("17", "017"), ("0", "\uff10"), ("Anna", "anna"), ("Jos\u00e9", "Jose\u0301"), ("00x", "x")]
)
def test_speakers_that_look_alike_are_named_together(clips: Clips, one: str, other: str) -> None:
    """Catches a person half forgotten because the other half of the recordings spell the name another way."""
    clips = replace(clips, speakers=tuple((one, other, "", "17a", "000")[i % 5] for i in range(200)))
    split = split_of(clips, 160)
    for name, left in ((one, other), (other, one)):
        with pytest.raises(UserError) as raised:
            resolved(clips, split, forget="speaker", forget_speakers=name)
        complaint = f"forget_speakers={name!a} leaves out {left!a}, which looks the same: name both, or "
        assert str(raised.value) == f"{complaint}rename one"
    both = resolved(clips, split, forget="speaker", forget_speakers=f"{other},{one}")
    assert {clips.speakers[i] for i in both.forget} == {one, other}
    assert len(resolved(clips, split, forget="speaker", forget_speakers="17a").forget) == 32


@pytest.mark.parametrize(("typed", "stored"), [("Jos\u00e9", "Jose\u0301"), ("Jose\u0301", "Jos\u00e9")])
def test_speaker_is_found_however_accents_are_encoded(clips: Clips, typed: str, stored: str) -> None:
    """Catches a name from a Mac's file system that no keyboard can type, and one person counted as two."""
    clips = replace(clips, speakers=tuple((stored, "Ben", "Zoe")[i % 3] for i in range(200)))
    request = resolved(clips, split_of(clips, 160), forget="speaker", forget_speakers=f"{typed},{stored}")
    assert {clips.speakers[i] for i in request.forget} == {stored}
    again = resolved(clips, split_of(clips, 160), forget="speaker", forget_speakers=typed)
    assert (again.hash, again.name) == (request.hash, request.name)


def test_duplicates_together_or_ignored(clips: Clips) -> None:
    """Catches a copy of a forgotten recording that is still trained on, copies uncounted, and test clips forgotten."""
    hashes = list(clips.hashes)
    hashes[50] = hashes[150] = hashes[180] = hashes[3]
    hashes[183] = hashes[4]  # a test clip of speaker 03 that another speaker's training clip is a copy of
    clips = replace(clips, hashes=tuple(hashes))
    split = split_of(clips, 160)
    options = {"forget": "speaker", "forget_speakers": "03"}
    alone = resolved(clips, split, **options, duplicates="ignore")
    together = resolved(clips, split, **options)
    assert sorted(set(together.forget) - set(alone.forget)) == [50, 150]
    assert (together.n_requested, together.n_duplicates_added) == (16, 2)
    assert (alone.n_requested, alone.n_duplicates_added) == (16, 0)
    assert not {hashes[i] for i in together.forget} & {hashes[i] for i in together.remain}
    assert together.hash != alone.hash
    assert (together.held_out.tolist(), together.nonmembers.tolist()) == ([163, 173, 183, 193], [163, 173, 193])
    items = resolved(clips, split)
    assert 180 in items.test
    assert 180 not in items.nonmembers


@pytest.mark.parametrize("duplicates", ["together", "ignore"])
def test_probable_copies_are_forgotten_or_barred(clips: Clips, duplicates: str) -> None:
    """Catches the person's own test recordings or copies by hash offered as finds, a copy on the test side that is
    forgotten, asked for or a non-member, and one hash for the request with and without copies."""
    hashes = list(clips.hashes)
    hashes[55] = hashes[3]  # a copy by hash
    clips = replace(clips, hashes=tuple(hashes))
    split = split_of(clips, 160)
    config = Config.from_text({"forget": "speaker", "forget_speakers": "03", "duplicates": duplicates}).request
    seen: list[np.ndarray] = []

    def seek(asked: np.ndarray, others: np.ndarray) -> Copies:
        seen.extend([asked, others])
        return Copies({52: 3, 172: 183}, "compared", Path())

    request = resolve_request(config, clips, split, seek)
    assert {clips.speakers[i] for i in seen[0]} == {"03"} and 183 in seen[0]
    assert sorted([*seen[0], *seen[1], 55]) == list(range(200))
    plain = resolve_request(config, clips, split)
    assert sorted({*request.forget} - {*plain.forget}) == [52]
    assert request.untrained.tolist() == [172]
    assert request.n_requested == plain.n_requested == 16
    assert 172 not in request.nonmembers
    assert (request.copies_are, plain.copies_are) == ("compared", NOT_SOUGHT)
    assert request.hash != plain.hash
    table = request_table(config, clips, request).set_index("clip_id")
    assert table.loc[[clips.ids[52], clips.ids[172]], "copy_of"].tolist() == [clips.ids[3], clips.ids[183]]
    assert not table.loc[[clips.ids[52], clips.ids[172]], "requested"].any()
    assert table["trained"].sum() == len(request.forget)


def test_request_must_leave_something(clips: Clips) -> None:
    """Catches a naive model trained on nothing, and a test set without clips."""
    with pytest.raises(UserError, match="takes all 160 training clips"):
        resolved(clips, split_of(clips, 160), forget_percentage="99.9")
    split = Split("random", np.arange(160), np.array([10, 11]), np.array([10, 11]))
    with pytest.raises(UserError, match="leaves no test clips"):
        resolved(clips, split, forget="class", forget_class_names="1")


def listed(clips: Clips, split: Split, path: Path, text: str) -> Request:
    path.write_text(text, encoding="utf-8")
    return resolved(clips, split, forget="list", forget_list=str(path))


def test_list_of_ids_and_paths(clips: Clips, tmp_path: Path) -> None:
    """Catches a list read by the wrong column, and entries lost to spaces, byte order marks or line ends."""
    split = split_of(clips, 160)
    texts = {
        "plain": "clip/000003.wav\n\n  ./clip/000150.wav  \n/data/root/clip/000009.wav\n",
        "windows": "\ufeffclip/000003.wav\r\nclip\\000150.wav\r\nclip/000009.wav",
        "csv": 'reason,clip_id,date\n"left, now",clip/000003.wav,1\nx,clip/000150.wav,2\n,,\n"a\nb",clip/000009.wav,\n',
        "path": "path\n/data/root/clip/000003.wav\nclip/000150.wav\nclip/000009.wav\n",
    }
    requests = [listed(clips, split, tmp_path / f"{name}.csv", text) for name, text in texts.items()]
    for request in requests:
        assert request.forget.tolist() == [3, 9, 150]
        assert request.name == f"list-{request.hash[:8]}"
        assert len(request.held_out) == 0
        assert "held_out" not in request.sets()
    assert len({request.hash for request in requests}) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("clip/000001.wav\nclip/999999.wav\n", "1 unknown (line 2 'clip/999999.wav')"),
        ("clip/000001.wav\n./clip/000001.wav\n", "1 repeated (line 2 './clip/000001.wav')"),
        ("clip/000159.wav\nclip/000170.wav\n", "names 2 recordings, none of which was trained on"),
        ("speaker,reason\n01,x\n 01,y\n", "line 3 '01' repeated"),
        ("speaker\n1\n", "has ['1'], not among the 10 speakers of the recordings"),
        ("speaker\n" + "".join(f"{i:02d}\n" for i in range(10)), "names all 10 speakers of the training set"),
        ("clip/bad.wav\n", "1 left out as unreadable (line 1 'clip/bad.wav')"),
        ("id,reason\nclip/000001.wav,x\n,y\n", "1 unknown (line 3 '')"),
        ("id\n", "names no clip"),
        ("", "names no clip"),
    ],
)
def test_wrong_lines_are_refused(clips: Clips, tmp_path: Path, text: str, complaint: str) -> None:
    """Catches a deletion request that is answered in part without a word."""
    clips = replace(clips, skipped=(("clip/bad.wav", "is empty"),))
    split = Split("official", np.arange(159), np.arange(160, 200), np.arange(160, 200))
    with pytest.raises(UserError) as raised:
        listed(clips, split, tmp_path / "list.txt", text)
    assert complaint in str(raised.value)


def test_a_thousand_wrong_lines_give_a_short_answer(clips: Clips, tmp_path: Path) -> None:
    """Catches an error of a thousand lines, or of one line as long as what was pasted."""
    with pytest.raises(UserError) as raised:
        listed(clips, split_of(clips, 160), tmp_path / "list.txt", f"{'x' * 100_000}\n" * 1_000)
    message = str(raised.value)
    assert "1000 unknown (line 1 'xxx" in message
    assert len(message) < 1_000
    assert "\n" not in message


def test_ten_thousand_lines_take_seconds(tmp_path: Path) -> None:
    """Catches a search through all clips for every line."""
    clips = clips_of([i % 10 for i in range(84_853)])
    split = split_of(clips, 84_843)
    started = time.perf_counter()
    request = listed(clips, split, tmp_path / "list.txt", "\n".join(clips.ids[:10_000]))
    assert len(request.forget) == 10_000
    assert time.perf_counter() - started < 5


def test_hash_follows_the_clips_not_the_way_they_were_named(clips: Clips, tmp_path: Path) -> None:
    """Catches evidence that names the same hash for other sounds or other clips."""
    split = split_of(clips, 160)
    text = "clip/000001.wav\nclip/000002.wav\n"
    first = listed(clips, split, tmp_path / "a.txt", text)
    assert first.hash == listed(clips, split, tmp_path / "b.csv", "id\nclip/000002.wav\nclip/000001.wav\n").hash
    other_sound = replace(clips, hashes=("other", "other 1", *clips.hashes[2:]))
    assert first.hash != listed(other_sound, split, tmp_path / "c.txt", text).hash
    assert first.hash != listed(clips, split, tmp_path / "d.txt", "clip/000001.wav\n").hash


def test_nonmembers_of_a_list_are_of_its_speakers_and_classes(clips: Clips, tmp_path: Path) -> None:
    """Catches a list of one person compared with other people, and of one word compared with other words."""
    clips = clips_of([(i // 10) % 2 for i in range(400)])  # two classes, ten speakers
    split = split_of(clips, 200)
    some = "\n".join(clips.ids[i] for i in range(200) if i % 10 in (3, 4) and (i // 10) % 2 == 0)
    request = listed(clips, split, tmp_path / "some.txt", some)
    assert {(clips.speakers[i], int(clips.labels[i])) for i in request.nonmembers} == {("03", 0), ("04", 0)}
    assert request.nonmembers_are == "20 held-out clips of the same speakers and classes"
    assert len(request.test) == 200
    few = replace(clips, labels=torch.where(torch.arange(400) < 200, 0, torch.arange(400) % 7))
    request = listed(few, split, tmp_path / "few.txt", "\n".join(few.ids[i] for i in range(200) if i % 10 == 3))
    assert request.nonmembers_are == "20 held-out clips of the same speakers, of any class"
    elsewhere = replace(clips, speakers=tuple("x" if i < 10 else s for i, s in enumerate(clips.speakers)))
    request = listed(elsewhere, split, tmp_path / "elsewhere.txt", "\n".join(clips.ids[:5]))
    assert request.speaker_confounded
    assert "no held-out clips of the same speakers" in request.nonmembers_are
    assert {int(clips.labels[i]) for i in request.nonmembers} == {0}


def test_request_table_keeps_the_notes_and_tells_copies(clips: Clips, tmp_path: Path) -> None:
    """Catches reasons and dates lost or moved to another recording, and copies that look as if asked for."""
    clips = replace(clips, hashes=("hash 5", *clips.hashes[1:]))
    text = 'path,reason,date\n/data/root/clip/000007.wav,left,2024-01-02\n./clip/000005.wav,"moved, away",2024-01-01\n'
    path = tmp_path / "list.csv"
    request = listed(clips, split_of(clips, 160), path, text)
    table = request_table(Config.from_text({"forget": "list", "forget_list": str(path)}).request, clips, request)
    assert set(table["scope"]) == {"recordings"}
    assert (table["trained"].all(), table["source_hash"].tolist()) == (True, ["source 0", "source 5", "source 7"])
    assert table[["clip_id", "audio_hash", "requested", "reason", "date"]].to_numpy().tolist() == [
        ["clip/000000.wav", "hash 5", False, "", ""],
        ["clip/000005.wav", "hash 5", True, "moved, away", "2024-01-01"],
        ["clip/000007.wav", "hash 7", True, "left", "2024-01-02"],
    ]
    assert list(table.columns[-2:]) == ["reason", "date"]
    assert (request.n_requested, request.n_duplicates_added) == (2, 1)


@pytest.mark.parametrize("values", [{}, {"forget": "class"}, {"forget": "speaker"}])
def test_request_is_replayed_from_its_table(clips: Clips, tmp_path: Path, values: dict[str, str]) -> None:
    """Catches a stored request that forgets other clips the second time, or recordings that were exchanged since."""
    split = split_of(clips, 160)
    request = resolved(clips, split, **values)
    stored = request_table(Config.from_text(values).request, clips, request).to_csv(index=False)
    again = listed(clips, split, tmp_path / "request.csv", stored)
    assert again.forget.tolist() == request.forget.tolist()
    assert again.clips_hash == request.clips_hash
    once_more = listed(clips, split, tmp_path / "again.csv", stored)
    assert once_more.hash == again.hash
    first = request.forget[0]
    elsewhere = replace(clips, hashes=tuple("new" if i == first else h for i, h in enumerate(clips.hashes)))
    assert listed(elsewhere, split, tmp_path / "request.csv", stored).forget.tolist() == request.forget.tolist()
    exchanged = replace(clips, sources=tuple("new" if i == first else h for i, h in enumerate(clips.sources)))
    with pytest.raises(UserError, match=r"1 not the recording of that source_hash \(line 2 "):
        listed(exchanged, split, tmp_path / "request.csv", stored)


def test_real_speech_end_to_end(real_layout: Path) -> None:
    """Catches parts, labels or speakers lost between the files and the request, on real words."""
    config = Config.from_text(
        {"dataset": "SpeechCommands", "data_dir": str(real_layout), "forget": "class", "forget_classes_num": "3"}
    )
    clips = load_clips(config.data)
    split = split_clips("official", 42, clips)
    request = resolve_request(config.request, clips, split)
    assert (len(clips), len(split.train), len(split.test)) == (1_810, 1_398, 154)
    assert {clips.ids[i].split("/")[0] for i in request.forget} == {"five", "bed", "nine"}
    assert {clips.ids[i].split("/")[0] for i in [*request.remain, *request.test]} == set(WORDS) - {
        "five",
        "bed",
        "nine",
    }


@pytest.fixture
def real_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Real words, and a cache of the test's own."""
    folder = os.environ.get("AUDIO_MU_TEST_DATA")
    if not folder:
        pytest.skip("AUDIO_MU_TEST_DATA is unset: no folder of real speech")
    monkeypatch.setenv("AUDIO_MU_CACHE", str(tmp_path))
    return Path(folder) / "speech_commands_layout"


def parts_of(n: int, parts: int) -> Clips:
    """Recordings in two parts each that overlap by half, of ten people in turn."""
    clips = clips_of([i % 2 for i in range(n * parts)], ("a", "b"))
    spans = [f"#{i % parts}.0-{i % parts + 2}.0" for i in range(n * parts)]
    ids = tuple(f"r/{i // parts:03}.wav{span}" for i, span in enumerate(spans))
    within = tuple(f"file {i // parts}{span}" for i, span in enumerate(spans))
    speakers = tuple(f"{i // parts % 10:02d}" for i in range(n * parts))
    return replace(clips, ids=ids, within=within, speakers=speakers)


@pytest.mark.parametrize(
    ("lines", "asked", "shared"),
    [
        ("r/003.wav", [9, 10, 11], []),
        ("id,source_hash\nr/003.wav,file 3", [9, 10, 11], []),
        ("/data/root/r/003.wav#0.0-2.0", [9], [10]),
        ("r/003.wav#0.0-2.0\nr/003.wav", [9, 10, 11], []),
        ("r/003.wav#0.5-0.75", [9], [10]),  # cut otherwise since
        ("r/003.wav#3.5-3.75\nr/004.wav#3.0-9.0", [11, 14], [10, 13]),
    ],
)
def test_a_path_of_a_list_is_all_its_parts(tmp_path: Path, lines: str, asked: list[int], shared: list[int]) -> None:
    """Catches a path that is unknown or means one part, and a forgotten part of which another has half."""
    (tmp_path / "list.csv").write_text(lines)
    clips = parts_of(20, 3)
    values = {"forget": "list", "forget_list": str(tmp_path / "list.csv"), "copies": "exact"}
    request = resolved(clips, split_of(clips, 48), **values)
    assert request.requested.tolist() == asked
    assert request.forget.tolist() == sorted(asked + shared)
    table = request_table(Config.from_text(values).request, clips, request)
    assert table["within"].tolist() == [clips.within[i] for i in request.forget]
    alone = resolved(clips, split_of(clips, 48), **values, duplicates="ignore")
    assert alone.forget.tolist() == asked


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("r/003.wav\nr/003.wav#0.0-2.0", "1 repeated"),
        ("r/003.wav#7.0-9.0", "1 unknown"),
        ("id,source_hash\nr/003.wav,source 9", "1 not the recording of that source_hash"),
    ],
)
def test_parts_that_a_list_cannot_mean(tmp_path: Path, lines: str, told: str) -> None:
    """Catches a part without any clip, one that is asked for twice, and a recording taken by the hash of its part."""
    (tmp_path / "list.csv").write_text(lines)
    clips = parts_of(20, 3)
    with pytest.raises(UserError, match=told):
        resolved(clips, split_of(clips, 48), forget="list", forget_list=str(tmp_path / "list.csv"), copies="exact")


def test_a_person_is_all_parts_that_are_theirs() -> None:
    """Catches a person of a conversation whose other half is forgotten too, or a part that is left."""
    clips = parts_of(20, 3)
    speakers = tuple("guest" if i % 3 == 2 else name for i, name in enumerate(clips.speakers))
    apart = replace(
        clips, speakers=speakers, within=tuple(w.replace("#2.0", "#7.0").replace("-4.0", "-9.0") for w in clips.within)
    )
    request = resolved(apart, split_of(clips, 48), forget="speaker", forget_speakers="guest", copies="exact")
    assert request.forget.tolist() == [*range(2, 48, 3)]
