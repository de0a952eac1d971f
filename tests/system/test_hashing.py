"""Hashes of values."""

from __future__ import annotations

from audio_mu.system import hashing


def test_hashes_tell_lists_apart() -> None:
    """Catches parts that are simply joined, and JSON whose order matters."""
    assert hashing.sha256("ab", "c") != hashing.sha256("a", "bc")
    assert hashing.hash_of({"a": 1, "b": 2}) == hashing.hash_of({"b": 2, "a": 1})


def test_half_characters_have_a_hash() -> None:
    """Catches a command that dies over a name in another encoding, and one hash for that name and how it is shown."""
    assert len({hashing.hash_of(name) for name in ("\udcff", "\udcfe", r"\udcff", "?")}) == 4
