"""Take the documentation's pictures of the pages and of MLflow's UI from a finished store, in headless Chromium.

Usage, from the project's folder: PYTHONPATH=. python docs/screenshots.py FOLDER_WITH_mlflow.db [OUTPUT_FOLDER]
The store needs a `main` with `register`. Of three widths each: pages (report, figures, evidence) and UI (runs, charts,
main's run, a method's run, versions); about three minutes on two idle cores.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image

from audio_mu.store import queries
from audio_mu.store.connect import open_store
from audio_mu.store.handle import Store
from audio_mu.store.links import LOCAL_UI, charts_link
from audio_mu.store.queries import Finished
from tests.browser import Browser

SIZES = {390: 844, 1366: 768, 1920: 1080}  # width → height of a window, in pixels
QUALITY = 55  # of WebP; keeps all pictures together below 1.5 MB
SETTLED = 8.0  # seconds that the UI's charts take to be drawn after their data have come


@contextmanager
def server(store: Store) -> Iterator[str]:
    """MLflow's server over the store, as `make ui` starts it; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--workers",
        "1",
        "--port",
        str(port),
        "--backend-store-uri",
        store.uri,
    ]
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
    """Write what the window shows as WebP."""
    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder) / "full.png"
        browser.screenshot(full)
        Image.open(full).convert("RGB").save(path, quality=QUALITY, method=6)
    print(f"{path} {path.stat().st_size // 1024} kB")


def newest(store: Store, **tags: str) -> Finished:
    """The newest run with these tags."""
    run = queries.newest(store, tags)
    assert run is not None, f"no run with {tags} in this store"
    return run


def pages(store: Store, folder: Path) -> None:
    """The newest report, at its top and at its figures, and the newest evidence record."""
    compared = newest(store, stage="compare")
    (entry,) = store.client.list_artifacts(compared.id, "report")
    report = Path(store.client.download_artifacts(compared.id, entry.path))
    # A record of what is in service tells more than one of a method that failed.
    recorded = newest(store, stage="ledger")
    method = json.loads(Path(store.client.download_artifacts(recorded.id, "answers.json")).read_text())
    run = next(iter(next(iter(method.values()))["runs"].values()))
    evidence = Path(store.client.download_artifacts(run, "evidence.html"))
    for width, height in SIZES.items():
        with Browser(width, height) as browser:
            for name, page, part in (
                ("report", report, ""),
                ("figures", report, "figures"),
                ("evidence", evidence, ""),
            ):
                browser.open(page.as_uri())
                browser.script(
                    "const e = document.getElementById(arguments[0]); scrollTo(0, e ? e.offsetTop - 16 : 0)", part
                )
                shoot(browser, folder / f"{name}-{width}.webp")


def interface(store: Store, address: str, folder: Path) -> None:
    """MLflow's UI: runs, charts, the run of the whole chain, a method's run, the versions of the model."""
    experiment = f"{address}/#/experiments/{store.experiment_id}"
    charts = charts_link(store).replace(LOCAL_UI, address)
    shown = {
        "runs": charts.replace("&compareRunsMode=CHART", ""),
        "charts": charts,
        "main": f"{experiment}/runs/{newest(store, stage='main').id}?workflowType=machine_learning",
        "method": f"{experiment}/runs/{newest(store, role='method').id}?workflowType=machine_learning",
        "versions": f"{address}/#/models/{store.client.search_registered_models()[0].name}",
    }
    for width, height in SIZES.items():
        with Browser(width, height) as browser:
            # MLflow opens its assistant over the first page that it shows; this one is none, and of the same address.
            browser.open(f"{address}/health")
            for key, value in (("panelOpen_v1", "false"), ("fab.autoOpenedOnFirstLoad_v1", "true")):
                browser.script("localStorage.setItem(arguments[0], arguments[1])", f"mlflow.assistant.{key}", value)
            for name, page in shown.items():
                browser.open(f"{address}/health")  # else a change behind the # alone keeps the state of the page before
                browser.open(page)
                browser.until("return document.querySelector('main, #root') && document.body.innerText.length > 200")
                if name == "charts":
                    with suppress(TimeoutError):  # a narrow window has no place for them
                        browser.until("return document.querySelectorAll('.main-svg').length > 2", 40)
                time.sleep(SETTLED)
                shoot(browser, folder / f"ui-{name}-{width}.webp")


def main() -> None:
    """Take every picture."""
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(sys.argv[1]).absolute() / 'mlflow.db'}"
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else Path(__file__).parent / "images")
    folder.mkdir(parents=True, exist_ok=True)
    store = open_store()
    pages(store, folder)
    with server(store) as address:
        interface(store, address, folder)


if __name__ == "__main__":
    main()
