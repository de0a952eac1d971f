"""The recordings of a command: those of answered requests are left out, and all others stay on their side."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from audio_mu.config import Config
from audio_mu.requests.ledger import COLUMNS, Entry, Ledger
from audio_mu.workflows.data import Data, load_data


@pytest.fixture
def two_copies(tmp_path: Path, small_digits: Path) -> Config:
    """A folder of digits in which a recording of the training set has a copy under another name."""
    root = tmp_path / "digits"
    shutil.copytree(small_digits, root)
    config = Config.from_text({"data_dir": str(root), "dataset_name": "copies"})
    data = load_data(config)
    source, target = data.clips.ids[data.split.train[0]], data.clips.ids[data.split.test[0]]
    shutil.copyfile(root / source, root / target)
    return config


def entry_of(
    data: Data, rows: list[int], state: str, scope: str = "recordings", held_out: tuple[int, ...] = ()
) -> Entry:
    """An entry of the ledger with these recordings, of which the first was forgotten."""
    recordings, nonmembers = (
        pd.DataFrame([data.clips.identity[i] for i in wanted], columns=list(COLUMNS)) for wanted in (rows, held_out)
    )
    forgotten = [str(i == rows[0]) for i in rows]
    tags = {"request": f"{scope}-1", "request_hash": "1", "state": state, "dataset_name": "copies"}
    return Entry("run", tags, recordings.assign(forgotten=forgotten, scope=scope), nonmembers, {})


def abroad(entry: Entry) -> Ledger:
    """A ledger in which the entry is another data set's."""
    return Ledger((), (replace(entry, tags={**entry.tags, "dataset_name": "others"}),))


def named(config: Config, ledger: Ledger, data: Data) -> list[list[str]]:
    """Ids of the training and test clips and of the non-members, with the sides that `data` has drawn."""
    found = load_data(config, ledger, data.split.drawn)
    sets = (found.split.train, found.split.test, found.split.nonmembers)
    return [[found.clips.ids[i] for i in indices] for indices in sets] + [sorted(found.earlier)]


def test_what_is_left_stays_on_its_side(two_copies: Config) -> None:
    """Catches a copy that stays, others that change sides, and an erased recording that an experiment takes in."""
    whole = load_data(two_copies)
    index = whole.split.train[0]
    rows = [i for i in range(len(whole.clips)) if whole.clips.hashes[i] == whole.clips.hashes[index]]
    assert len(rows) == 2
    everything = named(two_copies, Ledger(), whole)[:3]
    gone = {whole.clips.ids[i] for i in rows}
    expected = [[id_ for id_ in ids if id_ not in gone] for ids in everything]
    answered, erased = (Ledger((entry_of(whole, rows, state),)) for state in ("answered", "erased"))
    assert named(two_copies, answered, whole) == [*expected, ["earlier-recordings-1"]]
    ignoring = replace(two_copies, store=replace(two_copies.store, ledger="ignore"))
    assert named(ignoring, answered, whole)[:3] == everything
    assert named(ignoring, erased, whole) == named(two_copies, erased, whole) == [*expected, []]
    assert two_copies.data.data_dir is not None
    for id_ in gone:
        (two_copies.data.data_dir / id_).unlink()
    assert named(two_copies, erased, whole) == [*expected, []]


def test_scope_decides_what_else_is_left_out(two_copies: Config) -> None:
    """Catches held-out recordings of a person lost before the erasure or kept after it, a class that stays, and a
    person of another data set who is learnt, or whose namesake ids are left out there."""
    whole = load_data(two_copies)
    clips, everything = whole.clips, named(two_copies, Ledger(), whole)[:3]
    rows = [int(whole.split.train[1])]
    (person,), (label,) = {clips.speakers[rows[0]]}, {clips.identity[rows[0]][1]}
    of_person, of_class = (
        {row[0] for row in clips.identity if row[column] == name} for column, name in ((2, person), (1, label))
    )

    def without(ids: set[str], *places: int) -> list[list[str]]:
        return [[id_ for id_ in own if id_ not in ids or i not in places] for i, own in enumerate(everything)]

    tested = tuple(int(i) for i in whole.split.test if clips.speakers[i] == person)
    later = Ledger((entry_of(whole, rows, "answered", "person"),))  # nothing was held out when it was answered
    assert named(two_copies, later, whole)[:3] == without(of_person, 0, 1, 2)
    entry = entry_of(whole, rows, "answered", "person", tested)
    found = load_data(two_copies, Ledger((entry,)), whole.split.drawn)
    assert named(two_copies, Ledger((entry,)), whole)[:3] == without(of_person, 0)
    (told,) = found.left_out
    assert (told.own, told.others + told.held_out) == (1, len(of_person) - 1)
    erased = entry_of(whole, rows, "erased", "person")
    for ledger in (Ledger((erased,)), abroad(erased)):
        assert named(two_copies, ledger, whole)[:3] == without(of_person, 0, 1, 2)
    assert named(two_copies, abroad(entry), whole) == [*without(of_person, 0), []]
    by_class = entry_of(whole, rows, "answered", "class")
    assert named(two_copies, Ledger((by_class,)), whole)[:3] == without(of_class, 0, 1, 2)
    assert named(two_copies, abroad(by_class), whole)[:3] == without({clips.ids[rows[0]]}, 0)
