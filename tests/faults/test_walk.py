"""A few short walks of a living folder; walk.py takes hundreds of longer ones."""

from __future__ import annotations

from tests.faults.walk import walk


def test_nobody_comes_back_on_short_walks() -> None:
    """Catches an order of joining, renaming, answering and erasing after which somebody is learnt again."""
    assert walk(walks=3, steps=5)["train"] >= 3
