# SPDX-License-Identifier: Apache-2.0
"""The server's page in Chromium: it shows the models, and the boxes of an image that is chosen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.serve.browsing import Tab, opened_tab
from tests.serve.conftest import Served

pytestmark = pytest.mark.browser


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    with opened_tab(tmp_path) as tab:
        yield tab


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
