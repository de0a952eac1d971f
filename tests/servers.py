"""Servers of a test's own on this machine: a free port, waiting, MLflow's tracking server, one for downloads."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import threading
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
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with _running(command, port, "/health", "the tracking server", log, environment, folder) as address:
        yield address


@contextmanager
def model_server(uri: str, database: str, log: Path) -> Iterator[str]:
    """`mlflow models serve` of a registered model, without leave to unpickle; yields its address."""
    port = free_port()
    environment = {"MLFLOW_TRACKING_URI": database, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    command = ["mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "-p", str(port)]
    with _running(command, port, "/ping", "the served model", log, environment) as address:
        yield address


@contextmanager
def _running(
    command: list[str], port: int, path: str, what: str, log: Path, environment: dict[str, str],
    folder: Path | None = None,
) -> Iterator[str]:  # fmt: skip
    """A server that answers at a path, and ends with the block with all that it has started; yields its address."""
    with log.open("w") as output:
        server = subprocess.Popen(
            command, cwd=folder, env=os.environ | environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_for(lambda: server.poll() is not None or _answers(port, path), what, log)
        if server.poll() is not None:
            raise RuntimeError(f"{what} has ended:\n{log.read_text()[-2000:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def _answers(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)  # past any proxy
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


class ArchiveServer(http.server.ThreadingHTTPServer):
    """Serves `content` whatever the path, from where a range asks; breaks off after so many bytes if told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ArchiveHandler)
        self.content = b""
        self.break_after: list[int] = []  # one entry for each request to come
        self.honours_ranges = True
        self.pause = 0.0  # seconds before each answer
        self.drip = 0.0  # seconds after each byte; 0: all at once
        self.asked: list[str | None] = []  # the Range header of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/archive.tar.gz"


class ArchiveHandler(http.server.BaseHTTPRequestHandler):
    """Answers with 200, 206 or 416."""

    server: ArchiveServer

    def do_GET(self) -> None:
        range_ = self.headers.get("Range")
        self.server.asked.append(range_)
        time.sleep(self.server.pause)
        content = self.server.content
        start = int(range_.removeprefix("bytes=").rstrip("-")) if range_ and self.server.honours_ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = start + self.server.break_after.pop(0) if self.server.break_after else None
        if not self.server.drip:
            self.wfile.write(content[start:stop])
        for place in range(start, len(content) if self.server.drip else start):
            self.wfile.write(content[place : place + 1])
            time.sleep(self.server.drip)

    def log_message(self, *_: object) -> None:
        """Silence."""


@contextmanager
def archive_server() -> Iterator[ArchiveServer]:
    """It, answering."""
    with ArchiveServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()
