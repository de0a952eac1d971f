"""Which recordings train and which test."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from audio_mu.data.catalog import composed
from audio_mu.data.clips import Clips
from audio_mu.data.segments import recording_of
from audio_mu.data.together import as_one
from audio_mu.errors import UserError, counted
from audio_mu.system.hashing import sha256

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.125
TRAIN, TEST = "train", "test"
ENOUGH = 5  # recordings from which a class has one on each side

Sides = Mapping[str, str]
"""Identity → side. An identity is a hash: of a recording's samples, of a speaker's name."""


@dataclass(frozen=True)
class Split:
    """Sorted index arrays into the clips. `nonmembers` = test clips that are no copies of a training clip.

    `drawn` = the sides that were drawn for it, of identities that had none. `waiting` = clips without a side.
    """

    kind: str
    train: np.ndarray
    test: np.ndarray
    nonmembers: np.ndarray
    drawn: Sides = field(default_factory=dict)
    waiting: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def n_test_copies(self) -> int:
        """How many test clips are copies of training clips."""
        return len(self.test) - len(self.nonmembers)


def split_clips(kind: str, seed: int, clips: Clips, known: Sides | None = None, draw: bool = True) -> Split:
    """Split clips into training and test set, those with a known side as they are known.

    All parts of a recording are on one side. `official`: the data set's own test list tests, its validation list is
    left unused, as in the study; `random`: each
    recording by the hash of its own samples, 20 % test, copies together, each class of five recordings on both sides;
    `speaker`: each speaker by the hash of the name; `study`: scikit-learn's `train_test_split` over the sorted ids,
    which is drawn once, and recordings that come later as with `random`. Without `draw` clips whose side is not known
    wait. Raises `UserError` where the clips do not allow the kind.
    """
    known = known or {}
    if kind == "official":
        if TEST not in clips.parts:
            raise UserError("split='official' but this data set has no test list: give -P split=random")
        return _split(kind, clips, clips.parts, {})
    drawn: dict[str, str] = {}
    keys = _identities(kind, clips)
    if kind == "study":
        if draw and not known:
            drawn = _studys_draw(seed, clips)
        of_copy = [_of_copy(recording_of(id_), file) for id_, file in zip(clips.ids, clips.files)]
        sides = {**known, **drawn}
        keys = [own if own in sides else key for own, key in zip(of_copy, keys)]
    if draw:
        groups = [""] * len(keys) if kind == "speaker" else clips.labels.tolist()
        drawn |= _drawn_together(seed, keys, groups, {**known, **drawn}, _leaders(kind, keys, clips))
    sides = {**known, **drawn}
    found = [sides.get(key, "") for key in keys]
    _refuse_torn(kind, clips, found)
    return _split(kind, clips, found, drawn)


def _split(kind: str, clips: Clips, sides: Sequence[str], drawn: Sides) -> Split:
    train, test, waiting = (
        np.array([i for i, own in enumerate(sides) if own == side], dtype=np.int64) for side in (TRAIN, TEST, "")
    )
    if len(train) == 0 or len(test) == 0:
        raise UserError(f"split={kind!r} leaves {len(train)} training and {len(test)} test clips: both are needed")
    trained = {hash_ for i in train for hash_ in (clips.hashes[i], clips.sources[i])}
    nonmembers = [i for i in test if trained.isdisjoint((clips.hashes[i], clips.sources[i]))]
    return Split(kind, train, test, np.array(nonmembers, dtype=np.int64), drawn, waiting)


def sides_of(kind: str, clips: Clips, trained: Collection[str]) -> dict[str, str]:
    """Identity → side where the recordings with these ids train, with their copies, and all others test.

    Raises `UserError` where the kind allows no such sides: the data set has its own list, or a person is on both.
    """
    if kind == "official":
        raise UserError("split='official' takes the data set's own test list, not trained_on: give -P split=random")
    keys = _identities(kind, clips)
    sides = {key: TRAIN for key, id_ in zip(keys, clips.ids) if id_ in trained}
    others = [i for i, id_ in enumerate(clips.ids) if id_ not in trained]
    if kind == "speaker" and (mixed := [clips.speakers[i] for i in others if keys[i] in sides]):
        raise UserError(
            f"split='speaker' but trained_on has some recordings of {mixed[0]!r} and lacks others: give -P split=random"
        )
    return {**{keys[i]: TEST for i in others}, **sides}


def one_sided(split: Split, clips: Clips) -> list[str]:
    """Names of the classes that only train or only test: nothing is learned of the one, nothing measured of the other.

    Each with its side, such as `cat (2 recordings, none to test)`.
    """
    labels, told = clips.labels.numpy(), []
    for number, name in enumerate(clips.class_names):
        trains, tests = (int((labels[rows] == number).sum()) for rows in (split.train, split.test))
        if (trains == 0) != (tests == 0):
            lacking = "test" if trains else "train on"
            told.append(f"{name} ({counted(trains + tests, 'recording')}, none to {lacking})")
    return told


def _identities(kind: str, clips: Clips) -> list[str]:
    if kind != "speaker":
        return list(clips.files)
    speakers = set(clips.speakers)
    if len(speakers) < 2 or "" in speakers:
        raise UserError(
            f"split='speaker' needs at least 2 speakers and no clip without one, found "
            f"{counted(len(speakers - {''}), 'speaker')} and {counted(clips.speakers.count(''), 'clip')} without: "
            "give -P split=random"
        )
    own = {name: sha256(composed(name)) for name in speakers}
    return [own[name] for name in clips.speakers]


def _of_copy(id_: str, source: str) -> str:
    """The identity of one of several copies, which the study's draw has put on different sides."""
    return sha256(source, id_)


def _studys_draw(seed: int, clips: Clips) -> dict[str, str]:
    from sklearn.model_selection import train_test_split  # a second, which other splits need not wait

    recordings = dict(zip(map(recording_of, clips.ids), clips.files))
    train, _ = train_test_split(np.arange(len(recordings)), test_size=TEST_SHARE, random_state=seed)
    trained = set(train.tolist())
    sides = [TRAIN if i in trained else TEST for i in range(len(recordings))]
    found: dict[str, set[str]] = defaultdict(set)
    for source, side in zip(recordings.values(), sides):
        found[source].add(side)
    drawn = {source: next(iter(own)) if len(own) == 1 else TRAIN for source, own in found.items()}
    for (id_, source), side in zip(recordings.items(), sides):
        if len(found[source]) > 1:
            drawn[_of_copy(id_, source)] = side
    return drawn


def _leaders(kind: str, keys: Sequence[str], clips: Clips) -> dict[str, str]:
    """Identity → the least of those that are drawn as one with it.

    Recordings are where a part of one holds what a part of another or a recording of its own does; speakers where they
    speak in one recording, which is cut into parts.
    """
    parts = zip(keys, clips.sources, clips.files, clips.within)
    if kind == "speaker":
        return as_one(keys, ((key, file) for key, _, file, within in parts if within))
    return as_one(keys, ((key, source) for key, source, *_ in parts))


def _refuse_torn(kind: str, clips: Clips, sides: Sequence[str]) -> None:
    """Raise `UserError` where people of one recording have been given different sides before it came."""
    first: dict[str, int] = {}
    for i, (file, within, side) in enumerate(zip(clips.files, clips.within, sides)):
        if within and side and sides[j := first.setdefault(file, i)] != side:
            raise UserError(
                f"split={kind!r}: {clips.ids[j]!r} is on the side {sides[j]} and {clips.ids[i]!r} on {side}, though "
                "they are of one recording: leave it out, or give -P split=random"
            )


def _drawn_together(
    seed: int, keys: Sequence[str], groups: Sequence[object], known: Sides, leaders: Mapping[str, str]
) -> dict[str, str]:
    """The sides of the identities that have none: that of those they belong with, or a drawn one."""
    sides: dict[str, str] = {}
    for key in leaders.keys() & known.keys():
        sides[leaders[key]] = TRAIN if TRAIN in (known[key], sides.get(leaders[key])) else TEST
    sides |= _drawn(seed, [leaders[key] for key in keys], groups, sides)
    return {key: sides[leader] for key, leader in leaders.items() if key not in known}


def _drawn(seed: int, keys: Sequence[str], groups: Sequence[object], known: Sides) -> dict[str, str]:
    """The sides of the identities that have none, each by its own hash.

    A group of five, and all together, have one on each side if a new identity can see to it: the one whose hash is
    nearest to the other side. Nobody who has a side moves.
    """
    place = {key: int(sha256(str(seed), key)[:16], 16) / 2**64 for key in {*keys} - known.keys()}
    drawn = {key: TEST if own < TEST_SHARE else TRAIN for key, own in place.items()}
    members: dict[object, set[str]] = defaultdict(set)
    for key, group in zip(keys, groups):
        members[group].add(key)
    sizes = Counter(groups)
    for own in [*(members[group] for group in sorted(sizes, key=str) if sizes[group] >= ENOUGH), {*keys}]:
        sides = {known.get(key) or drawn[key] for key in own}
        new = sorted(own & place.keys(), key=lambda key: place[key])
        if len(own) > 1 and len(sides) == 1 and new:
            drawn[new[0 if sides == {TRAIN} else -1]] = TEST if sides == {TRAIN} else TRAIN
    return drawn


def choosing_parts(split: Split, parts: tuple[str, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(training, validation) index arrays for choosing settings; the test set has no part in it.

    The official validation list where the split is official and there is one, otherwise one eighth of the training
    set, drawn with the seed.
    """
    listed = np.array([i for i, part in enumerate(parts) if part == "validation"], dtype=np.int64)
    if split.kind == "official" and len(listed):
        return split.train, listed
    from sklearn.model_selection import train_test_split

    train, validation = train_test_split(split.train, test_size=VALIDATION_SHARE, random_state=seed)
    return np.sort(train), np.sort(validation)
