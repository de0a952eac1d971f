"""The project as the experiments run it: on the recordings below AUDIO_MU_TEST_DATA, through `mlflow run`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.commands import ROOT, mlflow_run

RESULTS = ROOT / "results"


def recordings() -> Path:
    """The folder with the recordings' folders; ends the command where it is not named."""
    folder = os.environ.get("AUDIO_MU_TEST_DATA")
    if not folder:
        sys.exit("AUDIO_MU_TEST_DATA is not set: give the folder that holds the recordings' folders")
    return Path(folder)


def command(entry_point: str, parameters: Mapping[str, str]) -> list[str]:
    """The words of a command that is run in the project's folder."""
    return mlflow_run(entry_point, parameters, project=".")


def run(words: list[str]) -> None:
    """Run a command of the project. Raises CalledProcessError where it fails."""
    print(f"== {' '.join(words)}", flush=True)
    subprocess.run(words, cwd=ROOT, check=True)
