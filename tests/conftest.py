"""What all tests share: a cache and a tracking store of their own, small spoken digits, real speech if it is there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.commands import ROOT, entry_point, mlflow_run
from tests.servers import ArchiveServer, archive_server

if TYPE_CHECKING:  # it reads torch and MLflow, which many tests do without
    from tests.answered import Answered

SMALL = {"n_speakers": 6, "n_takes": 3}  # 180 clips
FAST = {"n_epochs": "4", "n_epoch_repair": "1", "batch_size": "16", "seeds": "40,41"}


SLOW_FIXTURES = {"entry", "project", "engine", "server", "answered_once", "tabled_once", "small_digits"}
SLOW_FILES = (
    "faults",
    "workflows",
    "test_api",
    "test_contract",
    "test_deletion_request",
    "test_descent",
    "test_drawers",
    "test_fast_paths",
    "test_gpu_benchmark",
    "test_living_folder",
    "test_own_method",
    "test_pool",
    "test_promises",
    "test_start",
    "store/test_registry",
    "store/test_runs",
)
"""What runs whole commands, servers, workers or clusters, or every method: left out by `make quick`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of whole commands, so that `-m "not slow"` leaves them out."""
    for item in items:
        whole = SLOW_FIXTURES & set(getattr(item, "fixturenames", ()))
        if whole or any(name in item.nodeid for name in SLOW_FILES):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or fills the user's cache or store."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIO_MU_CACHE", str(folder))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(name, raising=False)
        yield folder


@pytest.fixture(autouse=True)
def nothing_said() -> None:
    """Each test is a command of its own, which says once what it finds, and knows nothing of how it was started."""
    from audio_mu.config.commands import Call, remember
    from audio_mu.progress import say_once

    say_once.cache_clear()
    remember(Call())


@pytest.fixture(scope="session")
def small_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 180 spoken digits of 6 voices."""
    from audio_mu.data.synthetic import generate

    return generate(tmp_path_factory.mktemp("digits") / "small", **SMALL)


@pytest.fixture(scope="session")
def real_speech() -> Path:
    """The folder of real recordings, or a skip that says how to have them used."""
    folder = os.environ.get("AUDIO_MU_TEST_DATA")
    if not folder:
        pytest.skip("AUDIO_MU_TEST_DATA is not set: no real recordings to test on")
    return Path(folder)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ArchiveServer]:
    """A server of one file, for downloads."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with archive_server() as running:
        yield running


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def entry() -> Command:
    """Run `python -m entrypoints.<name>` in a folder with parameters given as keywords."""

    def run(name: str, folder: Path, **parameters: str) -> subprocess.CompletedProcess[str]:
        # A test that looks into a store with MLflow's client has set this for its whole process.
        environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
        return _ended(entry_point(name, parameters), folder, environment)

    return run


@pytest.fixture(scope="session")
def project() -> Command:
    """Run `mlflow run <project> -e <name>` in a folder with `-P` parameters given as keywords."""

    def run(name: str, folder: Path, **parameters: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
        return _ended(mlflow_run(name, parameters), folder, environment)

    return run


def _ended(words: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="session")
def answered_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Answered, Path]]:
    """A small store in which p1 is answered, made once, and a backup of it."""
    from tests.answered import p1_answered

    top = tmp_path_factory.mktemp("answered")
    with p1_answered(top / "Projekt für alle") as made:
        made.save(top / "backup")
        yield made, top / "backup"


@pytest.fixture
def answered(answered_once: tuple[Answered, Path]) -> Answered:
    """A small store in which p1 is answered, as it was made."""
    made, backup = answered_once
    made.restore(backup)
    return made
