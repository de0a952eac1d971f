"""The result tables of the documentation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.commands import ROOT


def test_the_documented_tables_are_those_of_this_code(tmp_path: Path) -> None:
    """Catches verdicts of an earlier rule, and figures of an earlier CSV file, in docs/results.md."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    check = [sys.executable, "-m", "experiments.tables", "check"]
    done = subprocess.run(check, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
