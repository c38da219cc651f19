"""A headless Chromium that tests drive: its debugging protocol over a pipe, so no further package and no open port."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe", "--hide-scrollbars",
    "--force-prefers-reduced-motion", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


class Tab:
    """One page of the browser.

    Args:
        read, write: the ends of the pipes.
        seconds: after which the browser is given up.
    """

    def __init__(self, read: int, write: int, seconds: float = 60.0) -> None:
        self._in, self._out, self.seconds = os.fdopen(read, "rb"), os.fdopen(write, "wb"), seconds
        self._count, self._rest, self.session = 0, b"", ""
        self.events: list[dict[str, Any]] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM", "Accessibility"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            told = self._next()
            if told.get("id") == self._count:
                assert "error" not in told, (method, told["error"])
                found: dict[str, Any] = told["result"]
                return found
            self.events.append(told)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._in.fileno(), 1 << 16)
            assert part, "the browser is gone"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        made: dict[str, Any] = json.loads(message)
        return made

    def run(self, code: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        made = self(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in made, made["exceptionDetails"]
        return made["result"].get("value")

    def until(self, code: str) -> None:
        """Wait until an expression is true."""
        start = time.monotonic()
        while not self.run(f"Boolean({code})"):
            assert time.monotonic() - start < self.seconds, f"never true: {code}"
            time.sleep(0.02)

    def open(self, url: str, ready: str) -> None:
        """Go to an address and wait until an expression is true there."""
        self("Page.navigate", url=url)
        self.until(f"document.readyState === 'complete' && location.href !== 'about:blank' && ({ready})")

    def text(self, selector: str) -> str:
        """The text that an element shows."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        """Click the middle of an element, as a mouse does."""
        where = json.dumps(selector)
        self.run(f"document.querySelector({where}).scrollIntoView({{block: 'center'}}); 0")
        box = f"document.querySelector({where}).getBoundingClientRect()"
        found = self.run(f"[{box}.x + {box}.width / 2, {box}.y + {box}.height / 2]")
        place = {"x": found[0], "y": found[1], "button": "left", "clickCount": 1}
        self("Input.dispatchMouseEvent", type="mousePressed", **place)
        self("Input.dispatchMouseEvent", type="mouseReleased", **place)

    def press(self, key: str, times: int = 1) -> None:
        """Press a key."""
        codes = {
            "Tab": 9,
            "Enter": 13,
            " ": 32,
            "ArrowRight": 39,
            "ArrowLeft": 37,
            "ArrowUp": 38,
            "ArrowDown": 40,
        }
        more = {"windowsVirtualKeyCode": codes[key]} if key in codes else {}
        text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        for _ in range(times):
            self("Input.dispatchKeyEvent", type="keyDown", key=key, **more, **text)
            self("Input.dispatchKeyEvent", type="keyUp", key=key, **more)

    def type(self, text: str) -> None:
        """Write into what has the focus."""
        self("Input.insertText", text=text)

    def choose(self, selector: str, path: Path) -> None:
        """Give a file to a file input."""
        root = self("DOM.getDocument")["root"]["nodeId"]
        node = self("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def picture(self, path: Path, width: int, height: int, *, whole: bool = False) -> None:
        """A picture of the window, or of the whole page."""
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        data = self("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def complaints(self) -> list[str]:
        """What the browser said on its console, and what was thrown, so far."""
        self.run("0")
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"].get("text", ""))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
                found.append(str(params["args"]))
        return found

    def asked(self) -> list[str]:
        """The addresses that the page asked for, so far."""
        return [
            e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"
        ]

    def close(self) -> None:
        """Close the pipes; the browser ends then."""
        self._in.close()
        self._out.close()


@contextmanager
def chromium(profile: Path) -> Iterator[Tab]:
    """A browser of its own, with an empty profile."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    line = f'exec "$0" "$@" 3<&{to_read} 4>&{from_write}'
    command = ["bash", "-c", line, str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        command, pass_fds=(to_read, from_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    os.close(to_read)
    os.close(from_write)
    tab = Tab(from_read, to_write)
    try:
        yield tab
    finally:
        tab.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
