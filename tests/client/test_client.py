# SPDX-License-Identifier: Apache-2.0
"""What a client refuses before it sends anything, what it makes of images, and what it never shows."""

from __future__ import annotations

import subprocess
import sys
import traceback
from email.parser import BytesParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tests.client.test_retries import FINE, FOUND, answer, refusal, scripted

from shipsight import AsyncClient, Client
from shipsight.client.images import encode_images
from shipsight.errors import (
    CorruptError,
    ForbiddenError,
    ImageError,
    ImageUnreadableError,
    NotFoundError,
    SealingIdentityError,
    UsageError,
)
from shipsight.protect import SealingIdentity

KEY = "ssk_0123456789abcdef_very-secret"
PIN = str(SealingIdentity(bytes(32)).pin)
HERE = "http://127.0.0.1:1"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("url", "given_", "match"),
    [
        ("", {}, "not a server"),
        ("ftp://here", {}, "not a server"),
        ("http://here/path", {}, "not a server"),
        ("http://me:secret@here", {}, "not a server"),
        ("unix:relative", {}, "not a server"),
        ("http://ä.example", {}, "not a server"),
        ("http://vision.example", {"key": KEY}, "https alone"),
        (HERE, {"key": "two words"}, "not the text of a key"),
        (HERE, {"key": "line\r\nx-more: 1"}, "not the text of a key"),
        (HERE, {"ca": "ca.pem"}, "for https"),
        (HERE, {"certificate": ("c.pem", "k.pem")}, "for https"),
        ("https://here", {"ca": "nowhere.pem"}, "no certificates"),
        ("https://here", {"certificate": ("nowhere.pem", "nowhere.pem")}, "cannot be used"),
        (HERE, {"headers": {"Authorization": "x"}}, "not a header"),
        (HERE, {"headers": {"Content-Length": "1"}}, "not a header"),
        (HERE, {"headers": {"a b": "1"}}, "not a header"),
        (HERE, {"headers": {"x-a": "1\r\nx-b: 2"}}, "not a line"),
        (HERE, {"timeout_s": 0}, "out of range"),
        (HERE, {"retries": -1}, "out of range"),
        (HERE, {"proxy": "vision:80"}, "not a proxy"),
        ("unix:/s", {"proxy": HERE}, "not a proxy"),
        (HERE, {"seal": "required"}, "known by its sealing identity"),
        (HERE, {"seal": PIN, "trust_first": True}, "known by its sealing identity"),
        (HERE, {"trust_first": True}, "nothing is sealed"),
        (HERE, {"seal": PIN[:-2]}, "not a sealing identity"),
    ],
    ids=str,
)
def test_a_client_that_cannot_be_meant_is_refused(
    kind: type[Client], url: str, given_: dict[str, object], match: str
) -> None:
    with pytest.raises((UsageError, SealingIdentityError), match=match) as told:
        kind(url, **given_)  # type: ignore[arg-type]
    assert "secret" not in str(told.value)


def test_a_key_stands_in_no_repr_and_no_traceback() -> None:
    said = answer(403, refusal("forbidden"))
    with scripted(said) as server, Client(server.url, key=KEY, headers={"x-camera": "7"}) as client:
        with pytest.raises(ForbiddenError) as told:
            client.models()
        shown = "".join(traceback.TracebackException.from_exception(told.value, capture_locals=True).format())
        assert KEY not in repr(client)
        assert KEY not in shown
        head = server.requests[0].decode()
        assert f"\r\nAuthorization: Bearer {KEY}\r\n" in head
        assert "\r\nx-camera: 7\r\n" in head


def test_options_and_names_are_written_so_that_nothing_of_them_is_read_otherwise() -> None:
    with scripted(FINE) as server, Client(server.url) as client:
        client.predict(
            b"x", model="a/b?c#d ä", version="2+", conf=np.float32(0.5), classes=np.array([1, 2]), whole=False,
            variant="a&conf=1",
        )  # fmt: skip
        line = server.requests[0].split(b"\r\n")[0].decode()
    assert line == (
        "POST /v1/models/a%2Fb%3Fc%23d%20%C3%A4/versions/2%2B/predict?"
        "conf=0.5&classes=1%2C2&variant=a%26conf%3D1&whole=false HTTP/1.1"
    )


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_names_that_a_proxy_takes_for_steps_are_refused(name: str) -> None:
    with Client(HERE) as client:
        for given_ in ({"model": name}, {"model": "m", "version": name}):
            with pytest.raises(UsageError, match="not a name"):
                client.predict(b"x", **given_)
        with pytest.raises(UsageError, match="not a name"):
            client.promote(name)


def test_connections_are_kept() -> None:
    with scripted(FINE) as server, Client(server.url) as client:
        for _ in range(5):
            client.predict(b"x", model="m")
        assert (len(server.requests), len(server.threads)) == (5, 1)


@pytest.mark.parametrize(
    "told", [{"images": []}, {**FOUND, "images": []}, {**FOUND, "images": FOUND["images"] * 2}], ids=str
)
def test_an_answer_to_something_else_is_refused(told: object) -> None:
    with scripted(answer(200, told)) as server, Client(server.url) as client, pytest.raises(CorruptError):
        client.predict(b"x", model="m")


def test_a_server_without_sealing_is_sent_nothing() -> None:
    for said in (answer(404, refusal("not-found")), answer(200, {}), answer(200, []), FINE):
        with scripted(said) as server, Client(server.url, seal=PIN) as client:
            with pytest.raises((SealingIdentityError, NotFoundError)):
                client.predict(b"the image", model="m")
            assert all(one.startswith(b"GET /v1/sealing-keys ") for one in server.requests)
    refused = pytest.raises(SealingIdentityError, match="shows no sealing identity")
    with scripted(answer(200, {"keys": []})) as server:
        with Client(server.url, seal="required", trust_first=True) as client, refused:
            client.predict(b"the image", model="m")
        assert len(server.requests) == 1


# ---- images


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_pixels_as_png_lose_nothing(pixels: np.ndarray) -> None:
    for one in (pixels, np.asfortranarray(pixels), pixels[::-1, ::-1]):
        sent = encode_images(one)
        decoded = cv2.imdecode(np.frombuffer(sent.body, np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(decoded[..., ::-1], one)


def test_pixels_as_jpeg_are_smaller_and_alike() -> None:
    pixels = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8), (0, 0), 3)
    png, jpeg = encode_images(pixels), encode_images(pixels[:, ::-1], "jpeg")
    assert len(jpeg.body) < len(png.body)
    decoded = cv2.imdecode(np.frombuffer(jpeg.body, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded.astype(int) - pixels[:, ::-1]).max() < 16


@given(st.lists(st.binary(max_size=50), min_size=2, max_size=5))
def test_several_images_are_a_form_of_files_without_names(images: list[bytes]) -> None:
    sent = encode_images([bytearray(one) for one in images])
    form = BytesParser().parsebytes(b"Content-Type: " + sent.content_type.encode() + b"\r\n\r\n" + sent.body)
    assert form.is_multipart()
    assert all(one.get_filename() == "" for one in form.get_payload())
    boundary = b"--" + sent.content_type.partition("boundary=")[2].encode()
    parts = sent.body.split(boundary)
    assert [one.partition(b"\r\n\r\n")[2][:-2] for one in parts[1:-1]] == images


def test_a_path_is_not_sent_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "secret name.jpg"
    path.write_bytes(b"image")
    with scripted(FINE) as server, Client(server.url) as client:
        assert client.predict(path, model="m")[0].source == str(path)
        assert b"secret name" not in server.requests[0]


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (7, UsageError),
        ([], UsageError),
        ([b"x", None], UsageError),
        (np.zeros((4, 4), np.uint8), ImageError),
        (np.zeros((4, 4, 4), np.uint8), ImageError),
        (np.zeros((4, 4, 3), np.float32), ImageError),
        (np.zeros((0, 4, 3), np.uint8), ImageError),
        ("nowhere.jpg", ImageUnreadableError),
        (Path("/"), ImageUnreadableError),
    ],
    ids=lambda one: str(one)[:20],
)
def test_what_is_no_image_is_refused_here(image: object, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        encode_images(image)
    with pytest.raises(UsageError, match="no such form"):
        encode_images(b"x", "gif")  # type: ignore[arg-type]


def test_without_its_packages_a_client_says_what_to_install() -> None:
    code = """
import sys
sys.modules["httpcore"] = None
import shipsight
from shipsight.client import ServerControl
try:
    shipsight.Client
except shipsight.errors.MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "pip install 'shipsight[client]'" in done.stdout
