"""Take the documentation's screenshots of the report and of MLflow's UI from a finished store, in headless Chromium.

Usage, from the project's folder: PYTHONPATH=. python docs/screenshots.py FOLDER_WITH_mlflow.db [OUTPUT_FOLDER]
"""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from audio_mu.store import queries
from audio_mu.store.handle import Store
from audio_mu.store.links import LOCAL_UI, charts_link
from tests.browser import Browser

SIZES = {"laptop": (1366, 768), "desktop": (1920, 1080)}
COLOURS = 128  # of the palette; keeps each picture far below 300 kB
SETTLED = 10.0  # seconds that the UI's charts take to be drawn after their data have come


@contextmanager
def server(store: Store) -> Iterator[str]:
    """MLflow's server over the store, as `make ui` starts it; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["mlflow", "server", "--workers", "1", "--port", str(port), "--backend-store-uri", store.uri]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/health")
        yield address
    finally:
        process.terminate()
        process.wait()


def _wait_for(address: str) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(1)
        else:
            return
    raise TimeoutError(f"{address} does not answer")


def shoot(browser: Browser, path: Path) -> None:
    """Write what the window shows, with few colours."""
    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder) / "full.png"
        browser.screenshot(full)
        image = Image.open(io.BytesIO(full.read_bytes())).convert("RGB")
    image.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path} {path.stat().st_size // 1024} kB")


def report_pages(store: Store, folder: Path) -> None:
    """The newest report, at its top, its table and its figures, light and dark."""
    run = queries.newest(store, {"stage": "compare"})
    assert run is not None, "no comparison in this store"
    (entry,) = store.client.list_artifacts(run.id, "report")
    page = Path(store.client.download_artifacts(run.id, entry.path)).as_uri()
    for size, (width, height) in SIZES.items():
        for dark in (False, True):
            with Browser(width, height, dark) as browser:
                browser.open(page)
                for part in ("summary", "methods", "figures", "clips"):
                    target = "" if part == "summary" else part
                    browser.script(
                        "const e = document.getElementById(arguments[0]); scrollTo(0, e ? e.offsetTop - 16 : 0)", target
                    )
                    shoot(browser, folder / f"report-{part}-{size}{'-dark' if dark else ''}.png")


def interface_pages(store: Store, address: str, folder: Path) -> None:
    """MLflow's UI: the charts, the newest comparison's description, the report among its artifacts, the model."""
    run = queries.newest(store, {"stage": "compare"})
    assert run is not None, "no comparison in this store"
    (entry,) = store.client.list_artifacts(run.id, "report")
    experiment = f"{address}/#/experiments/{store.experiment_id}"
    model = store.client.search_registered_models()[0].name
    pages = {
        "charts": charts_link(store).replace(LOCAL_UI, address),
        "runs": f"{experiment}/runs?workflowType=machine_learning",
        "comparison": f"{experiment}/runs/{run.id}?workflowType=machine_learning",
        "artifact": f"{experiment}/runs/{run.id}/artifacts/{entry.path}?workflowType=machine_learning",
        "model": f"{address}/#/models/{model}",
    }
    for size, (width, height) in SIZES.items():
        with Browser(width, height) as browser:
            browser.open(address)
            # MLflow opens its assistant over the page on the first visit.
            for key, value in (("panelOpen_v1", "false"), ("fab.autoOpenedOnFirstLoad_v1", "true")):
                browser.script("localStorage.setItem(arguments[0], arguments[1])", f"mlflow.assistant.{key}", value)
            for name, page in pages.items():
                browser.open(page)
                browser.until("return document.querySelector('main, #root') && document.body.innerText.length > 200")
                time.sleep(SETTLED)
                shoot(browser, folder / f"ui-{name}-{size}.png")


def main() -> None:
    """Take every picture."""
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(sys.argv[1]).absolute() / 'mlflow.db'}"
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else Path(__file__).parent / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    store = Store.connect()
    report_pages(store, folder)
    with server(store) as address:
        interface_pages(store, address, folder)


if __name__ == "__main__":
    main()
