# SPDX-License-Identifier: Apache-2.0
"""A real server that records: what of which protocol, what is redacted, who may look and erase, full disks, ends good and bad."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import simplejpeg
from tests.serve.attacked import wait_until
from tests.serve.conftest import Served, serving_process
from tests.serve.sealing import NATIVE, Sealer
from tests.serve.test_audit_server import entries, key, opened, shipsight, stored
from tests.serve.test_grpc import image_input
from tests.serve.test_open_inference import SHAPE, tensor
from tests.small_disk import mounted
from tritonclient.grpc import InferenceServerClient
from websockets.sync.client import connect

from shipsight.access import SERVER, Action, EventKind, Grant, Role
from shipsight.monitor.recording import Store
from shipsight.predictor import load
from shipsight.protect import PlainRequest, SealedFor

pytestmark = pytest.mark.slow  # servers that start

PREDICT = "/v1/models/digits/predict"
POLICY = {
    "schema": 1,
    "mode": "samples",
    "purposes": ["to test"],
    "samples": {"rate": 1.0, "most_day": 100_000},
    "leaves": "redacted-images",
    "redaction": {"classes": list("0123456789"), "score": 0.02},
    "subject_header": "x-subject-id",
}


def written(place: Path, **changes: object) -> Path:
    path = place / "policy.yaml"
    path.write_text(json.dumps({**POLICY, **changes}), encoding="utf-8")  # which is YAML, too
    return path


def options(place: Path, **changes: object) -> tuple[object, ...]:
    return "--record-policy", written(place, **changes), "--recordings", place / "recordings", "--streams", "1"


def store_of(place: Path) -> Store:
    return Store(place / "recordings", key_file=place / "recordings.key")


def figures(served: Served, headers: dict[str, str] | None = None) -> dict[str, float]:
    told = httpx.get(f"{served.url}/metrics", headers=headers).text.splitlines()
    pairs = (line.rpartition(" ") for line in told if line.startswith("shipsight_recordings_"))
    return {name: float(value) for name, _, value in pairs}


def wait_kept(served: Served, count: int) -> None:
    wait_until(lambda: figures(served)["shipsight_recordings_kept_total"] >= count, f"{count} are kept")


@dataclass
class Recorded:
    """A server that records, and where."""

    served: Served
    place: Path


@pytest.fixture(scope="module")
def recorded(
    start: Callable[..., Served], digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Recorded]:
    """One that records all it answers, redacted by the model that is served."""
    place = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIP_HEALTH_ROUTE", "/vertex/health")
        patch.setenv("AIP_PREDICT_ROUTE", "/vertex/predict")
        served = start(digits_bundle, "--grpc-port", "0", *options(place))
    yield Recorded(served, place)
    served.stop()


@pytest.fixture(scope="module")
def scene(digit_scenes: Callable[[int, int], tuple[Any, Any]]) -> bytes:
    """Digits that the model finds."""
    pixels = np.ascontiguousarray(digit_scenes(3, 128)[0])
    return bytes(simplejpeg.encode_jpeg(pixels, quality=95, colorspace="RGB"))


# --- every protocol


def over_native(served: Served, image: bytes, subject: str) -> int:
    told = httpx.post(f"{served.url}{PREDICT}", content=image, headers={"x-subject-id": subject}, timeout=60)
    assert told.status_code == 200, told.text
    return 1


def over_sagemaker(served: Served, image: bytes, subject: str) -> int:
    told = httpx.post(f"{served.url}/invocations", content=image, headers={"x-subject-id": subject}, timeout=60)
    assert told.status_code == 200, told.text
    return 1


def over_azure(served: Served, image: bytes, subject: str) -> int:
    body = {"images": [base64.b64encode(image).decode()] * 2}
    told = httpx.post(f"{served.url}/score", json=body, headers={"x-subject-id": subject}, timeout=60)
    assert told.status_code == 200, told.text
    return 2


def over_vertex(served: Served, image: bytes, subject: str) -> int:
    body = {"instances": [base64.b64encode(image).decode()]}
    told = httpx.post(f"{served.url}/vertex/predict", json=body, headers={"x-subject-id": subject}, timeout=60)
    assert told.status_code == 200, told.text
    return 1


def over_rest(served: Served, image: bytes, subject: str) -> int:
    given = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(image) + 4}}
    head = json.dumps({"inputs": [given]}).encode()
    body = head + len(image).to_bytes(4, "little") + image
    headers = {"inference-header-content-length": str(len(head)), "x-subject-id": subject}
    told = httpx.post(f"{served.url}/v2/models/digits_image/infer", content=body, headers=headers, timeout=60)
    assert told.status_code == 200, told.text
    return 1


def over_grpc(served: Served, image: bytes, subject: str) -> int:
    with InferenceServerClient(served.grpc) as triton:
        triton.infer("digits_image", [image_input(image, image)], headers={"x-subject-id": subject})
    return 2


def over_stream(served: Served, image: bytes, subject: str) -> int:
    socket = f"{served.url.replace('http', 'ws')}/v1/models/digits/stream"
    headers = {"x-subject-id": subject}
    with connect(socket, max_size=None, open_timeout=60, additional_headers=headers) as stream:
        for _ in range(3):
            stream.send(image)
            assert "images" in json.loads(stream.recv(timeout=60))
    return 3


WIRES = (over_native, over_sagemaker, over_azure, over_vertex, over_rest, over_grpc, over_stream)


@pytest.mark.parametrize("over", WIRES, ids=[one.__name__.removeprefix("over_") for one in WIRES])
def test_what_is_answered_is_recorded_under_whom_it_is_of(
    recorded: Recorded, scene: bytes, over: Callable[[Served, bytes, str], int]
) -> None:
    before = figures(recorded.served)["shipsight_recordings_kept_total"]
    subject = f"customer-{over.__name__}"
    count = over(recorded.served, scene, subject)
    wait_kept(recorded.served, int(before) + count)
    store = store_of(recorded.place)
    held = {place.id for place in store.keys.places(tag=store.keys.tag(subject))}
    found = [store.open(one) for one in store.entries() if one.label.id in held]
    assert len(found) == count
    for one in found:
        assert (one.label.model, one.label.version, one.label.reasons) == ("digits", "1", ("chance",))
        assert [one.label.variant] == list(recorded.served.models[0]["variants"])
        assert one.predictions["predictions"]
        assert one.predictions["source"] is None


def test_digits_that_were_found_are_in_no_image_that_is_shown(
    recorded: Recorded, scene: bytes, digits_bundle: Path
) -> None:
    before = figures(recorded.served)["shipsight_recordings_kept_total"]
    over_native(recorded.served, scene, "shown")
    wait_kept(recorded.served, int(before) + 1)
    listed = httpx.get(f"{recorded.served.url}/v1/recordings", params={"limit": 1}).json()["recordings"]
    told = httpx.get(f"{recorded.served.url}/v1/recordings/{listed[0]['id']}")
    assert told.status_code == 200, told.text
    assert told.headers["cache-control"] == "no-store"
    shown = told.json()
    assert (shown["media_type"], shown["redacted"]) == ("image/jpeg", list("0123456789"))
    with load(digits_bundle, threads=1) as predictor:
        assert len(predictor.predict(scene, conf=0.5)[0]) > 0
        assert len(predictor.predict(base64.b64decode(shown["image"]), conf=0.5)[0]) == 0


def test_pages_of_recordings_hold_each_once(recorded: Recorded, scene: bytes) -> None:
    before = figures(recorded.served)["shipsight_recordings_kept_total"]
    for number in range(4):
        over_native(recorded.served, scene, f"page-{number}")
    wait_kept(recorded.served, int(before) + 4)
    url, seen, cursor = f"{recorded.served.url}/v1/recordings", [], None
    while True:
        page = httpx.get(url, params={"limit": 3, **({} if cursor is None else {"before": cursor})}).json()
        assert len(page["recordings"]) <= 3
        seen += [one["id"] for one in page["recordings"]]
        cursor = page["before"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) >= 4
    assert set(seen) == {one.label.id for one in store_of(recorded.place).entries()}
    everything = httpx.get(url, params={"limit": 500}).json()["recordings"]
    assert [one["id"] for one in everything] == seen
    assert [one["at"] for one in everything] == sorted((one["at"] for one in everything), reverse=True)
    assert httpx.get(url, params={"model": "other"}).json()["recordings"] == []


@pytest.mark.parametrize("query", ["before=x", "limit=0", "limit=501", "since=yesterday", "nonsense=1", "model="])
def test_query_that_does_not_fit_is_refused(recorded: Recorded, query: str) -> None:
    told = httpx.get(f"{recorded.served.url}/v1/recordings?{query}")
    assert (told.status_code, told.json()["error"]["code"]) == (400, "usage")


@pytest.mark.parametrize("name", ["0" * 32, "..%2f..", "x"])
def test_recording_that_there_is_not_is_not_found(recorded: Recorded, name: str) -> None:
    assert httpx.get(f"{recorded.served.url}/v1/recordings/{name}").status_code == 404


def test_raw_tensors_and_refused_images_are_not_recorded(recorded: Recorded, scene: bytes) -> None:
    before = figures(recorded.served)
    url = recorded.served.url
    given = {"name": "images", "datatype": "FP32", "shape": list(SHAPE), "data": tensor().ravel().tolist()}
    assert httpx.post(f"{url}/v2/models/digits/infer", json={"inputs": [given]}, timeout=60).status_code == 200
    assert httpx.post(f"{url}{PREDICT}", content=b"no image", headers={"x-subject-id": "ada"}).status_code == 415
    text = base64.b64encode(scene).decode()
    mixed = {"images": [text, base64.b64encode(b"no image").decode()]}
    assert httpx.post(f"{url}{PREDICT}", json=mixed, headers={"x-subject-id": "ada"}).status_code == 415
    assert (
        figures(recorded.served)["shipsight_recordings_offered_total"] == before["shipsight_recordings_offered_total"]
    )


def test_request_that_names_nobody_or_two_is_not_recorded(recorded: Recorded, scene: bytes) -> None:
    dropped = 'shipsight_recordings_dropped_total{why="no-subject"}'
    before = figures(recorded.served)[dropped]
    url = f"{recorded.served.url}{PREDICT}"
    assert httpx.post(url, content=scene).status_code == 200
    two = [("x-subject-id", "ada"), ("x-subject-id", "grace")]
    assert httpx.post(url, content=scene, headers=two).status_code == 200
    wait_until(lambda: figures(recorded.served)[dropped] == before + 2, "both are left out")
    store = store_of(recorded.place)
    assert store.keys.places(tag=store.keys.tag("grace")) == []


def test_name_in_another_script_is_found_as_people_write_it(recorded: Recorded, scene: bytes) -> None:
    before = figures(recorded.served)["shipsight_recordings_kept_total"]
    headers = [(b"x-subject-id", "Zoë Müller".encode())]
    assert httpx.post(f"{recorded.served.url}{PREDICT}", content=scene, headers=headers).status_code == 200
    wait_kept(recorded.served, int(before) + 1)
    store = store_of(recorded.place)
    assert len(store.keys.places(tag=store.keys.tag("Zoë Müller"))) == 1


def test_sealed_request_is_not_recorded_and_counts_once(recorded: Recorded, scene: bytes) -> None:
    dropped = 'shipsight_recordings_dropped_total{why="sealed"}'
    before = figures(recorded.served)
    text = base64.b64encode(scene).decode()
    body = json.dumps({"images": [text, text, text]}).encode()
    with recorded.served.client as http:
        sealer = Sealer(http, recorded.served.sealing)
        told = sealer.ask(PlainRequest(body, "application/json"), SealedFor(NATIVE, "digits"))
    assert told.status == 200
    wait_until(lambda: figures(recorded.served)[dropped] == before[dropped] + 1, "it is left out")
    kept = "shipsight_recordings_kept_total"
    assert figures(recorded.served)[kept] == before[kept]


def test_what_is_kept_is_told_to_prometheus(recorded: Recorded, scene: bytes) -> None:
    before = figures(recorded.served)["shipsight_recordings_kept_total"]
    over_native(recorded.served, scene, "metrics")
    wait_kept(recorded.served, int(before) + 1)
    kept_bytes = store_of(recorded.place).index.total_bytes()
    wait_until(lambda: figures(recorded.served)["shipsight_recordings_bytes"] == kept_bytes > 0, "bytes are told")
    told = figures(recorded.served)
    assert 0 < told["shipsight_recordings_oldest_age_seconds"] < 600
    assert told['shipsight_recordings_dropped_total{why="failed"}'] == 0


# --- who may look and erase


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Identities, of which somebody is known."""
    with opened(tmp_path) as access:
        access.directory.add_user(SERVER, "root", grants=[Grant("admin")])
    return tmp_path


@pytest.fixture
def guarded(
    start: Callable[..., Served], digits_bundle: Path, folder: Path
) -> Iterator[tuple[Served, dict[str, dict[str, str]]]]:
    """A server that asks who is there, and keys: of a camera, of another team, of who looks and of who erases."""
    with opened(folder) as access:
        officer = frozenset({Action.RECORDINGS_CHANGE, Action.RECORDINGS_READ, Action.METRICS_READ})
        access.directory.apply_role(SERVER, Role("officer", officer))
        access.directory.apply_role(SERVER, Role("looker", frozenset({Action.RECORDINGS_READ})))
    keys = {
        name: key(folder, name, *grants)
        for name, grants in {
            "camera": ["predictor"],
            "other": ["looker@team-b-*"],
            "looker": ["looker@dig*"],
            "officer": ["officer"],
        }.items()
    }
    served = start(digits_bundle, *stored(folder), "--require-access", *options(folder))
    yield served, keys
    served.stop()


def test_recordings_are_looked_at_and_erased_by_right_and_on_record(
    guarded: tuple[Served, dict[str, dict[str, str]]], folder: Path, scene: bytes
) -> None:
    served, keys = guarded
    with served.client as http:
        for subject in ("ada", "ada", "grace"):
            headers = {**keys["camera"], "x-subject-id": subject}
            assert http.post(PREDICT, content=scene, headers=headers).status_code == 200
        # Erased at once: what waits is kept first, so that none of it comes after.
        gone = http.post("/v1/recordings/erase", json={"subject": "ada"}, headers=keys["officer"])
        assert (gone.status_code, gone.json()["records"], gone.json()["what"]) == (200, 2, "subject"), gone.text
        assert "ada" not in gone.text
        listed = http.get("/v1/recordings", headers=keys["looker"]).json()["recordings"]
        assert len(listed) == 1
        name = listed[0]["id"]
        assert http.get(f"/v1/recordings/{name}", headers=keys["looker"]).status_code == 200
        # Another team sees nothing, and is told of what there is as of what there is not.
        assert http.get("/v1/recordings", headers=keys["other"]).json() == {"recordings": [], "before": None}
        theirs = [http.get(f"/v1/recordings/{one}", headers=keys["other"]) for one in (name, "0" * 32)]
        assert [one.status_code for one in theirs] == [403, 403]
        assert theirs[0].json() == theirs[1].json()
        for who in ("camera", "looker", "other"):
            for method, path in (("POST", "/erase"), *([("GET", ""), ("GET", f"/{name}")] if who == "camera" else [])):
                body = {"recordings": [name]} if method == "POST" else None
                refused = http.request(method, f"/v1/recordings{path}", json=body, headers=keys[who])
                assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden"), (who, path)
        assert http.get("/v1/recordings").status_code == 401
        for wrong in ({}, {"subject": "x", "day": "2026-11-23"}, {"day": "today"}, {"subject": " "}, {"all": True}):
            told = http.post("/v1/recordings/erase", json=wrong, headers=keys["officer"])
            assert (told.status_code, told.json()["error"]["code"]) == (400, "usage"), wrong
        unknown = http.post("/v1/recordings/erase", json={"recordings": ["0" * 32]}, headers=keys["officer"])
        assert unknown.status_code == 404
        gone = http.post("/v1/recordings/erase", json={"recordings": [name]}, headers=keys["officer"])
        assert gone.json()["records"] == 1
        assert http.get(f"/v1/recordings/{name}", headers=keys["officer"]).status_code == 404
    assert store_of(folder).entries() == []
    served.stop()
    read = [one.event for one in entries(folder, EventKind.DATA_READ)]
    assert [one.details["what"] for one in read] == ["list", "show", "list"]
    assert all(one.address == "127.0.0.1" for one in read)
    erased = [one.event for one in entries(folder, EventKind.RECORDINGS_ERASED)]
    assert [(one.details["what"], one.details["records"]) for one in erased] == [("subject", 2), ("recordings", 1)]
    assert all(one.actor.startswith("key:officer") for one in erased)
    (changed,) = [
        one.event for one in entries(folder, EventKind.CONFIGURATION_CHANGED) if one.event.subject == "recordings"
    ]
    assert str(changed.details["recording policy"]).startswith("none -> ")


def test_policy_that_lets_nothing_out_shows_nothing_and_records_all_the_same(
    start: Callable[..., Served], digits_bundle: Path, tmp_path: Path, scene: bytes
) -> None:
    served = start(digits_bundle, *options(tmp_path, leaves="nothing"))
    over_native(served, scene, "ada")
    wait_kept(served, 1)
    (entry,) = store_of(tmp_path).entries()
    for path in ("", f"/{entry.label.id}"):
        told = httpx.get(f"{served.url}/v1/recordings{path}")
        assert (told.status_code, told.json()["error"]["code"]) == (403, "forbidden")
    # On the machine itself whoever can read the key looks at them.
    told = shipsight("recordings", "list", "--recordings", tmp_path / "recordings", "--json", SHIPSIGHT_AUDIT="off")
    assert [one["id"] for one in json.loads(told.stdout)["recordings"]] == [entry.label.id], told.stderr
    assert served.stop() == 0


# --- how it starts, and ends


@pytest.mark.parametrize("mode", ["off", "statistics"])
def test_policy_without_samples_needs_no_place_and_keeps_nothing(
    start: Callable[..., Served], digits_bundle: Path, tmp_path: Path, scene: bytes, mode: str
) -> None:
    policy = written(tmp_path, mode=mode, redaction={}, leaves="nothing")
    served = start(digits_bundle, "--streams", "1", "--record-policy", policy)
    over_native(served, scene, "ada")
    assert httpx.get(f"{served.url}/v1/recordings").status_code == 404
    assert figures(served) == {}
    assert served.stop() == 0
    assert {one.name for one in tmp_path.iterdir()} == {"policy.yaml"}


@pytest.mark.parametrize(
    ("changes", "more", "told"),
    [
        ({}, ("--recordings-key", "recordings/own.key"), "lies among them"),
        ({"redaction": {"classes": ["face"]}}, (), "has no class to redact"),
        ({"redaction": {"classes": ["face"], "bundle": "/nowhere/faces.bundle"}}, (), "/nowhere/faces.bundle"),
        ({"residency": {"within": ["/nowhere"]}}, (), "may not lie here"),
        ({"purposes": []}, (), "purposes"),
    ],
    ids=["key", "class", "bundle", "place", "purposes"],
)
def test_policy_that_cannot_be_held_to_stops_the_start(
    digits_bundle: Path, tmp_path: Path, changes: dict[str, object], more: tuple[str, ...], told: str
) -> None:
    given = [str(tmp_path / one) if "/" in one else one for one in more]
    found = shipsight("serve", digits_bundle, "--port", "0", *options(tmp_path, **changes), *given)
    assert found.returncode == 2, found.stderr
    assert told in found.stderr


@pytest.mark.parametrize("option", ["--recordings", "--recordings-key"])
def test_place_without_a_policy_is_refused(digits_bundle: Path, tmp_path: Path, option: str) -> None:
    found = shipsight("serve", digits_bundle, "--port", "0", option, tmp_path / "x")
    assert (found.returncode, option in found.stderr, "--record-policy" in found.stderr) == (2, True, True)


def test_two_servers_do_not_record_into_one_folder(recorded: Recorded, digits_bundle: Path) -> None:
    found = shipsight("serve", digits_bundle, "--port", "0", *options(recorded.place))
    assert (found.returncode, "another process records here" in found.stderr) == (2, True)


def test_end_keeps_what_waits(start: Callable[..., Served], digits_bundle: Path, tmp_path: Path, scene: bytes) -> None:
    served = start(digits_bundle, *options(tmp_path))
    with served.client as http:
        for number in range(20):
            assert http.post(PREDICT, content=scene, headers={"x-subject-id": f"{number}"}).status_code == 200
    assert served.stop() == 0
    assert len(store_of(tmp_path).entries()) == 20


def test_killed_process_keeps_what_was_kept_and_the_next_one_records_on(
    start: Callable[..., Served], digits_bundle: Path, tmp_path: Path, scene: bytes
) -> None:
    served = start(digits_bundle, *options(tmp_path))
    over_native(served, scene, "before")
    wait_kept(served, 1)
    # A policy that is changed while a server runs holds from its next start by somebody, not from that of a process in its place.
    written(tmp_path, leaves="nothing")
    os.kill(serving_process(served), signal.SIGKILL)
    assert next(served.events())["event"] == "restart"
    wait_until(lambda: _answers(served, scene), "the next one answers")
    wait_kept(served, 1)
    assert served.stop() == 0
    store = store_of(tmp_path)
    assert len(store.entries()) >= 2
    assert store.policy.leaves == "redacted-images"
    for one in store.entries():
        store.open(one)


def _answers(served: Served, scene: bytes) -> bool:
    try:
        told = httpx.post(f"{served.url}{PREDICT}", content=scene, headers={"x-subject-id": "after"}, timeout=5)
    except httpx.TransportError:
        return False
    return told.status_code == 200


def test_full_disk_costs_no_request_and_is_told(
    start: Callable[..., Served], digits_bundle: Path, tmp_path: Path, scene: bytes
) -> None:
    with mounted(tmp_path / "disk") as disk:
        policy = written(tmp_path)
        place = ("--recordings", disk / "recordings", "--recordings-key", tmp_path / "recordings.key")
        served = start(digits_bundle, "--streams", "1", "--record-policy", policy, *place)
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        assert shutil.disk_usage(disk).free == 0
        failed = 'shipsight_recordings_dropped_total{why="failed"}'
        for number in range(5):
            assert over_native(served, scene, f"{number}") == 1
        wait_until(lambda: figures(served)[failed] == 5, "they are counted")
        ballast.unlink()
        over_native(served, scene, "again")
        wait_kept(served, 1)
        assert figures(served)["shipsight_recordings_kept_total"] == 1
        assert served.stop() == 0


def test_shadow_is_not_recorded(
    start: Callable[..., Served], digits_bundle: Path, second_version: Path, tmp_path: Path, scene: bytes
) -> None:
    served = start(digits_bundle, second_version, "--shadow", "digits:2=1.0", *options(tmp_path))
    for number in range(5):
        over_native(served, scene, f"{number}")
    wait_kept(served, 5)
    time.sleep(1)  # the shadow has answered meanwhile
    assert figures(served)["shipsight_recordings_offered_total"] == 5
    assert served.stop() == 0
    assert {one.label.version for one in store_of(tmp_path).entries()} == {"1"}
