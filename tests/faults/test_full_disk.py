"""The whole chain on a disk that becomes full."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.kill import problems
from tests.faults.small_chain import ENTRY, SMALLEST, Place
from tests.mounts import small_disk


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
        assert list(problems(place, undisturbed[1])) == []
