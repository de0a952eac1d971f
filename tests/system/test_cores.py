"""The cores at hand: a container's quota, in both versions of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from audio_mu.system import cores
from audio_mu.system.cores import cores_at_hand, cpu_quota, multiplies_bf16


def groups(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A tree of control groups and the list of this process's own."""
    for name, text in files.items():
        path = folder / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "own").write_text(own)
    return folder / "groups", folder / "own"


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3.0),
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}, None),
        ("4:cpu,cpuacct:/d\n3:memory:/m\n", {"cpu,cpuacct/d/cpu.cfs_quota_us": "50000\n",
                                             "cpu,cpuacct/d/cpu.cfs_period_us": "100000\n"}, 0.5),
        ("1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        # A container of version 1 names its group as the host sees it; below its own root there is none of that name.
        ("4:cpu:/docker/1a2b\n", {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ("", {}, None),
    ],
)  # fmt: skip
def test_the_smallest_quota_counts(own: str, files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    """Catches a worker for every core of the machine in a container that may use one of them."""
    assert cpu_quota(*groups(tmp_path, own, files)) == quota


def test_a_quota_below_one_core_is_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches no workers at all, more workers than the affinity allows, and half a worker."""
    here = len(os.sched_getaffinity(0))
    for quota, expected in ((0.5, 1), (1.9, 1), (1000.0, here), (None, here)):
        monkeypatch.setattr(cores, "cpu_quota", lambda quota=quota: quota)
        assert cores_at_hand() == expected


@pytest.mark.parametrize(("flags", "units"), [("fpu avx512_bf16 amx_bf16 amx_tile", True), ("fpu avx512_bf16", False)])
def test_matrix_units_are_read_from_the_flags(flags: str, units: bool, tmp_path: Path) -> None:
    """Catches vector instructions for bf16 that pass for matrix units, and a system without the file."""
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n\n")
    assert multiplies_bf16(tmp_path / "cpuinfo") == units
    assert not multiplies_bf16(tmp_path / "none")
