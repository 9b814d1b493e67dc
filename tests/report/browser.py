"""Headless Chromium, told what to do over a pipe; no library and no port is needed."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-sync", "--disable-background-networking", "--disable-component-update"),
    *("--hide-scrollbars", "--remote-debugging-pipe"),
)
PATIENCE = 60.0
"""Seconds until a browser that does not answer fails the test."""


class Browser:
    """One page of a browser; made by `browser`."""

    def __init__(self, to: int, back: int) -> None:
        self.to, self.back = to, back
        self.number = 0
        self.left = b""
        self.events: list[dict[str, Any]] = []
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command of the DevTools protocol."""
        self.number += 1
        asked: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        if self.session is not None:
            asked["sessionId"] = self.session
        os.write(self.to, json.dumps(asked).encode() + b"\0")
        while True:
            said = self._said()
            if said.get("id") == self.number:
                assert "error" not in said, (method, said["error"])
                return said["result"]
            self.events.append(said)

    def open(self, url: str, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Go to a page and wait until it is loaded and its charts are drawn."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[scheme, still])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")
        self.until(
            "[...document.querySelectorAll('[data-chart]')]"
            ".every((p) => p.closest('details:not([open])') || p.querySelector('svg'))"
        )

    def js(self, expression: str) -> Any:
        """The value of an expression on the page; promises are awaited."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                          awaitPromise=True)  # fmt: skip
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, claim: str) -> None:
        """Wait until an expression is true on the page."""
        end = time.monotonic() + PATIENCE
        while not self.js(f"Boolean({claim})"):
            assert time.monotonic() < end, f"{claim} did not become true"
            time.sleep(0.05)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press one key of the keyboard."""
        fields = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **fields)
        self.call("Input.dispatchKeyEvent", type="keyUp", **fields)

    def complaints(self) -> list[str]:
        """What the page's console holds of errors and of breaches of its policy."""
        self.js("1")
        said = []
        for event in self.events:
            fields = event.get("params", {})
            if event.get("method") == "Log.entryAdded" and fields["entry"]["level"] == "error":
                said.append(fields["entry"]["text"])
            elif event.get("method") == "Runtime.exceptionThrown":
                said.append(str(fields["exceptionDetails"]))
            elif event.get("method") == "Page.javascriptDialogOpening":
                said.append(f"a dialog: {fields['message']}")
        return said

    def requests(self) -> list[str]:
        """The addresses that were asked for."""
        self.js("1")
        sent = [e for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def picture(self, path: Path, whole: bool = True) -> None:
        """A screenshot of the whole page, or of the window."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self, path: Path) -> None:
        """The page as it prints on A4."""
        found = self.call("Page.printToPDF", printBackground=False, paperWidth=8.27,
                          paperHeight=11.69)  # fmt: skip
        path.write_bytes(base64.b64decode(found["data"]))

    def _said(self) -> dict[str, Any]:
        while b"\0" not in self.left:
            ready, _, _ = select.select([self.back], [], [], PATIENCE)
            assert ready, "the browser does not answer"
            part = os.read(self.back, 1 << 20)
            assert part, "the browser has ended"
            self.left += part
        line, _, self.left = self.left.partition(b"\0")
        return json.loads(line)


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, ended when the block ends."""
    theirs, to = os.pipe()
    back, ours = os.pipe()
    # The browser reads from 3 and writes to 4; far numbers are not overwritten by one another.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (theirs, ours)]
    command = [CHROMIUM or "", *OPTIONS, f"--user-data-dir={profile}"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        pass_fds=(3, 4), preexec_fn=lambda: (os.dup2(ends[0], 3), os.dup2(ends[1], 4)),
    ) as process:  # fmt: skip
        for end in (theirs, ours, *ends):
            os.close(end)
        try:
            yield Browser(to, back)
        finally:
            os.close(to)
            os.close(back)
            process.terminate()
