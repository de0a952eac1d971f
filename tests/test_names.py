"""The names that tables and reports share."""

from __future__ import annotations

from audio_mu.names import STUDY, in_order


def test_the_study_comes_first_and_the_others_follow_by_name() -> None:
    """Catches a table in the order of runs, and a method of the user's own that is left out of it."""
    assert in_order(["zebra", "pop", "salun", "naive", "original", "apple"]) == [
        "original", "naive", "pop", "apple", "salun", "zebra",
    ]  # fmt: skip
    assert in_order(reversed(STUDY)) == list(STUDY)
