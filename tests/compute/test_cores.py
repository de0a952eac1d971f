"""What is said of the cores at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from audio_mu.compute import cores
from audio_mu.compute.cores import tell_idle, tell_precision
from audio_mu.config import Config, MachineParameters


@pytest.mark.parametrize(
    ("flags", "given", "told"),
    [
        ("fpu amx_bf16", {}, "note: this processor has matrix units for bf16: base models of precision=bf16"),
        ("fpu amx_bf16", {"precision": "float32"}, ""),
        ("fpu amx_bf16", {"precision": "bf16"}, ""),
        ("fpu avx2", {}, ""),
        ("fpu avx2", {"precision": "bf16"}, "note: no matrix units for bf16 are found here: precision=float32"),
        ("fpu amx_bf16", {"device": "cuda"}, ""),
    ],
)
def test_the_faster_precision_is_told_once(
    flags: str, given: dict[str, str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches advice that the user has decided already, that comes at every step, or that is of another processor."""
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    for _ in range(2):
        tell_precision(Config.from_text({"device": "cpu", **given}), tmp_path / "cpuinfo")
    output = capsys.readouterr().out
    assert output.startswith(told) and output.count("\n") == bool(told)


@pytest.mark.parametrize(
    ("n_tasks", "given", "told"),
    [
        (1, {}, "note: 3 cores of 4 idle: threads=4 would use them"),
        (2, {}, "note: 2 cores of 4 idle: threads=2 would use them"),
        (3, {}, ""),
        (4, {}, ""),
        (0, {}, ""),
        (1, {"threads": 1}, ""),
        (1, {"workers": 1}, ""),
        (1, {"engine": "ray"}, ""),
        (1, {"device": "cuda"}, ""),
    ],
)
def test_idle_cores_are_told(
    n_tasks: int,
    given: dict[str, int | str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Catches silence where cores wait, and advice that gains nothing or that the user has decided already."""
    monkeypatch.setattr(cores, "cores_at_hand", lambda: 4)
    tell_idle(MachineParameters(**{"device": "cpu", **given}), n_tasks)
    output = capsys.readouterr().out
    assert output.startswith(told) and output.count("\n") == bool(told)
