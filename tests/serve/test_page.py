# SPDX-License-Identifier: Apache-2.0
"""The server's page in Chromium: it shows the models, and the boxes of an image that is chosen."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serve.conftest import Served
from websockets.sync.client import connect

pytestmark = pytest.mark.browser


class Tab:
    """One page, driven over Chromium's DevTools protocol."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "DOM", "Log"):
            self.call(f"{domain}.enable")

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
                assert "error" not in told, told
                return told["result"]

    def value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            found = self.value(expression)
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"never true: {expression}")


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    command = [browser, "--headless", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0", "about:blank"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port_file = tmp_path / "profile" / "DevToolsActivePort"
        end = time.monotonic() + 30
        while not port_file.exists() or not port_file.read_text(encoding="ascii").strip():
            assert time.monotonic() < end
            time.sleep(0.05)
        port = port_file.read_text(encoding="ascii").split()[0]
        pages = httpx.get(f"http://127.0.0.1:{port}/json").json()
        address = next(one["webSocketDebuggerUrl"] for one in pages if one["type"] == "page")
        with connect(address, max_size=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        process.wait(30)


def test_the_page_shows_models_and_the_boxes_of_a_chosen_image(
    server: Served, tab: Tab, jpeg: bytes, tmp_path: Path
) -> None:
    image = tmp_path / "scene.jpg"
    image.write_bytes(jpeg)
    tab.call("Page.navigate", url=f"{server.url}/")
    assert tab.wait_for("document.getElementById('state').textContent === 'ready'")
    assert tab.wait_for("document.getElementById('models').rows.length") == 1
    assert "digits" in tab.value("document.getElementById('models').textContent")
    assert tab.value("document.getElementById('model').value") == "digits"
    tab.value("document.getElementById('conf').value = '0.01'")
    root = tab.call("DOM.getDocument")["root"]["nodeId"]
    chooser = tab.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    tab.call("DOM.setFileInputFiles", nodeId=chooser, files=[str(image)])
    told = tab.wait_for(
        "/found by/.test(document.getElementById('told').textContent) && document.getElementById('told').textContent"
    )
    native = httpx.post(
        f"{server.url}/v1/models/digits/predict", content=jpeg, params={"conf": 0.01}, timeout=30
    ).json()
    assert told.startswith(f"{len(native['images'][0]['predictions'])} found by ")
    assert tab.value("document.getElementById('found').tBodies[0].rows.length") == len(
        native["images"][0]["predictions"]
    )
    assert tab.value("document.getElementById('picture').width") == 320
    drawn = tab.value(
        "(() => {const c = document.getElementById('picture');"
        "return new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size})()"
    )
    assert drawn > 100
    other = tmp_path / "other.jpg"
    other.write_bytes(b"no image")
    tab.call("DOM.setFileInputFiles", nodeId=chooser, files=[str(other)])
    assert tab.wait_for("document.getElementById('told').className === 'failed'")
    assert [one for one in tab.complaints if "415" not in one and "400" not in one] == []


def test_a_page_of_this_server_streams_frames_from_a_canvas(server: Served, tab: Tab) -> None:
    tab.call("Page.navigate", url=f"{server.url}/")
    assert tab.wait_for("document.getElementById('state').textContent === 'ready'")
    tab.value(
        """
        window.told = []
        const canvas = new OffscreenCanvas(64, 48)
        canvas.getContext('2d').fillRect(8, 8, 16, 16)
        const socket = new WebSocket(`ws://${location.host}/v1/models/digits/stream?track=true`)
        socket.onclose = event => window.told.push({closed: event.code})
        socket.onmessage = event => {
            window.told.push(JSON.parse(event.data))
            if (window.told.length === 3) socket.close(1000)
            else send()
        }
        const send = async () => socket.send(await canvas.convertToBlob({type: 'image/jpeg'}))
        socket.onopen = send
        """
    )
    assert tab.wait_for("window.told.length") is not None
    assert tab.wait_for("window.told.at(-1).closed") == 1000
    told = tab.value("window.told")
    assert [one.get("frame") for one in told] == [0, 1, 2, None]
    assert told[0]["images"][0]["width"] == 64
    assert tab.complaints == []
