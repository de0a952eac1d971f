"""The project's commands as words and their environment, for tests, benchmarks and experiments alike."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def entry_point(name: str, parameters: Mapping[str, str]) -> list[str]:
    """The words of `python -m entrypoints.<name> --key value …`."""
    options = [word for key, value in parameters.items() for word in (f"--{key}", value)]
    return [sys.executable, "-m", f"entrypoints.{name}", *options]


def mlflow_run(name: str, parameters: Mapping[str, str], project: str | Path = ROOT) -> list[str]:
    """The words of `mlflow run <project> -e <name> -P key=value …`."""
    options = [word for key, value in parameters.items() for word in ("-P", f"{key}={value}")]
    return ["mlflow", "run", str(project), "-e", name, "--env-manager", "local", *options]


def own_environment(cache: Path, **variables: str) -> dict[str, str]:
    """This process's environment without its MLflow settings, with a cache of its own and these variables."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return kept | {
        "AUDIO_MU_CACHE": str(cache),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        **variables,
    }
