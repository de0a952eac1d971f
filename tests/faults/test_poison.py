"""A few poisoned stores and the commands that come next; poison.py has hundreds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.answered import Answered
from tests.faults.poison import COMMANDS, wrong


@pytest.mark.parametrize("name", COMMANDS)
def test_a_poisoned_store_is_read_or_refused_in_one_line(answered_once: tuple[Answered, Path], name: str) -> None:
    """Catches a traceback, a wrong state and a control character that a damaged artifact or row brings about."""
    place, backup = answered_once
    for case in range(2):
        what, end, fault = wrong(place, backup, name, random.Random(f"{name} {case}"))
        assert not fault, f"{what}: {end}: {fault}"
