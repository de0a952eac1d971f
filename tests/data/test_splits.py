"""Training and test set."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from audio_mu.data.splits import split_clips
from audio_mu.errors import UserError


def test_random_split_is_scikit_learns_over_the_sorted_ids() -> None:
    """Catches a split that nobody else can repeat from the list of ids."""
    ids = [f"{i:03d}" for i in range(101)]
    split = split_clips("random", 42, ("",) * 101, ("",) * 101, tuple(ids))
    train, test = train_test_split(ids, test_size=0.2, random_state=42)
    assert [ids[i] for i in split.train] == sorted(train)
    assert [ids[i] for i in split.test] == sorted(test)
    assert not np.array_equal(split.test, split_clips("random", 43, ("",) * 101, ("",) * 101, tuple(ids)).test)


def test_test_copies_of_training_clips_are_no_nonmembers() -> None:
    """Catches members counted as non-members, and the published test list changed because of a copy."""
    parts = ("train", "train", "validation", "test", "test", "test")
    split = split_clips("official", 42, parts, ("s",) * 6, ("a", "b", "c", "a", "c", "d"))
    assert (split.train.tolist(), split.test.tolist(), split.nonmembers.tolist()) == ([0, 1], [3, 4, 5], [4, 5])
    assert split.n_test_copies == 1


def test_speaker_split_shares_no_speaker() -> None:
    """Catches a speaker on both sides."""
    speakers = tuple(f"{i % 10:02d}" for i in range(100))
    split = split_clips("speaker", 42, ("",) * 100, speakers, tuple(map(str, range(100))))
    tested = {speakers[i] for i in split.test}
    assert len(tested) == 2
    assert not tested & {speakers[i] for i in split.train}
    assert len(split.train) + len(split.test) == 100


@pytest.mark.parametrize(
    ("kind", "speakers", "complaint"),
    [
        ("official", ("a", "b"), "no test list"),
        ("speaker", ("a", "a"), "found 1 speakers and 0 clips without"),
        ("speaker", ("a", ""), "found 1 speakers and 1 clips without"),
    ],
)
def test_impossible_splits_are_refused(kind: str, speakers: tuple[str, ...], complaint: str) -> None:
    """Catches an empty test set, and all clips of unknown speakers taken for one speaker."""
    with pytest.raises(UserError, match=complaint):
        split_clips(kind, 42, ("", ""), speakers, ("x", "y"))
