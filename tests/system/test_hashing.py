"""Hashes of values."""

from __future__ import annotations

from audio_mu.system import hashing


def test_hashes_tell_lists_apart() -> None:
    """Catches parts that are simply joined, and JSON whose order matters."""
    assert hashing.sha256("ab", "c") != hashing.sha256("a", "bc")
    assert hashing.hash_of({"a": 1, "b": 2}) == hashing.hash_of({"b": 2, "a": 1})
