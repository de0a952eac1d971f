"""Servers of a test's own on this machine: a free port, waiting, MLflow's tracking server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

PATIENCE = 900.0  # seconds


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], what: str, log: Path) -> None:
    """Wait until a condition holds. Raises TimeoutError with the log's end where that takes too long."""
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"{what} did not come within {PATIENCE:g} s:\n{log.read_text()[-2000:]}")
        time.sleep(0.3)


@contextmanager
def tracking_server(folder: Path, database: str, workers: int = 1) -> Iterator[str]:
    """`mlflow server` on a database, which takes and gives the artifacts itself; yields its URI."""
    port, log = free_port(), folder / "server.txt"
    command = [
        "mlflow", "server", "--backend-store-uri", database, "--artifacts-destination", str(folder / "artifacts"),
        "--serve-artifacts", "--port", str(port), "--workers", str(workers),
    ]  # fmt: skip
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("w") as output:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_for(lambda: server.poll() is not None or _answers(port), "the tracking server", log)
        if server.poll() is not None:
            raise RuntimeError(f"the tracking server has ended:\n{log.read_text()[-2000:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)  # past any proxy
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
