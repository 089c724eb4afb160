# SPDX-License-Identifier: Apache-2.0
"""The Python client at a real server, plain and sealed, from threads and from tasks: what it says is what the model says."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.client.both import KINDS, opened
from tests.serve.certificates import make_authority, make_client, make_server, put
from tests.serve.conftest import Served, serving_process
from tests.serve.relay import Relay

import shipsight
from shipsight.access import SERVER, Grant
from shipsight.access.service import Access
from shipsight.access.settings import AccessSettings
from shipsight.errors import (
    AuthenticationError,
    ImageFormatError,
    NotFoundError,
    SealedRequestError,
    SealingIdentityError,
    SealingRequiredError,
    ServiceError,
    ShipsightError,
    TensorError,
    UsageError,
)
from shipsight.model import Predictions
from shipsight.protect import SealingIdentity

WAYS = ("plain", "sealed")
CONF = 0.01


@pytest.fixture(scope="module")
def local(digits_bundle: Path) -> Iterator[Any]:
    with shipsight.load(digits_bundle) as predictor:
        yield predictor


@pytest.fixture(params=[(kind, way) for kind in KINDS for way in WAYS], ids=lambda one: "-".join(one))
def client(request: pytest.FixtureRequest, server: Served) -> Iterator[Any]:
    kind, way = request.param
    with opened(kind, server.url, seal=server.sealing if way == "sealed" else None) as client:
        yield client


def is_close(mine: Predictions, theirs: Predictions) -> bool:
    """Whether two say the same; boxes and scores may differ by what an engine's threads make of the order of sums."""
    ours, others = mine.to_dict()["images"], theirs.to_dict()["images"]
    if [len(one["predictions"]) for one in ours] != [len(one["predictions"]) for one in others]:
        return False
    return all(
        a["class_name"] == b["class_name"]
        and abs(a["score"] - b["score"]) < 1e-4
        and np.allclose(a["box_xyxy"], b["box_xyxy"], atol=0.05)
        for one, other in zip(ours, others, strict=True)
        for a, b in zip(one["predictions"], other["predictions"], strict=True)
    )


def test_predictions_are_those_of_the_model_opened_here(
    client: Any, local: Any, jpeg: bytes, tmp_path: Path, server: Served
) -> None:
    path = tmp_path / "scene.jpg"
    path.write_bytes(jpeg)
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    for one in (jpeg, path, str(path), pixels, np.ascontiguousarray(pixels)):
        found = client.predict(one, model="digits", conf=CONF)
        here = local.predict(one, conf=CONF)
        assert len(found[0]) > 0
        assert is_close(found, here)
        assert (found.model, found.version, found.variant) == (here.model, here.version, here.variant)
        assert found[0].source == here[0].source
        assert type(found) is type(here)
    several = client.predict([path, pixels, jpeg], model="digits", version="1", conf=CONF)
    assert is_close(several, local.predict([path, pixels, jpeg], conf=CONF))
    assert [one.source for one in several] == [str(path), None, None]


def test_options_are_those_of_the_model_opened_here(client: Any, local: Any, jpeg: bytes) -> None:
    for options in (
        {"conf": 0.02, "iou": 0.3, "max_det": 3},
        {"conf": CONF, "classes": [1, 7], "agnostic_nms": True},
        {"conf": CONF, "tile": 160, "overlap": 0.1, "whole": False},
    ):
        assert is_close(client.predict(jpeg, model="digits", **options), local.predict(jpeg, **options)), options
    names = local.card.class_names
    assert client.predict(jpeg, model="digits", class_names=names)[0].class_names == names
    assert client.predict(jpeg, model="digits", routing_key="camera-7", deadline_ms=20_000).model == "digits"
    for one in client.model("digits")[0]["variants"]:
        assert client.predict(jpeg, model="digits", variant=one["name"]).variant == one["name"]


def test_a_drawn_answer_is_a_picture(client: Any, jpeg: bytes) -> None:
    drawn = cv2.imdecode(np.frombuffer(client.drawn(jpeg, model="digits", conf=CONF), np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == (240, 320, 3)
    plain = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(drawn.astype(int) - plain).max() > 50


def test_tensors_go_both_ways_over_open_inference(client: Any, local: Any) -> None:
    height, width = local.variant.size_hw
    batch = np.random.default_rng(3).random((2, 3, height, width), np.float32)
    found = client.infer({"images": batch}, model="digits", version="1", routing_key="camera-7")
    here = [local.session.infer(one[None]) for one in batch]
    assert set(found) == set(here[0])
    for output, tensor in found.items():
        assert tensor.shape[0] == 2
        assert np.allclose(tensor, np.concatenate([one[output] for one in here]), atol=1e-3)
    with pytest.raises(TensorError):
        client.infer({"images": batch.astype(np.float64)}, model="digits")
    with pytest.raises(NotFoundError):
        client.infer({"images": batch}, model="nobody")


def test_what_is_told_of_models_and_the_server_is_told(client: Any, server: Served) -> None:
    assert [one["name"] for one in client.models()] == [one["name"] for one in server.models] == ["digits"]
    assert client.model("digits")[0]["state"] == "ready"
    assert client.health()["status"] == "ready"
    assert client.me()["kind"] == "loopback"
    assert client.rollout("digits")["current"] == "1"


def test_errors_of_the_server_are_raised_as_themselves(client: Any, jpeg: bytes) -> None:
    with pytest.raises(NotFoundError) as told:
        client.predict(jpeg, model="no such/model")
    assert told.value.code == "not-found"
    with pytest.raises(NotFoundError):
        client.predict(jpeg, model="digits", version="9")
    with pytest.raises(ImageFormatError):
        client.predict(b"no image", model="digits")
    with pytest.raises(UsageError, match="conf"):
        client.predict(jpeg, model="digits", conf=2)
    with pytest.raises(ShipsightError):
        client.predict([jpeg] * 4, model="digits")  # the server takes three
    with pytest.raises(NotFoundError):
        client.promote("nobody")


def test_many_threads_share_a_client(server: Served, jpeg: bytes) -> None:
    for seal in (None, server.sealing):
        with opened("threads", server.url, seal=seal) as client, ThreadPoolExecutor(8) as threads:
            told = list(threads.map(lambda _: client.predict(jpeg, model="digits", conf=CONF).to_dict(), range(32)))
        assert len({len(one["images"][0]["predictions"]) for one in told}) == 1


# ---- sealing


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_is_known_by_its_sealing_identity_alone(kind: str, server: Served, jpeg: bytes) -> None:
    other = str(SealingIdentity(os.urandom(32)).pin)
    refused = pytest.raises(SealingIdentityError, match="not those of the server that is meant")
    with opened(kind, server.url, seal=other) as client, refused:
        client.predict(jpeg, model="digits")
    with opened(kind, server.url, seal="required", trust_first=True) as client:
        assert client.sealing_identity is None
        client.predict(jpeg, model="digits")
        assert client.sealing_identity == server.sealing
    with opened(kind, server.url) as client:
        assert client.sealing_identity is None


@pytest.mark.parametrize("kind", KINDS)
def test_keys_that_were_rotated_meanwhile_are_asked_for_anew(
    kind: str, start: Callable[..., Served], digits_bundle: Path, jpeg: bytes
) -> None:
    served = start(digits_bundle, "--streams", "1", "--require-sealed", "digits")
    with opened(kind, served.url, seal=served.sealing) as client:
        before = client.predict(jpeg, model="digits", conf=CONF)
        # The serving process keeps its keys in memory: the one after it has the same identity, and other keys.
        os.kill(serving_process(served), signal.SIGKILL)
        end = time.monotonic() + 60
        while True:
            try:
                after = client.predict(jpeg, model="digits", conf=CONF)
                break
            except (ServiceError, SealedRequestError):
                assert time.monotonic() < end
        assert is_close(after, before)
    with opened(kind, served.url) as client, pytest.raises(SealingRequiredError):
        client.predict(jpeg, model="digits")
    assert served.stop() == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_request_whose_answer_was_cut_is_asked_again_and_sealed_anew(
    kind: str, way: str, server: Served, jpeg: bytes
) -> None:
    """The server takes a sealed request once: the same bytes would be refused."""
    relay = Relay(int(server.url.rpartition(":")[2]), cuts=2)
    with opened(kind, f"http://127.0.0.1:{relay.port}", seal=server.sealing if way == "sealed" else None) as client:
        assert len(client.predict(jpeg, model="digits", conf=CONF)[0]) > 0
    seen = relay.take()
    relay.close()
    assert seen.count(b"POST ") == 3
    if way == "sealed":
        sealed = [seen[at : at + 60] for at in range(len(seen)) if seen.startswith(b"SSL1", at)]
        assert (len(sealed), len(set(sealed))) == (3, 3)


# ---- ways there


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_behind_a_socket_of_this_machine_answers(
    kind: str, start: Callable[..., Served], digits_bundle: Path, jpeg: bytes, tmp_path: Path
) -> None:
    served = start(digits_bundle, "--streams", "1", "--uds", tmp_path / "s", "--behind", "proxy",
                   "--proxy-user-header", "X-Forwarded-User")  # fmt: skip
    with opened(kind, served.url, headers={"X-Forwarded-User": "ada"}, seal=served.sealing) as client:
        assert client.me()["name"] == "ada"
    assert served.stop() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_lets_in_and_is_told_nowhere(
    kind: str, start: Callable[..., Served], digits_bundle: Path, jpeg: bytes, tmp_path: Path
) -> None:
    database, secrets_key = tmp_path / "access.db", tmp_path / "access.key"
    settings = AccessSettings(database=str(database), secrets_key=secrets_key)
    with Access.open(settings, origin="http://localhost:1") as access:
        _, key = access.keys.add(SERVER, "camera", grants=[Grant("predictor")])
    options = ("--database", database, "--secrets-key", secrets_key, "--require-access", "--streams", "1")
    served = start(digits_bundle, *options)
    wrong = key[:-1] + ("a" if key[-1] != "a" else "b")
    for seal in (None, served.sealing):
        with opened(kind, served.url, key=key, seal=seal) as client:
            assert client.predict(jpeg, model="digits", conf=CONF).model == "digits"
            assert key not in repr(client)
        with opened(kind, served.url, key=wrong, seal=seal) as client:
            with pytest.raises(AuthenticationError) as told:
                client.predict(jpeg, model="digits")
            assert wrong not in str(told.value)
    assert served.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_both_sides_show_certificates(
    kind: str, start: Callable[..., Served], digits_bundle: Path, jpeg: bytes, tmp_path: Path
) -> None:
    authority, clients = make_authority("servers"), make_authority("clients")
    certificate, key = make_server(authority).write(tmp_path)
    for name, one in (("ca", authority), ("clients", clients)):
        put(tmp_path / f"{name}.pem", one.pem)
    mine = make_client(clients, "camera-7").write(tmp_path, "camera")
    with (tmp_path / "log").open("w") as log:
        served = start(
            digits_bundle, "--streams", "1", "--tls-cert", certificate, "--tls-key", key,
            "--tls-client-ca", tmp_path / "clients.pem", stderr=log,
        )  # fmt: skip
    ca = tmp_path / "ca.pem"
    for seal in (None, served.sealing):
        with opened(kind, served.url, ca=ca, certificate=mine, seal=seal) as client:
            told = client.me()
            assert "camera-7" in told["certificate"]["subject"]
            assert client.predict(jpeg, model="digits", conf=CONF).model == "digits"
            assert "camera" not in repr(client)
    with opened(kind, served.url, ca=ca) as client, pytest.raises(ServiceError, match="does not answer"):
        client.me()  # no certificate
    stranger = make_client(make_authority("others"), "camera-7").write(tmp_path, "stranger")
    with opened(kind, served.url, ca=ca, certificate=stranger) as client, pytest.raises(ServiceError):
        client.me()
    with opened(kind, served.url, certificate=mine) as client, pytest.raises(ServiceError, match="VERIFY_FAILED"):
        client.me()  # the server's authority is not known
    assert served.stop() == 0
