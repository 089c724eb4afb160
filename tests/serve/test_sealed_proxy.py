# SPDX-License-Identifier: Apache-2.0
"""A proxy that ends TLS, and everything that it sees: nothing of a sealed image or of what was found, all of a plain one.

Real nginx between the client and the server. What goes between nginx and the server is recorded in both directions, and nginx itself
writes down the bodies that it was given. A plain request stands there whole: otherwise this would prove nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from tests.client.both import KINDS, opened
from tests.serve.certificates import make_authority, make_server, put
from tests.serve.conftest import Served
from tests.serve.relay import Relay

from shipsight.errors import ImageFormatError, SealedAnswerError, SealedRequestError, SealingIdentityError
from shipsight.model.bundle import open_bundle, write_bundle
from shipsight.protect import MEDIA_TYPE, SealingIdentity, SealingKey

pytestmark = pytest.mark.slow  # servers, and windows of bytes looked for in what they said

WINDOW_BYTES = 16
NAMES = tuple(f"heraldic animal {number}" for number in range(10))
CONF = 0.01

CONFIGURATION = """
daemon off;
pid {folder}/pid;
error_log {folder}/errors warn;
events {{}}
http {{
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    client_max_body_size 32m; client_body_buffer_size 32m; client_body_in_single_buffer on;
    log_format whole escape=none '$request $request_body';
    access_log {folder}/seen whole;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server-key.pem;
        {more}
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Host localhost;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


@dataclass
class Hop:
    """nginx before a server."""

    url: str
    ca: Path
    relay: Relay
    log: Path

    def take(self) -> bytes:
        """All that the hop saw since the last time."""
        time.sleep(0.3)  # nginx writes its log once an answer is out
        seen = self.relay.take() + self.log.read_bytes()
        os.truncate(self.log, 0)
        return seen


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def hop_before(server: Served, folder: Path, *, more: str = "") -> Iterator[Hop]:
    """Starts nginx.

    Args:
        server: that it passes to.
        folder: for its files.
        more: lines of its configuration.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("no nginx is installed")
    folder.mkdir()
    authority = make_authority("hop")
    make_server(authority).write(folder)
    put(folder / "ca.pem", authority.pem)
    relay, port = Relay(int(server.url.rpartition(":")[2])), free_port()
    text = CONFIGURATION.format(folder=folder, port=port, upstream=relay.port, more=more)
    (folder / "nginx.conf").write_text(text, encoding="ascii")
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [program, "-p", str(folder), "-e", f"{folder}/early", "-c", f"{folder}/nginx.conf"], stderr=said
        )
        try:
            end = time.monotonic() + 30
            while not (folder / "pid").exists() or not (folder / "seen").exists():
                assert process.poll() is None, (folder / "said").read_text()
                assert time.monotonic() < end
                time.sleep(0.05)
            yield Hop(f"https://localhost:{port}", folder / "ca.pem", relay, folder / "seen")
        finally:
            process.terminate()
            process.wait(30)
            relay.close()


@pytest.fixture(scope="module")
def named_server(start: Callable[..., Served], digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A server whose model calls its classes what stands nowhere else."""
    opened_bundle = open_bundle(digits_bundle)
    bundle = tmp_path_factory.mktemp("named") / "animals.bundle"
    write_bundle(
        bundle,
        {file: opened_bundle.read(file) for file in opened_bundle.names},
        card=dataclasses.replace(opened_bundle.card, class_names=NAMES),
        variants=opened_bundle.variants,
        default_variant=opened_bundle.default_variant.name,
        golden=opened_bundle.manifest.golden,
    )
    return start(bundle, "--streams", "1")


@pytest.fixture(scope="module")
def hop(named_server: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hop]:
    with hop_before(named_server, tmp_path_factory.mktemp("hop") / "nginx") as hop:
        yield hop


@pytest.fixture(scope="module")
def bitmap(jpeg: bytes) -> bytes:
    """The same scene in a form in which pixels stand as they are."""
    return cv2.imencode(".bmp", cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))[1].tobytes()


def windows(data: bytes) -> set[bytes]:
    return {data[at : at + WINDOW_BYTES] for at in range(len(data) - WINDOW_BYTES + 1)}


def shared(secret: bytes, seen: bytes) -> set[bytes]:
    """Each run of 16 bytes that stands in both."""
    wanted = windows(secret)
    return {one for at in range(len(seen) - WINDOW_BYTES + 1) if (one := seen[at : at + WINDOW_BYTES]) in wanted}


def tells_of(found: Any) -> list[bytes]:
    """What an answer says of an image: names of classes, and its numbers as JSON writes them."""
    told = found.to_dict()["images"][0]["predictions"]
    numbers = [one["score"] for one in told] + [value for one in told for value in one["box_xyxy"]]
    texts = {one["class_name"] for one in told} | {json.dumps(one) for one in numbers}
    return [one.encode() for one in texts if len(one) > 8]


def test_what_is_looked_for_is_found_where_it_stands() -> None:
    assert shared(b"0123456789abcdefg", b"..0123456789abcdefg..") == {b"0123456789abcdef", b"123456789abcdefg"}
    assert shared(b"0123456789abcdefg", b"..0123456789abcde..") == set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_request_stands_in_what_the_proxy_sees(hop: Hop, kind: str, jpeg: bytes, bitmap: bytes) -> None:
    with opened(kind, hop.url, ca=hop.ca) as client:
        for image in (jpeg, bitmap):
            hop.take()
            found = client.predict(image, model="digits", conf=CONF)
            seen = hop.take()
            assert len(found[0]) > 5
            assert shared(image, seen) == windows(image), "all of it, also in nginx's own log"
            assert seen.count(image) == 2
            assert all(one in seen for one in tells_of(found))
        drawn = client.drawn(jpeg, model="digits", conf=CONF)
        assert drawn in hop.take()


@pytest.mark.parametrize("kind", KINDS)
def test_a_sealed_request_leaves_the_proxy_neither_pixels_nor_classes_nor_numbers(
    hop: Hop, named_server: Served, kind: str, jpeg: bytes, bitmap: bytes
) -> None:
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    with opened(kind, hop.url, ca=hop.ca, seal=named_server.sealing) as client:
        for image in (jpeg, bitmap, pixels, [jpeg, bitmap]):
            hop.take()
            found = client.predict(image, model="digits", conf=CONF)
            seen = hop.take()
            assert seen.count(b"SSL1") == 2, "the request, and nginx's log of it"
            assert b"SSR1" in seen
            for secret in (jpeg, bitmap, pixels.tobytes(), np.ascontiguousarray(pixels[..., ::-1]).tobytes()):
                assert shared(secret, seen) == set()
            tells = tells_of(found)
            assert any(one.startswith(b"heraldic") for one in tells)
            assert [one for one in tells if one in seen] == []
            assert b"heraldic" not in seen
            assert b"conf" not in seen, "what was asked for is sealed, too"
            assert b"server-timing" not in seen.lower()
        drawn = client.drawn(jpeg, model="digits", conf=CONF)
        assert cv2.imdecode(np.frombuffer(drawn, np.uint8), cv2.IMREAD_COLOR).shape == (240, 320, 3)
        assert shared(drawn, hop.take()) == set()
        with pytest.raises(ImageFormatError):
            client.predict(b"no image at all, yet a secret", model="digits")
        seen = hop.take()
        assert b"a secret" not in seen
        assert b"image-format" not in seen


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_that_hands_out_keys_of_its_own_gets_nothing(
    named_server: Served, tmp_path: Path, kind: str, jpeg: bytes
) -> None:
    """It can sign a list that is sound in itself: with another identity."""
    now_ms = time.time_ns() // 1_000_000
    keys = [SealingKey.make(not_after_ms=now_ms + 3_600_000).public]
    told = SealingIdentity(os.urandom(32)).key_list(keys, now_ms=now_ms)
    forged = [told, {**told, "identity": named_server.sealing}]
    for number, listed in enumerate(forged):
        more = f"location = /v1/sealing-keys {{ default_type application/json; return 200 '{json.dumps(listed)}'; }}"
        refused = pytest.raises(SealingIdentityError, match="not those of the server that is meant")
        with hop_before(named_server, tmp_path / str(number), more=more) as hop:
            with opened(kind, hop.url, ca=hop.ca, seal=named_server.sealing) as client, refused:
                client.predict(jpeg, model="digits")
            assert hop.take().count(b"POST") == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_that_answers_itself_is_not_believed(
    named_server: Served, tmp_path: Path, kind: str, jpeg: bytes
) -> None:
    image = {"source": None, "width": 4, "height": 4, "predictions": []}
    answers = {
        "application/json": json.dumps({"model": "digits", "version": "1", "variant": "v", "images": [image]}),
        MEDIA_TYPE: "SSR1" + "x" * 200,
    }
    for number, (form, text) in enumerate(answers.items()):
        more = f"location ~ /predict$ {{ default_type {form}; return 200 '{text}'; }}"
        with (
            hop_before(named_server, tmp_path / str(number), more=more) as hop,
            opened(kind, hop.url, ca=hop.ca, seal=named_server.sealing) as client,
            pytest.raises(SealedAnswerError),
        ):
            client.predict(jpeg, model="digits")


def test_a_proxy_that_sends_a_sealed_request_again_or_elsewhere_gets_no_answer(
    hop: Hop, named_server: Served, jpeg: bytes
) -> None:
    with opened("threads", hop.url, ca=hop.ca, seal=named_server.sealing) as client:
        hop.take()
        client.predict(jpeg, model="digits")
        seen = hop.take()
    begin = seen.index(b"SSL1")
    head = seen[:begin]
    size = int(head.lower().rpartition(b"content-length:")[2].split(b"\r\n")[0])
    sealed = seen[begin : begin + size]
    for path in ("/v1/models/digits/predict", "/v1/models/digits/versions/1/predict", "/v2/models/digits/infer"):
        answer = httpx.post(f"{named_server.url}{path}", content=sealed, headers={"content-type": MEDIA_TYPE})
        assert answer.status_code == 400
        assert SealedRequestError.code in answer.text
