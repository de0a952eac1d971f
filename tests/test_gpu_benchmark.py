"""The benchmark for GPUs runs where there is none, without what a bare GPU machine lacks."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

from tests.commands import ROOT

BARRED = """
import sys
class Barred:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"mlflow", "soundfile", "espeakng_loader", "jinja2", "matplotlib", "requests"}:
            raise ImportError(f"{name} is not on a bare GPU machine")
sys.meta_path.insert(0, Barred())
"""


def test_the_quick_mode_fills_its_table_without_mlflow(tmp_path: Path) -> None:
    """Catches a benchmark that a renamed function has broken, and an import that a bare GPU machine cannot do."""
    (tmp_path / "sitecustomize.py").write_text(BARRED)
    table = tmp_path / "gpu.csv"
    words = ["--quick", "--device", "cpu", "--clips", "20", "--minutes", "2", "--only", "machine,numerics,speed"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *words, "--out", str(table)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row for row in rows if row["value"] in ("failed", "skipped")] == []
    assert {row["part"] for row in rows} == {"machine", "numerics", "speed"}
    promises = [row for row in rows if row["unit"] == "held"]
    assert len(promises) > 5
    assert all(row["value"] == "1" for row in promises)
    assert "promises hold" in done.stdout
