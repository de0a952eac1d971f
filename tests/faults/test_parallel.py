"""Two commands at once on one store, as parallel.py starts them by the dozen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.faults.parallel import at_once
from tests.faults.small_chain import PROJECT, SMALLEST, Place, outcome


def test_two_projects_at_once(tmp_path: Path, digits: Path, undisturbed) -> None:
    """Catches two commands that meet in an empty store or in the cache: a lost run, a cache that is built twice."""
    place = Place(tmp_path, digits, SMALLEST).make()
    place.create_store()
    assert at_once(place, PROJECT, 2, "cold") == []
    assert outcome(place) == undisturbed[1]


def test_two_commands_create_one_store(tmp_path: Path, digits: Path) -> None:
    """Catches two commands that create the tables of one database at once, which breaks them for good."""
    place = Place(tmp_path, digits).make()
    code = "from audio_mu.store.connect import open_store; open_store()"
    words = [sys.executable, "-c", code]
    processes = [subprocess.Popen(words, cwd=tmp_path, env=place.environment()) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
