"""The folders beside the package: who may import whom, and every command of theirs starts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.commands import ROOT
from tests.imports import imported

FORBIDDEN = {
    "audio_mu": ("tests", "benchmarks", "experiments", "entrypoints"),
    "tests": ("benchmarks", "experiments"),
    "benchmarks": ("experiments",),
    "experiments": ("benchmarks",),
}
COMMANDS = [
    "benchmarks.speed", "benchmarks.gpu", "benchmarks.many_runs",
    "tests.faults.kill", "tests.faults.fuzz", "tests.faults.parallel", "tests.faults.cluster", "tests.faults.walk",
    "experiments.tables", "experiments.chain", "experiments.settings", "experiments.research", "experiments.shards",
]  # fmt: skip


@pytest.mark.parametrize("drawer", FORBIDDEN)
def test_drawers_keep_apart(drawer: str) -> None:
    """Catches a product that needs its tests, a test that needs a benchmark, and two drawers that grow together."""
    for path in (ROOT / drawer).rglob("*.py"):
        assert {name for name in imported(path) if name.split(".")[0] in FORBIDDEN[drawer]} == set(), path


def test_no_test_is_imported() -> None:
    """Catches a helper that lives in a test, so that neither can be changed alone."""
    for drawer in FORBIDDEN:
        for path in (ROOT / drawer).rglob("*.py"):
            tests = {name for name in imported(path) if any(word.startswith("test_") for word in name.split("."))}
            assert {name for name in tests if name.startswith("tests.") or "." not in name} == set(), path


@pytest.mark.parametrize("module", COMMANDS)
def test_each_command_says_how_it_is_used(module: str) -> None:
    """Catches a command that an import, moved elsewhere, keeps from starting."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout
