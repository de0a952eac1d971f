"""Kills of the whole chain as a user runs it, a few of those that kill.py makes by the dozen."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.faults.kill import kill_once, problems
from tests.faults.small_chain import ENTRY, SMALLEST, Place


def test_killed_chains_end_as_the_undisturbed_one(tmp_path: Path, digits: Path, undisturbed) -> None:
    """Catches figures that depend on a kill, steps done twice, and runs, temporary files or processes left behind."""
    place = Place(tmp_path, digits, SMALLEST).make()
    for number, (name, steps) in enumerate([("SIGKILL", 4), ("SIGKILL", 9), ("SIGTERM", 6)]):
        kill = kill_once(place, 0, number, ENTRY, "step", name, steps)
        assert kill is not None
        assert kill.problem == ""
    place.finish(ENTRY)
    assert list(problems(place, undisturbed[1])) == []
    assert {status for (status,) in place.query("select distinct status from runs")} == {"FINISHED", "KILLED"}


def test_a_finished_base_model_without_its_version_is_adopted(undisturbed) -> None:
    """Catches a base model trained again, or never registered, where the kill came between run and registry."""
    place, expected = undisturbed
    with closing(sqlite3.connect(place.database)) as database, database:
        for table in ("registered_model_aliases", "model_version_tags", "model_versions"):
            database.execute(f"delete from {table}")
    place.finish(ENTRY)
    assert list(problems(place, expected)) == []
    assert len(place.query("select * from model_versions")) == 1
