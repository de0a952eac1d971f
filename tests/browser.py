"""A headless Chromium, driven through its driver's HTTP protocol (W3C WebDriver)."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip
SECONDS = 60
A4 = (21.0, 29.7)
TAB, ENTER = "\ue004", "\ue007"


def programs() -> tuple[str, str] | None:
    """The paths of Chromium and its driver, or None where one is missing."""
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Browser:
    """One window; as a context it ends with everything that it started."""

    def __init__(self, width: int = 1366, height: int = 768, dark: bool = False) -> None:
        found = programs()
        assert found is not None, "no Chromium"
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._driver = subprocess.Popen(
            [found[1], "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._driver.stdout is not None
        lines = iter(self._driver.stdout.readline, "")
        port = next(match[1] for line in lines if (match := re.search(r"started successfully on port (\d+)", line)))
        self._address = f"http://127.0.0.1:{port}/session"
        flags = [*FLAGS, f"--window-size={width},{height}", f"--user-data-dir={self._profile.name}"]
        flags += ["--no-sandbox"] if os.geteuid() == 0 else []
        flags += ["--blink-settings=preferredColorScheme=0"] if dark else []
        options = {"binary": found[0], "args": flags}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._session = ""
        started = self._post("", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/{started['sessionId']}"
        # The window's size counts the browser's own bars; this is the page's.
        self.resize(width, height)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            urllib.request.urlopen(
                urllib.request.Request(self._address + self._session, method="DELETE"), timeout=SECONDS
            ).close()
        finally:
            self._driver.terminate()
            self._driver.wait(SECONDS)
            self._profile.cleanup()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._address + self._session + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def open(self, address: str) -> None:
        """Go to an address and wait until the page has loaded."""
        self._post("/url", {"url": address})

    def script(self, source: str, *arguments: object) -> Any:
        """What the body of a JavaScript function returns."""
        return self._post("/execute/sync", {"script": source, "args": list(arguments)})

    def until(self, source: str, seconds: float = SECONDS) -> Any:
        """Wait until a script returns something true; return it. Raises `TimeoutError`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.script(source)
            if found:
                return found
            time.sleep(0.1)
        raise TimeoutError(f"never true in {seconds} s: {source}")

    def click(self, selector: str) -> None:
        """Click the first visible element of a CSS selector as a user does."""
        source = "return [...document.querySelectorAll(arguments[0])].find(e => e.offsetParent !== null)"
        (element,) = self.script(source, selector).values()
        self._post(f"/element/{element}/click", {})

    def press(self, *keys: str) -> None:
        """Press keys one after another, where the focus is; special ones by their WebDriver code points."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._post("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def printed(self, width: float = A4[0], height: float = A4[1]) -> bytes:
        """The page as PDF, on paper of so many centimetres, with the margins that it asks for or 1 cm."""
        paper = {"page": {"width": width, "height": height}}
        return base64.b64decode(self._post("/print", paper))

    def on_paper(self, pixels: int | None) -> None:
        """Lay the page out as it prints, on so many pixels between the margins; None: on the screen again."""
        media = {"media": "print" if pixels else ""}
        self._post("/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": media})
        self.resize(pixels or 1366, 768)

    def resize(self, width: int, height: int) -> None:
        """Give the page another size."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._post("/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics})

    def problems(self) -> list[str]:
        """Warnings and errors of the console since the last call."""
        entries = self._post("/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        request = urllib.request.urlopen(self._address + self._session + "/screenshot", timeout=SECONDS)
        with request as answer:
            path.write_bytes(base64.b64decode(json.load(answer)["value"]))
