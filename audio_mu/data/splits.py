"""Which recordings train and which test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audio_mu.errors import UserError

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.125


@dataclass(frozen=True)
class Split:
    """Sorted index arrays into the clips. `nonmembers` = test clips that are no copies of a training clip."""

    kind: str
    train: np.ndarray
    test: np.ndarray
    nonmembers: np.ndarray

    @property
    def n_test_copies(self) -> int:
        """How many test clips are copies of training clips."""
        return len(self.test) - len(self.nonmembers)


def split_clips(
    kind: str, seed: int, parts: tuple[str, ...], speakers: tuple[str, ...], hashes: tuple[str, ...]
) -> Split:
    """Split clips, given in the order of their sorted ids, into training and test set.

    `official`: the data set's own test list tests, its validation list is left unused, as in the study;
    `random`: 20 % test, scikit-learn's `train_test_split` over the sorted ids; `speaker`: 20 % of the speakers
    test. Raises `UserError` where the clips do not allow the kind.
    """
    from sklearn.model_selection import train_test_split  # a second, which commands that split nothing need not wait

    n = len(parts)
    if kind == "official":
        if "test" not in parts:
            raise UserError("split='official' but this data set has no test list: give -P split=random")
        train = np.array([i for i in range(n) if parts[i] == "train"], dtype=np.int64)
        test = np.array([i for i in range(n) if parts[i] == "test"], dtype=np.int64)
    elif kind == "speaker":
        known = sorted(set(speakers))
        if len(known) < 2 or "" in known:
            raise UserError(
                f"split='speaker' needs at least 2 speakers and no clip without one, found {len(set(known) - {''})} "
                f"speakers and {speakers.count('')} clips without: give -P split=random"
            )
        _, held = train_test_split(known, test_size=TEST_SHARE, random_state=seed)
        is_test = np.isin(np.array(speakers), held)
        train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    else:
        train, test = train_test_split(np.arange(n), test_size=TEST_SHARE, random_state=seed)
        train, test = np.sort(train), np.sort(test)
    if len(train) == 0 or len(test) == 0:
        raise UserError(f"split={kind!r} leaves {len(train)} training and {len(test)} test clips: both are needed")
    trained = {hashes[i] for i in train}
    nonmembers = np.array([i for i in test if hashes[i] not in trained], dtype=np.int64)
    return Split(kind, train, test, nonmembers)


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
