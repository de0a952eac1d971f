"""Descriptions are read back as they were written, or not at all: one that lost its sound would hide a copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from audio_mu.data.descriptions import Descriptions, load, save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sounds = [np.arange(50, dtype=np.int16), np.arange(7, dtype=np.int16)]
    save(Descriptions(("a", "b"), np.ones((2, 3), dtype=np.float32), sounds, np.array([False, True])), tmp_path)
    return tmp_path


def test_what_was_saved_is_loaded(folder: Path) -> None:
    """Catches sounds that begin at the wrong place."""
    found = load(folder)
    assert found.keys == ("a", "b")
    assert [sound.tolist() for sound in found.sounds] == [[*range(50)], [*range(7)]]
    assert found.featureless.tolist() == [False, True]


HEAD = b"\x93NUMPY\x01\x00v\x00{'descr': ("
"""The head of an npy file is Python's text, which this one does not end."""


@pytest.mark.parametrize("name", ["sounds.npy", "vectors.npy", "descriptions.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: HEAD + data[len(HEAD) :],
        lambda data: data[:-2] + bytes([data[-2] ^ 1, data[-1]]),
        lambda data: b"",
        lambda data: b"[]",
    ],
    ids=["cut", "head", "bit", "empty", "other"],
)
def test_what_is_damaged_is_refused_as_damaged(folder: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    """Catches another error than the caller expects, a traceback of numpy's own parser, and altered sound."""
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises((OSError, ValueError, KeyError, TypeError)):
        load(folder)
