"""The faults' tests share recordings and a chain that nothing happened to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.small_chain import ENTRY, SMALLEST, Place, outcome, small_digits


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of three voices, or a skip where a killed chain's processes cannot be found."""
    if sys.platform != "linux":
        pytest.skip("processes are told apart through /proc")
    return small_digits(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> tuple[Place, dict[str, Any]]:
    """The shortest chain that nothing happened to, and its outcome."""
    place = Place(tmp_path_factory.mktemp("undisturbed"), digits, SMALLEST).make()
    place.finish(ENTRY)
    return place, outcome(place)
