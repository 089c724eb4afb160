# SPDX-License-Identifier: Apache-2.0
"""The native protocol, asked by httpx of a real server."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from tests.serve.attacked import wait_until
from tests.serve.conftest import Served

import shipsight

PREDICT = "/v1/models/digits/predict"


def test_an_image_gives_what_the_library_gives(server: Served, digits_bundle: Path, jpeg: bytes) -> None:
    with shipsight.load(digits_bundle) as predictor, server.client as client:
        expected = predictor.predict(jpeg, conf=0.01).to_dict()
        answer = client.post(PREDICT, content=jpeg, params={"conf": 0.01})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        told = answer.json()
        assert {key: told[key] for key in ("model", "version", "variant")} == {
            key: expected[key] for key in ("model", "version", "variant")
        }
        ours, theirs = told["images"][0]["predictions"], expected["images"][0]["predictions"]
        assert [one["class_id"] for one in ours] == [one["class_id"] for one in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-4)
            assert one["box_xyxy"] == pytest.approx(other["box_xyxy"], abs=0.05)
        stages = answer.headers["server-timing"]
        assert all(f"{stage};dur=" in stages for stage in ("queue", "decode", "prepare", "infer", "postprocess"))


def test_windows_give_what_the_library_gives(server: Served, digits_bundle: Path, jpeg: bytes) -> None:
    with shipsight.load(digits_bundle) as predictor, server.client as client:
        expected = predictor.predict(jpeg, conf=0.05, tile=160, overlap=0.25, whole=False).to_dict()["images"]
        options = {"conf": 0.05, "tile": 160, "overlap": 0.25, "whole": "false"}
        answer = client.post(PREDICT, content=jpeg, params=options)
        assert answer.status_code == 200, answer.text
        ours, theirs = answer.json()["images"][0]["predictions"], expected[0]["predictions"]
        assert [one["class_id"] for one in ours] == [one["class_id"] for one in theirs]
        plain = client.post(PREDICT, content=jpeg, params={"conf": 0.05}).json()["images"][0]["predictions"]
        assert ours != plain
        assert "infer;dur=" in answer.headers["server-timing"]


def test_forms_and_json_carry_several_images(server: Served, jpeg: bytes) -> None:
    with server.client as client:
        one = client.post(PREDICT, content=jpeg).json()["images"][0]["predictions"]
        form = client.post(PREDICT, files=[("a", ("first.jpg", jpeg)), ("b", ("second.jpg", jpeg))]).json()
        assert [image["source"] for image in form["images"]] == ["first.jpg", "second.jpg"]
        text = base64.b64encode(jpeg).decode()
        told = client.post(PREDICT, json={"images": [text, text, text]}).json()
        assert [image["predictions"] for image in (*form["images"], *told["images"])] == [one] * 5


def test_a_drawn_image_and_coco_results_are_had_for_the_asking(server: Served, jpeg: bytes) -> None:
    with server.client as client:
        drawn = client.post(PREDICT, content=jpeg, headers={"accept": "image/jpeg"})
        assert drawn.headers["content-type"] == "image/jpeg"
        assert cv2.imdecode(np.frombuffer(drawn.content, np.uint8), cv2.IMREAD_COLOR).shape == (240, 320, 3)
        plain = client.post(PREDICT, content=jpeg, params={"conf": 0.01}).json()["images"][0]["predictions"]
        coco = client.post(
            PREDICT, content=jpeg, params={"conf": 0.01}, headers={"accept": "application/vnd.coco+json"}
        ).json()
        assert len(coco) == len(plain) > 0
        x0, y0, x1, y1 = plain[0]["box_xyxy"]
        assert coco[0]["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0])


def test_options_do_what_they_say(server: Served, jpeg: bytes) -> None:
    with server.client as client:
        every = client.post(PREDICT, content=jpeg, params={"conf": 0.001}).json()["images"][0]["predictions"]
        few = client.post(PREDICT, content=jpeg, params={"conf": 0.001, "max_det": 2}).json()["images"][0][
            "predictions"
        ]
        assert few == every[:2]
        wanted = every[0]["class_id"]
        some = client.post(PREDICT, content=jpeg, params={"conf": 0.001, "classes": wanted}).json()["images"][0]
        assert {one["class_id"] for one in some["predictions"]} == {wanted}
        for variant in [one["name"] for one in client.get("/v1/models/digits").json()["versions"][0]["variants"]]:
            assert client.post(PREDICT, content=jpeg, params={"variant": variant}).json()["variant"] == variant
        assert client.post("/v1/models/digits/versions/1/predict", content=jpeg).status_code == 200


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"content": b"no image"}, 415, "image-format"),
        ({"content": b""}, 400, "image-unreadable"),
        ({"content": b"\xff\xd8\xff\xe0 cut short"}, 400, "image-unreadable"),
        ({"content": b"x" * (2**23 + 1)}, 413, "limit"),
        ({"json": {"images": ["no base64!"]}}, 400, "usage"),
        ({"json": {"images": []}}, 400, "usage"),
        ({"json": {"pictures": []}}, 400, "usage"),
        ({"json": [1]}, 400, "usage"),
        ({"json": {"images": ["AA=="] * 4}}, 413, "limit"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "usage"),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 400, "usage"),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, 400, "usage"),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400, "usage"),
        ({"params": {"conf": "high"}}, 400, "usage"),
        ({"params": {"conf": "2"}}, 400, "usage"),
        ({"params": {"conf": "nan"}}, 400, "usage"),
        ({"params": {"max_det": "-1"}}, 400, "usage"),
        ({"params": {"max_det": "1_0"}}, 400, "usage"),
        ({"params": {"max_det": "2000"}}, 413, "limit"),
        ({"params": {"classes": "99"}}, 400, "usage"),
        ({"params": {"agnostic_nms": "perhaps"}}, 400, "usage"),
        ({"params": {"confidence": "0.5"}}, 400, "usage"),
        ({"params": {"tile": "8"}}, 400, "usage"),
        ({"params": {"tile": "160", "overlap": "1"}}, 400, "usage"),
        ({"params": {"overlap": "0.2"}}, 400, "usage"),
        ({"params": {"tile": "32", "overlap": "0.5"}}, 413, "limit"),
        ({"params": {"variant": "gone"}}, 404, "not-found"),
        ({"params": {"deadline_ms": "0"}}, 400, "usage"),
        ({"url": "/v1/models/other/predict"}, 404, "not-found"),
        ({"url": "/v1/models/digits/versions/9/predict"}, 404, "not-found"),
        ({"url": "/v1/nothing"}, 404, "not-found"),
        ({"method": "GET"}, 405, "usage"),
        ({"headers": {"host": "evil.example"}}, 403, "usage"),
        ({"headers": {"origin": "https://evil.example"}}, 403, "usage"),
    ],
    ids=lambda one: str(one)[:60],
)
def test_bad_requests_get_a_named_error_and_cost_nobody_else_anything(
    server: Served, jpeg: bytes, request_: dict[str, object], status: int, code: str
) -> None:
    given: dict[str, object] = {"method": "POST", "url": PREDICT, **request_}
    if not {"content", "json"} & set(given):
        given["content"] = jpeg
    with server.client as client:
        answer = client.request(**given)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
        assert client.post(PREDICT, content=jpeg).status_code == 200


def test_health_metrics_and_the_page_answer(server: Served, jpeg: bytes) -> None:
    with server.client as client:
        assert client.get("/healthz").json() == {"status": "alive"}
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["models"]) == (200, {"digits/1": "ready"})
        client.post(PREDICT, content=jpeg)
        client.post(PREDICT, content=b"no image")
        wait_until(lambda: "shipsight_errors_total" in client.get("/metrics").text, "errors are not counted")
        text = client.get("/metrics").text

        def told(metric: str, *labels: str) -> bool:
            return any(line.startswith(metric) and all(one in line for one in labels) for line in text.splitlines())

        assert told("shipsight_errors_total{", 'code="image-format"', 'route="/v1/models/{model}/predict"')
        assert told("shipsight_engine_precision{", 'model="digits"', 'precision="fp32"', 'float_type="f32"', "} 1.0")
        assert told("shipsight_engine_integer_convolutions{", 'model="digits"', "} 0.0")
        assert 'shipsight_model_ready{model="digits",version="1"} 1.0' in text
        assert 'shipsight_requests_total{route="/v1/models/{model}/predict",status="200"}' in text
        assert 'stage="infer"' in text
        page = client.get("/")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert all(client.get(path).status_code == 200 for path in ("/pages/page.css", "/pages/page.js"))


def test_many_clients_at_once_get_the_same_answer(server: Served, jpeg: bytes) -> None:
    import concurrent.futures

    def ask(_: int) -> object:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            return [client.post(PREDICT, content=jpeg).json()["images"] for _ in range(5)]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert all(answer == answers[0] for answer in answers)
