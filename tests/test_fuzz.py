"""Damaged input of every kind, drawn by hypothesis: read, or refused in one line. benchmarks/fuzz.py has thousands."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import KINDS, mutated, outcome


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
    """Catches the return of what the thousands of benchmarks/fuzz.py found: a member's name with a null byte, which no
    path may have, and a stored weight that claims gigabytes beyond its own size."""
    kind = KINDS[name]
    what, line = outcome(kind, mutated(kind, random.Random(f"0 {name} {case}")))
    assert what == "refused", line
    assert reason in line
