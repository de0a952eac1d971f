"""Training the base models: what it says of its recordings."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from tests.conftest import Command
from tests.finished_store import Results


def test_skipped_recordings_are_listed_in_the_run(entry: Command, small_digits: Path, tmp_path: Path) -> None:
    """Catches recordings that are left out without a trace, and other recordings told by nothing but a digest."""
    data = shutil.copytree(small_digits, tmp_path / "data")
    (data / "01" / "0_01_8.wav").write_bytes(b"RIFF of nothing")
    (data / "01" / "0_01_9.wav").write_bytes(b"")
    parameters = {"data_dir": str(data), "n_epochs": "1", "seeds": "40"}
    folder = tmp_path / "run"
    folder.mkdir()
    done = entry("train", folder, **parameters)
    assert done.returncode == 2
    assert "01/0_01_8.wav" in done.stderr
    done = entry("train", folder, bad_files="skip", **parameters)
    assert done.returncode == 0, done.stdout + done.stderr
    store = Results(folder)
    (parent,) = store.runs("tags.stage = 'train' and tags.role = 'parent' and attributes.status = 'FINISHED'")
    skipped = pd.read_csv(store.artifact(parent, "skipped.csv"))
    assert skipped["clip_id"].tolist() == ["01/0_01_8.wav", "01/0_01_9.wav"]
    assert skipped["reason"].str.len().min() > 5
    fewer = shutil.copytree(small_digits, tmp_path / "fewer")
    next(fewer.glob("02/*.wav")).unlink()
    done = entry("attack", folder, data_dir=str(fewer), seeds="40")
    assert done.returncode == 2
    assert f"give data_dir={data} (now {fewer}), bad_files=skip (now fail) as then, or train" in done.stderr
