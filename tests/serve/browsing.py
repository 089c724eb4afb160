# SPDX-License-Identifier: Apache-2.0
"""One page in a real Chromium, driven over its DevTools protocol: keys, clicks, colours, passkeys, pictures."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowDown": 40}
AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


class NavigatedError(Exception):
    """The page was left while it was asked."""


class Tab:
    """One page, driven over Chromium's DevTools protocol."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "DOM", "Log"):
            self.call(f"{domain}.enable")
        # What has the focus shows it only in a page that has it, too; several windows may be open.
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._socket.recv(timeout=60))
            if told.get("method") == "Log.entryAdded":
                self.complaints.append(told["params"]["entry"]["text"])
            if told.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(str(told["params"]))
            if told.get("id") == number:
                if "navigated" in told.get("error", {}).get("message", ""):
                    raise NavigatedError(told)
                assert "error" not in told, told
                return told["result"]

    def value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            # An element has no value in JSON; a page that is just being left is asked again.
            with suppress(NavigatedError):
                found = self.value(f"((found) => found instanceof Node || found)({expression})")
                if found:
                    return found
            time.sleep(0.05)
        seen = self.value("`${location.href}\\n${document.body?.innerText}`")
        raise AssertionError(f"never true: {expression}\nat {seen}\n{self.complaints}")

    def open(self, url: str) -> None:
        """Goes to a page, and waits until it is there."""
        self.call("Page.navigate", url=url)
        self.wait_for(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    def run(self, expression: str) -> Any:
        """The value of a promise."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def click(self, selector: str) -> None:
        """Clicks in the middle of an element, where a person would."""
        found = json.dumps(selector)
        self.wait_for(f"(e => e?.checkVisibility() && !e.disabled)(document.querySelector({found}))")
        box = self.value(
            f"(() => {{const e = document.querySelector({found}); e.scrollIntoView({{block: 'center'}});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Presses a key that is no letter."""
        text = {"Enter": "\r", " ": " "}.get(key)
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            code = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
            self.call("Input.dispatchKeyEvent", type=kind, modifiers=8 * shift, **code, **more)

    def type(self, text: str) -> None:
        """Types where the focus is."""
        self.call("Input.insertText", text=text)

    def fill(self, selector: str, text: str) -> None:
        """Types into a field in place of what is there."""
        self.wait_for(
            f"(e => e?.checkVisibility() && !e.form?.querySelector('button:disabled'))"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        self.value(f"(() => {{const e = document.querySelector({json.dumps(selector)}); e.focus(); e.select()}})()")
        self.type(text)

    def text(self, selector: str = "main") -> str:
        """What a person reads."""
        return str(self.value(f"document.querySelector({json.dumps(selector)})?.innerText") or "")

    def wait_for_text(self, text: str, selector: str = "body") -> None:
        self.wait_for(f"document.querySelector({json.dumps(selector)})?.innerText.includes({json.dumps(text)})")

    def picture(self, selector: str | None = None) -> bytes:
        """A PNG of the page, or of one element."""
        clip: dict[str, Any] = {}
        if selector is not None:
            box = self.value(
                f"(() => {{const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
                "return {x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height}})()"
            )
            clip = {"clip": {**box, "scale": 2}}
        return base64.b64decode(
            self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, **clip)["data"]
        )

    def prefer(self, scheme: str) -> None:
        """Prefers light or dark."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def add_authenticator(self, **more: Any) -> str:
        """Plugs in an authenticator for passkeys; returns its id."""
        self.call("WebAuthn.enable")
        told = self.call("WebAuthn.addVirtualAuthenticator", options={**AUTHENTICATOR, **more})
        return str(told["authenticatorId"])

    def forget(self) -> None:
        """Forgets all cookies, as another browser would have none."""
        self.call("Network.clearBrowserCookies")


@contextmanager
def opened_tab(folder: Path) -> Iterator[Tab]:
    """A tab of a Chromium of its own; skips the test where none is installed."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    command = [browser, "--headless", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    command += [f"--user-data-dir={folder / 'profile'}", "--remote-debugging-port=0", "about:blank"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port_file = folder / "profile" / "DevToolsActivePort"
        end = time.monotonic() + 60
        while not port_file.exists() or not port_file.read_text(encoding="ascii").strip():
            assert time.monotonic() < end
            time.sleep(0.05)
        port = port_file.read_text(encoding="ascii").split()[0]
        pages = httpx.get(f"http://127.0.0.1:{port}/json", timeout=60).json()
        address = next(one["webSocketDebuggerUrl"] for one in pages if one["type"] == "page")
        with connect(address, max_size=None, open_timeout=60) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        process.wait(60)
