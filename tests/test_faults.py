"""Kills, several commands at once and a full disk, on the whole chain as a user runs it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks import kill_test, parallel_runs
from benchmarks.small_chain import ENTRY, PROJECT, SETTINGS, Place, outcome, small_digits
from tests.mounts import small_disk

SMALLEST = {**SETTINGS, "seeds": "40", "methods": "naive"}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are told apart through /proc")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_digits(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> tuple[Place, dict[str, Any]]:
    """The chain that nothing happened to."""
    place = Place(tmp_path_factory.mktemp("undisturbed"), digits, SMALLEST).make()
    place.finish(ENTRY)
    return place, outcome(place)


def test_killed_chains_end_as_the_undisturbed_one(tmp_path: Path, digits: Path, undisturbed) -> None:
    """Catches figures that depend on a kill, steps done twice, and runs, temporary files or processes left behind."""
    place = Place(tmp_path, digits, SMALLEST).make()
    for number, (name, steps) in enumerate([("SIGKILL", 4), ("SIGKILL", 9), ("SIGTERM", 6)]):
        kill = kill_test.kill_once(place, 0, number, ENTRY, "step", name, steps)
        assert kill is not None
        assert kill.problem == ""
    place.finish(ENTRY)
    assert list(kill_test.problems(place, undisturbed[1])) == []
    assert {status for (status,) in place.query("select distinct status from runs")} == {"FINISHED", "KILLED"}


def test_a_finished_base_model_without_its_version_is_adopted(undisturbed) -> None:
    """Catches a base model trained again, or never registered, where the kill came between run and registry."""
    place, expected = undisturbed
    with closing(sqlite3.connect(place.database)) as database, database:
        for table in ("registered_model_aliases", "model_version_tags", "model_versions"):
            database.execute(f"delete from {table}")
    place.finish(ENTRY)
    assert list(kill_test.problems(place, expected)) == []
    assert len(place.query("select * from model_versions")) == 1


def test_two_projects_at_once(tmp_path: Path, digits: Path, undisturbed) -> None:
    """Catches two commands that meet in an empty store or in the cache: a lost run, a cache that is built twice."""
    place = Place(tmp_path, digits, SMALLEST).make()
    place.create_store()
    assert parallel_runs.at_once(place, PROJECT, 2, "cold") == []
    assert outcome(place) == undisturbed[1]


def test_two_commands_create_one_store(tmp_path: Path, digits: Path) -> None:
    """Catches two commands that create the tables of one database at once, which breaks them for good."""
    place = Place(tmp_path, digits).make()
    code = "from audio_mu.store.connect import open_store; open_store()"
    words = [sys.executable, "-c", code]
    processes = [subprocess.Popen(words, cwd=tmp_path, env=place.environment()) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]


@pytest.mark.parametrize("size", ["1600k", "45m"], ids=["training", "unlearning"])
def test_a_full_disk_is_told_and_mended(size: str, tmp_path: Path, digits: Path, undisturbed) -> None:
    """Catches a traceback on a full disk, and a state that the same command cannot go on from."""
    with small_disk(tmp_path / "disk", size) as disk:
        place = Place(disk.path, digits, SMALLEST).make()
        log = tmp_path / "full.txt"
        assert place.start(ENTRY, log).wait() == 2
        assert log.read_text().splitlines()[-1].startswith("error: ")
        assert "full" in log.read_text().splitlines()[-1]
        assert "Traceback" not in log.read_text()
        disk.resize("500m")
        place.finish(ENTRY)
        assert list(kill_test.problems(place, undisturbed[1])) == []
