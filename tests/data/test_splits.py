"""Training and test set."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from audio_mu.data.clips import Clips
from audio_mu.data.splits import ENOUGH, TEST, TRAIN, Split, one_sided, sides_of, split_clips
from audio_mu.errors import UserError
from tests.data.layouts import clips_of


def sides(split: Split, clips: Clips) -> dict[str, str]:
    """Source hash → side."""
    own = {clips.sources[i]: TRAIN for i in split.train}
    return own | {clips.sources[i]: TEST for i in split.test}


def test_nobody_changes_sides_because_of_others() -> None:
    """Catches a draw over the list: whoever comes, goes or is renamed moved a quarter of the others."""
    sources = [f"recording {i}" for i in range(300)]
    labels = [i % 10 for i in range(300)]
    first = split_clips("random", 42, whole := clips_of(sources, labels))
    before = sides(first, whole)
    assert 35 < len(first.test) < 85
    assert first.drawn == before
    for kept in (range(0, 300, 2), range(10, 300)):
        less = clips_of([sources[i] for i in kept], [labels[i] for i in kept])
        assert sides(split_clips("random", 42, less, first.drawn), less).items() <= before.items()
    more = clips_of([f"new {i}" for i in range(100)] + sources[::-1], [i % 10 for i in range(100)] + labels[::-1])
    again = split_clips("random", 42, more, first.drawn)
    assert before.items() <= sides(again, more).items()
    assert again.drawn.keys() == {f"new {i}" for i in range(100)}
    waiting = split_clips("random", 42, more, first.drawn, draw=False)
    assert (sides(waiting, more), waiting.waiting.tolist()) == (before, list(range(100)))
    assert sides(split_clips("random", 43, whole), whole) != before


def test_each_class_of_five_has_one_on_each_side() -> None:
    """Catches a class without a test recording, and somebody who is moved to make one."""
    sources, labels = [f"{i}" for i in range(60)], [i // ENOUGH for i in range(60)]
    for seed in range(20):
        split = split_clips("random", seed, clips_of(sources, labels))
        assert {labels[i] for i in split.train} == {labels[i] for i in split.test} == set(range(12))
    known = dict.fromkeys(sources[:3], TRAIN)
    later = split_clips("random", 1, clips_of(sources[:8], [0] * 8), known)
    assert known.items() <= sides(later, clips_of(sources[:8], [0] * 8)).items()
    assert len(later.test) >= 1
    two = split_clips("random", 1, clips_of(["a", "b"]))
    assert (len(two.train), len(two.test)) == (1, 1)


def test_copies_are_on_one_side() -> None:
    """Catches a copy in the test set of a recording that is trained on."""
    clips = clips_of([f"{i % 40}" for i in range(80)], [i % 2 for i in range(80)])
    split = split_clips("random", 42, clips)
    assert not {clips.sources[i] for i in split.train} & {clips.sources[i] for i in split.test}


def test_the_studys_split_is_scikit_learns_over_the_sorted_ids_and_kept() -> None:
    """Catches another draw than the study's, and one that is drawn anew when a recording comes or goes."""
    ids = [f"{i:03d}" for i in range(101)]
    sources = [f"recording {i % 90}" for i in range(101)]  # eleven have a copy, on whatever side
    clips = clips_of(sources, ids=tuple(ids))
    split = split_clips("study", 42, clips)
    train, test = train_test_split(ids, test_size=0.2, random_state=42)
    assert [ids[i] for i in split.train] == sorted(train)
    assert [ids[i] for i in split.test] == sorted(test)
    less = clips_of(["new", *sources[2:]], ids=("000", *ids[2:]))
    later = split_clips("study", 42, less, split.drawn)
    assert {less.ids[i] for i in later.test} - {"000"} == set(test) - {"000", "001"}
    assert later.drawn.keys() == {"new"}


def test_test_copies_of_training_clips_are_no_nonmembers() -> None:
    """Catches members counted as non-members, and the published test list changed because of a copy."""
    parts = ("train", "train", "validation", "test", "test", "test")
    clips = clips_of(["1", "2", "3", "4", "5", "2"], parts=parts, hashes=("a", "b", "c", "a", "c", "d"))
    split = split_clips("official", 42, clips)
    assert (split.train.tolist(), split.test.tolist(), split.nonmembers.tolist()) == ([0, 1], [3, 4, 5], [4])
    assert split.n_test_copies == 2


def test_speaker_split_shares_no_speaker() -> None:
    """Catches a speaker on both sides, and a new speaker who moves others."""
    speakers = tuple(f"{i % 10:02d}" for i in range(100))
    sources = [str(i) for i in range(100)]
    clips = clips_of(sources, speakers=speakers)
    split = split_clips("speaker", 42, clips)
    tested = {speakers[i] for i in split.test}
    assert 1 <= len(tested) <= 5
    assert not tested & {speakers[i] for i in split.train}
    assert len(split.train) + len(split.test) == 100
    assert not {*speakers} & split.drawn.keys()  # hashes of names, no names
    more = clips_of([*sources, "x", "y"], speakers=(*speakers, "new", "Jose\u0301"))
    assert {more.speakers[i] for i in split_clips("speaker", 42, more, split.drawn).test} - {"new"} <= {
        *tested,
        "Jose\u0301",
    }
    counts = Counter(len({speakers[i] for i in split_clips("speaker", seed, clips).test}) for seed in range(50))
    assert 1.5 < np.average(list(counts), weights=list(counts.values())) < 2.7


@pytest.mark.parametrize(
    ("kind", "speakers", "complaint"),
    [
        ("official", ("a", "b"), "no test list"),
        ("speaker", ("a", "a"), "found 1 speaker and 0 clips without"),
        ("speaker", ("a", ""), "found 1 speaker and 1 clip without"),
    ],
)
def test_impossible_splits_are_refused(kind: str, speakers: tuple[str, ...], complaint: str) -> None:
    """Catches an empty test set, and all clips of unknown speakers taken for one speaker."""
    with pytest.raises(UserError, match=complaint):
        split_clips(kind, 42, clips_of(["x", "y"], speakers=speakers))


def test_classes_on_one_side_are_told() -> None:
    """Catches a class of one or two recordings that is only learned or only tested, which nobody says."""
    clips = clips_of([f"recording {i}" for i in range(14)], [0] * 6 + [1] * 6 + [2, 3])
    split = Split("random", np.array([0, 1, 2, 6, 7, 12]), np.array([3, 4, 8, 9, 13]), np.array([], dtype=np.int64))
    assert one_sided(split, clips) == ["2 (1 recording, none to test)", "3 (1 recording, none to train on)"]


@pytest.mark.parametrize("kind", ["random", "study"])
def test_a_list_of_what_was_trained_on_gives_the_sides(kind: str) -> None:
    """Catches a copy of a trained recording among the non-members, and a draw beside the list."""
    clips = clips_of(["a", "b", "a", "c", "d"])
    given = sides_of(kind, clips, {"0000.wav", "0003.wav"})
    assert given == {"a": TRAIN, "b": TEST, "c": TRAIN, "d": TEST}
    split = split_clips(kind, 42, clips, given, draw=False)
    assert (split.train.tolist(), split.test.tolist(), split.drawn) == ([0, 2, 3], [1, 4], {})


def test_people_are_trained_on_whole_or_not() -> None:
    """Catches a person on both sides of a split by people."""
    clips = clips_of(list("abcd"), speakers=("x", "x", "y", "y"))
    given = sides_of("speaker", clips, {"0000.wav", "0001.wav"})
    assert split_clips("speaker", 42, clips, given, draw=False).train.tolist() == [0, 1]
    with pytest.raises(UserError, match="some recordings of 'y'"):
        sides_of("speaker", clips, {"0000.wav", "0001.wav", "0002.wav"})


def parts_of(*recordings: tuple[str, int, str], **fields: tuple[str, ...]) -> Clips:
    """Clips of recordings (name, number of parts, speaker); a recording of no parts is whole."""
    rows = [
        (name, f"{name}.wav" + (f"#{i}.0-{i + 1}.0" if n else ""), f"{name} part {i}" if n else name, speaker)
        for name, n, speaker in recordings
        for i in range(n or 1)
    ]
    sources = fields.get("sources", tuple(source for _, _, source, _ in rows))
    clips = clips_of(list(sources), ids=tuple(id_ for _, id_, _, _ in rows), speakers=tuple(s for *_, s in rows))
    within = tuple(id_.replace(".wav", "") if "#" in id_ else "" for _, id_, _, _ in rows)
    return replace(clips, within=within)


def of_recordings(split: Split, clips: Clips) -> dict[str, set[str]]:
    """Recording → the sides of its clips."""
    found: dict[str, set[str]] = {}
    for side, rows in ((TRAIN, split.train), (TEST, split.test)):
        for i in rows:
            found.setdefault(clips.ids[i].partition("#")[0], set()).add(side)
    return found


@pytest.mark.parametrize("kind", ["random", "study"])
def test_the_parts_of_a_recording_are_on_one_side(kind: str) -> None:
    """Catches a network that is tested on what it has half heard, and a side that more parts change."""
    clips = parts_of(*((f"{i:02}", 1 + i % 5, "") for i in range(60)))
    found = of_recordings(split := split_clips(kind, 42, clips), clips)
    assert {len(sides) for sides in found.values()} == {1} and len(split.test) > 10
    assert split.drawn.keys() == {f"{i:02}" for i in range(60)}
    more = parts_of(*((f"{i:02}", 2 + i % 7, "") for i in range(60)))
    again = split_clips(kind, 42, more, split.drawn)
    assert of_recordings(again, more) == found and not again.drawn


def test_recordings_that_share_a_part_are_on_one_side() -> None:
    """Catches a segment that trains, and tests as a file of its own."""
    names = [(f"{i:02}", 3, "") for i in range(40)]
    copies = [(f"copy-{i:02}", 0, "") for i in range(40)]
    clips = parts_of(*names, *copies)
    sources = (*clips.sources[:120], *(f"{i:02} part 1" for i in range(40)))
    clips = replace(clips, sources=sources, hashes=sources)
    found = of_recordings(split := split_clips("random", 42, clips), clips)
    assert all(found[f"{i:02}.wav"] == found[f"copy-{i:02}.wav"] for i in range(40)) and split.n_test_copies == 0
    alone = replace(parts_of(*names))
    first = split_clips("random", 42, alone)
    later = split_clips("random", 42, clips, first.drawn)
    assert of_recordings(later, clips).items() >= of_recordings(first, alone).items() and later.n_test_copies == 0


def test_people_of_one_recording_are_on_one_side() -> None:
    """Catches a conversation of which one half trains; of people who have sides the recording is refused."""
    talks = [(f"{i:02}", 2, f"p{i}") for i in range(30)]
    clips = parts_of(*talks)
    both = tuple(f"p{i // 2 + (i % 2) * 30}" for i in range(60))  # the second part of each is of somebody else
    found = of_recordings(split_clips("speaker", 42, replace(clips, speakers=both)), clips)
    assert {len(sides) for sides in found.values()} == {1}
    drawn = split_clips("speaker", 42, alone := parts_of(*talks))
    trains, tests = (alone.speakers[int(rows[0])] for rows in (drawn.train, drawn.test))
    torn = replace(parts_of(*talks, ("talk", 2, "")), speakers=(*alone.speakers, trains, tests))
    with pytest.raises(UserError, match=r"split='speaker': 'talk\.wav#0\.0-1\.0' is on the side train and 'talk"):
        split_clips("speaker", 42, torn, drawn.drawn)
