"""On which shard each recording is."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from audio_mu.data.clips import Clips
from audio_mu.data.shards import place_on_shards
from tests.data.layouts import clips_of

PEOPLE = [f"p{i}" for i in range(60)]


def folder(people: list[str], takes: int = 3) -> Clips:
    sources = [f"{person} {take}" for person in people for take in range(takes)]
    return clips_of(sources, speakers=tuple(person for person in people for _ in range(takes)))


def shards(clips: Clips, n: int = 4, known: dict[str, int] | None = None) -> dict[str, int]:
    """Source hash → shard."""
    return dict(zip(clips.sources, place_on_shards(clips, n, known or {}).tolist(), strict=True))


def test_a_person_is_on_one_shard_and_nobody_moves_because_of_others() -> None:
    """Catches places by position or by class, and a draw over the list of people."""
    before = shards(folder(PEOPLE))
    of_person = defaultdict(set)
    for source, shard in before.items():
        of_person[source.partition(" ")[0]].add(shard)
    assert all(len(found) == 1 for found in of_person.values())
    assert np.bincount(list(before.values())).min() > 20
    for people in (PEOPLE[::2], PEOPLE[::-1], [*(f"new {i}" for i in range(40)), *PEOPLE]):
        now = shards(folder(people))
        assert all(now[source] == before[source] for source in now.keys() & before)
    later = shards(folder(PEOPLE, takes=5))
    assert before.items() <= later.items()
    assert all(later[f"{person} 4"] == before[f"{person} 0"] for person in PEOPLE)
    assert shards(folder(PEOPLE), n=3) != before


def test_recordings_of_nobody_are_placed_by_their_own_hash() -> None:
    """Catches all recordings of unknown people on one shard, and places by the file's name."""
    sources = [f"hash {i}" for i in range(200)]
    before = shards(clips_of(sources))
    assert np.bincount(list(before.values())).min() > 30
    assert shards(clips_of(sources[::-1])) == before


def test_accents_do_not_make_another_person() -> None:
    """Catches the two encodings of one name on two shards."""
    clips = clips_of([str(i) for i in range(40)], speakers=("André", "André") * 20)
    assert len(set(place_on_shards(clips, 8, {}).tolist())) == 1


def test_people_who_share_a_recording_are_placed_as_one() -> None:
    """Catches a person under two names on two shards, so that a request for one touches both."""
    clips = folder(PEOPLE)
    for other in PEOPLE[1:]:
        sources = (*clips.sources, "p0 1", f"{other} new")
        both = clips_of(list(sources), speakers=(*clips.speakers, other, other))
        assert len({shards(both)[source] for source in ("p0 0", f"{other} 0", f"{other} new")}) == 1


@pytest.mark.parametrize("gone", ["a", "b"])
def test_whoever_was_placed_stays_when_the_other_name_is_gone(gone: str) -> None:
    """Catches a person who moves when the recordings of the other name are removed, and a later name elsewhere."""
    names = next((a, b) for a in PEOPLE for b in PEOPLE if a < b and len({*shards(folder([a, b])).values()}) == 2)
    a, b = names
    clips = folder([a, b])
    one = replace(clips, sources=(*clips.sources[:5], clips.sources[0]), hashes=("",) * 5 + ("",))
    one = replace(one, hashes=tuple(f"own {i}" for i in range(6)))
    before = shards(one)
    assert len({*before.values()}) == 1
    left = folder([a if gone == "b" else b], takes=4)
    now = shards(left, known=before)
    assert {*now.values()} == {*before.values()}
    renamed = clips_of([*left.sources[:2], "more"], speakers=("another name",) * 3)
    assert {*shards(renamed, known=before).values()} == {*before.values()}
