"""The recordings of a command: those of answered requests are left out, and all others stay on their side."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from audio_mu.config import Config
from audio_mu.requests.ledger import COLUMNS, Entry, Ledger
from audio_mu.workflows.data import load_data


@pytest.fixture
def two_copies(tmp_path: Path, small_digits: Path) -> Config:
    """A folder of digits in which a recording of the training set has a copy in the test set."""
    root = tmp_path / "digits"
    shutil.copytree(small_digits, root)
    config = Config.from_text({"data_dir": str(root), "dataset_name": "copies"})
    data = load_data(config)
    source, target = data.clips.ids[data.split.train[0]], data.clips.ids[data.split.test[0]]
    shutil.copyfile(root / source, root / target)
    return config


def test_what_is_left_stays_on_its_side(two_copies: Config) -> None:
    """Catches a split drawn anew without the recordings, a copy that stays in the test set, a digest that changes, and
    others that change sides once the same person's test recordings are deleted too."""
    whole = load_data(two_copies)
    assert whole.digest == whole.clips.digest
    index = whole.split.train[0]
    rows = [i for i in range(len(whole.clips)) if whole.clips.hashes[i] == whole.clips.hashes[index]]
    recordings = pd.DataFrame([whole.clips.identity[i] for i in rows], columns=list(COLUMNS))
    recordings["forgotten"] = [str(i == index) for i in rows]

    held_out = pd.DataFrame([whole.clips.identity[whole.split.nonmembers[0]]], columns=list(COLUMNS))

    def ledger(state: str) -> Ledger:
        tags = {"request": "list-1", "request_hash": "1", "state": state}
        return Ledger((Entry("run", tags, recordings, held_out, {}),))

    def named(config: Config, state: str) -> list[list[str]]:
        data = load_data(config, ledger(state))
        sets = (data.split.train, data.split.test, data.split.nonmembers)
        return [[data.clips.ids[i] for i in indices] for indices in sets] + [[data.digest], sorted(data.earlier)]

    answered = named(two_copies, "answered")
    gone = set(recordings["clip_id"])
    assert len(gone) == 2
    expected = [[whole.clips.ids[i] for i in indices if whole.clips.ids[i] not in gone]
                for indices in (whole.split.train, whole.split.test, whole.split.nonmembers)]  # fmt: skip
    assert answered[:3] == expected
    assert answered[3] != [whole.digest]
    assert answered[4] == ["earlier-list-1"]
    ignoring = replace(two_copies, store=replace(two_copies.store, ledger="ignore"))
    assert named(ignoring, "answered")[:4] == [
        *([whole.clips.ids[i] for i in s] for s in (whole.split.train, whole.split.test, whole.split.nonmembers)),
        [whole.digest],
    ]
    assert named(ignoring, "erased") == named(two_copies, "erased") == [*answered[:4], []]
    assert two_copies.data.data_dir is not None
    for id_ in gone:
        (two_copies.data.data_dir / id_).unlink()
    assert named(two_copies, "erased") == [*answered[:4], []]
    (away,) = held_out["clip_id"]
    (two_copies.data.data_dir / away).unlink()
    assert named(two_copies, "erased")[:3] == [[id_ for id_ in ids if id_ != away] for ids in answered[:3]]
