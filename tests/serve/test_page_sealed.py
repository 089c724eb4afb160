# SPDX-License-Identifier: Apache-2.0
"""The server's page in Chromium seals an image: what the browser seals Python opens and the other way round, and boxes appear."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serve.browsing import Tab, opened_tab
from tests.serve.conftest import Served

from shipsight.errors import SealedRequestError
from shipsight.protect import (
    AHEAD_MS,
    WINDOW_MS,
    PlainAnswer,
    PlainRequest,
    SealedFor,
    SealedProtocol,
    SealingIdentity,
    SealingKey,
    open_request,
    seal_answer,
    seal_request,
)

pytestmark = pytest.mark.browser

SEALED_FOR = SealedFor(SealedProtocol.NATIVE, "äßmodel/1", "2")
HELPERS = """
const bytes = text => Uint8Array.from(atob(text), one => one.charCodeAt(0))
const text = data => { let all = ''; for (const one of data) all += String.fromCharCode(one); return btoa(all) }
const part = import('/pages/seal.js')
"""


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    with opened_tab(tmp_path) as tab:
        yield tab


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def encoded(data: bytes) -> str:
    return json.dumps(base64.b64encode(data).decode())


def choose(tab: Tab, image: Path) -> None:
    tab.value("document.getElementById('file').dispatchEvent(new Event('click'))")
    root = tab.call("DOM.getDocument")["root"]["nodeId"]
    chooser = tab.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    tab.call("DOM.setFileInputFiles", nodeId=chooser, files=[str(image)])


def open_page(tab: Tab, server: Served) -> None:
    tab.open(f"{server.url}/")
    tab.wait_for("document.getElementById('state').textContent === 'ready'")
    assert tab.wait_for("document.getElementById('models').rows.length") == 1


# ---- the same bytes in both languages


@pytest.mark.parametrize("size", [0, 1, 4000, 150_000])
def test_what_the_browser_seals_python_opens_and_back(server: Served, tab: Tab, size: int) -> None:
    open_page(tab, server)
    key = SealingKey.make(not_after_ms=now_ms() + 60_000)
    body = bytes(index * 7 % 251 for index in range(size))
    tab.value(HELPERS)
    sealed = base64.b64decode(
        tab.run(
            f"""part.then(async one => {{
                const request = {{body: bytes({encoded(body)}), contentType: 'image/png', accept: 'image/jpeg', query: 'conf=0.5'}}
                const key = {{raw: bytes({encoded(key.public.raw)}), id: bytes({encoded(key.public.id)})}}
                const done = await one.sealRequest(request, key, {{model: {json.dumps(SEALED_FOR.model)}, version: '2'}})
                window.reply = done.reply
                return text(done.body)
            }})"""
        )
    )
    keys = {key.public.id: key}
    opened = open_request(sealed, keys=keys, sealed_for=SEALED_FOR, now_ms=now_ms())
    assert opened.request == PlainRequest(body, "image/png", "image/jpeg", "conf=0.5")
    with pytest.raises(SealedRequestError):
        open_request(sealed, keys=keys, sealed_for=SealedFor(SealedProtocol.NATIVE, "other", "2"), now_ms=now_ms())
    other = seal_request(opened.request, key=key.public, sealed_for=SEALED_FOR, now_ms=now_ms())[0]
    assert len(sealed) == len(other), "padded alike"
    answer = seal_answer(PlainAnswer(415, body[::-1], "application/json", {"retry-after": "3"}), opened)
    told = tab.run(
        f"""part.then(one => one.openAnswer(bytes({encoded(answer)}), window.reply))
            .then(one => ({{...one, body: text(one.body)}}))"""
    )
    assert base64.b64decode(told.pop("body")) == body[::-1]
    assert told == {"status": 415, "contentType": "application/json", "headers": {"retry-after": "3"}}
    for at in (0, 5, 40, len(answer) - 1):
        broken = bytearray(answer)
        broken[at] ^= 1
        refused = tab.run(
            f"part.then(one => one.openAnswer(bytes({encoded(bytes(broken))}), window.reply)).catch(error => error.message)"
        )
        assert "not the sealed answer" in refused


def test_the_browser_believes_lists_of_keys_as_python_does(server: Served, tab: Tab) -> None:
    open_page(tab, server)
    identity = SealingIdentity(bytes(range(32)))
    keys = [SealingKey.make(not_after_ms=now_ms() + life).public for life in (-1, 60_000, 90_000)]
    told = identity.key_list(keys, now_ms=now_ms())

    def read(told: Any, pin: str) -> Any:
        return tab.run(
            f"import('/pages/seal.js').then(one => one.openKeyList({json.dumps(told)}, {json.dumps(pin)}))"
            ".then(key => [...key.raw], error => error.message)"
        )

    pin = str(identity.pin)
    assert bytes(read(told, f" {pin}\n")) == keys[1].raw, "the first that lives"
    assert "not signed" in read(told, str(SealingIdentity(bytes(32)).pin))
    assert "no sealing identity" in read(told, pin[:-3] + "A==")
    assert "no sealing identity" in read(told, "whatever")
    for apart_ms in (-AHEAD_MS - 5000, WINDOW_MS + 5000):
        assert "of another time" in read(identity.key_list(keys, now_ms=now_ms() + apart_ms), pin)
    assert "No sealing key" in read(identity.key_list(keys[:1], now_ms=now_ms()), pin)
    first, *more = told["keys"]
    changes = (
        {"now": told["now"] + 1}, {"keys": more}, {"keys": [*more, first]}, {"signature": ""}, {"keys": 7},
        {"keys": [{**one, "not_after": one["not_after"] + 1} for one in told["keys"]]},
    )  # fmt: skip
    for change in changes:
        assert "not signed" in read({**told, **change}, pin), change
    assert "not signed" in read(None, pin)


def test_pins_with_each_letter_of_base64_are_read(server: Served, tab: Tab) -> None:
    """`+` parts a pin, and is a letter of its last part, too."""
    open_page(tab, server)
    identity = next(one for seed in range(256) if str((one := SealingIdentity(bytes([seed] * 32))).pin).count("+") > 2)
    told = identity.key_list([SealingKey.make(not_after_ms=now_ms() + 60_000).public], now_ms=now_ms())
    read = f"import('/pages/seal.js').then(one => one.openKeyList({json.dumps(told)}, {json.dumps(str(identity.pin))}))"
    assert tab.run(f"{read}.then(key => key.raw.length)") == 32


# ---- the page


def test_a_sealed_image_gets_its_boxes_and_the_identity_is_remembered(
    server: Served, tab: Tab, jpeg: bytes, tmp_path: Path
) -> None:
    image = tmp_path / "scene.jpg"
    image.write_bytes(jpeg)
    tab.call("Network.enable")
    open_page(tab, server)
    tab.value("document.getElementById('conf').value = '0.01'")
    assert not tab.value("document.getElementById('sealing').checkVisibility()")
    tab.click("#seal")
    assert tab.wait_for("document.getElementById('pin').value") == server.sealing
    tab.wait_for_text("Compare it with the line", "#sealing-told")
    choose(tab, image)
    told = tab.wait_for(
        "/found by/.test(document.getElementById('told').textContent) && document.getElementById('told').textContent"
    )
    plain = httpx.post(f"{server.url}/v1/models/digits/predict", content=jpeg, params={"conf": 0.01}, timeout=30).json()
    count = len(plain["images"][0]["predictions"])
    assert count > 0
    assert told.startswith(f"{count} found by ")
    assert told.endswith("sealed both ways")
    assert tab.value("document.getElementById('found').tBodies[0].rows.length") == count
    tab.wait_for_text("Remembered in this browser", "#sealing-told")
    # Another visit remembers both.
    tab.open(f"{server.url}/?again")
    tab.wait_for("document.getElementById('seal').checked")
    assert tab.wait_for("document.getElementById('pin').value") == server.sealing
    choose(tab, image)
    tab.wait_for("/sealed both ways/.test(document.getElementById('told').textContent)")
    other = tmp_path / "other.jpg"
    other.write_bytes(b"no image")
    choose(tab, other)
    assert tab.wait_for("document.getElementById('told').className === 'failed'"), "errors come sealed, too"
    assert tab.complaints == [], "of HTTP it was answered with 200"


def test_an_identity_that_is_not_the_servers_seals_nothing(
    server: Served, tab: Tab, jpeg: bytes, tmp_path: Path
) -> None:
    image = tmp_path / "scene.jpg"
    image.write_bytes(jpeg)
    open_page(tab, server)
    tab.click("#seal")
    tab.wait_for("document.getElementById('pin').value")
    for pin, match in ((str(SealingIdentity(bytes(32)).pin), "are not signed by"), ("garbage", "no sealing identity")):
        tab.fill("#pin", pin)
        choose(tab, image)
        tab.wait_for(f"/{match}/.test(document.getElementById('told').textContent)")
        assert tab.value("document.getElementById('told').className") == "failed"
        assert tab.value("localStorage.getItem('shipsight-sealing-identity')") is None
        tab.value("document.getElementById('told').textContent = ''")
    asked = tab.value("performance.getEntriesByType('resource').map(one => one.name)")
    assert not [one for one in asked if "predict" in one]


def test_a_browser_that_cannot_seal_says_so_and_sends_nothing(server: Served, tab: Tab) -> None:
    # What a browser without X25519 does.
    tab.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="crypto.subtle.generateKey = () => Promise.reject(new DOMException('no such', 'NotSupportedError'))",
    )
    open_page(tab, server)
    tab.click("#seal")
    tab.wait_for_text("This browser cannot seal", "#sealing")
    assert tab.value("document.getElementById('seal').disabled")
    assert not tab.value("document.getElementById('seal').checked")


def test_an_answer_in_the_clear_is_not_believed(server: Served, tab: Tab, jpeg: bytes, tmp_path: Path) -> None:
    image = tmp_path / "scene.jpg"
    image.write_bytes(jpeg)
    open_page(tab, server)
    tab.click("#seal")
    tab.wait_for("document.getElementById('pin').value")
    tab.value(
        """
        const real = window.fetch
        window.fetch = async (where, how) => String(where).endsWith('/predict')
            ? new Response('{"images": [{"predictions": []}]}', {headers: {'content-type': 'application/json'}})
            : real(where, how)
        """
    )
    choose(tab, image)
    tab.wait_for("/came unsealed/.test(document.getElementById('told').textContent)")


def test_the_page_meets_a_model_that_takes_sealed_requests_only(
    start: Callable[..., Served], digits_bundle: Path, tab: Tab, jpeg: bytes, tmp_path: Path
) -> None:
    image = tmp_path / "scene.jpg"
    image.write_bytes(jpeg)
    served = start(digits_bundle, "--streams", "1", "--require-sealed", "all")
    open_page(tab, served)
    choose(tab, image)
    tab.wait_for("document.getElementById('told').className === 'failed'")
    tab.click("#seal")
    tab.wait_for("document.getElementById('pin').value")
    choose(tab, image)
    tab.wait_for("/sealed both ways/.test(document.getElementById('told').textContent)")
    assert served.stop() == 0
