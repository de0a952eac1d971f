"""Damaged input of every kind, drawn by hypothesis: read, or refused in one line. fuzz.py has thousands."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.damage import mutated, outcome
from tests.faults.kinds import KINDS


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(chance=st.randoms(use_true_random=False))
def test_damaged_input_is_read_or_refused_in_one_line(name: str, chance: random.Random) -> None:
    """Catches a traceback, an answer of several lines, and a file written outside the archive's folder."""
    kind = KINDS[name]
    what, line = outcome(kind, mutated(kind, chance))
    assert what != "crashed", line


@pytest.mark.parametrize("name", KINDS)
def test_undamaged_input_is_read(name: str) -> None:
    """Catches readers that refuse everything, which would pass the test above."""
    kind = KINDS[name]
    assert [outcome(kind, kind.finish(data)) for data in kind.examples()] == [("accepted", "")] * len(kind.examples())


@pytest.mark.parametrize(
    ("name", "case", "reason"), [("archive (members)", 381, "no file can have"), ("model", 2510, "is compressed")]
)
def test_what_once_crashed_is_refused(name: str, case: int, reason: str) -> None:
    """Catches the return of what the thousands of fuzz.py found: a member's name with a null byte, which no
    path may have, and a stored weight that claims gigabytes beyond its own size."""
    kind = KINDS[name]
    what, line = outcome(kind, mutated(kind, random.Random(f"0 {name} {case}")))
    assert what == "refused", line
    assert reason in line


def test_the_shortest_reason_is_clear_enough() -> None:
    """Catches a fuzzing rule that takes the answer to an empty recording for a crash."""
    assert outcome(KINDS["wav"], b"") == ("refused", "is empty")


def test_a_case_is_repeated_from_its_number() -> None:
    """Catches a fuzzing case that depends on anything but its kind, its number and the seed."""
    first, again = (mutated(KINDS["wav"], random.Random("0 wav 7")) for _ in range(2))
    assert first == again
