# SPDX-License-Identifier: Apache-2.0
"""A real server that looks for drift: what it finds, whom it tells, what it keeps over restarts, who may look, and what cannot stop it."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import simplejpeg
from tests.digits import rewritten
from tests.monitor.alerts.receivers import KEY, secret, webhook
from tests.serve.attacked import wait_until
from tests.serve.conftest import Served, serving_process
from tests.serve.sealing import NATIVE, Sealer
from tests.serve.test_audit_server import entries, key, opened, shipsight, stored
from tests.serve.test_recordings_server import figures as recording_figures
from tests.serve.test_recordings_server import options as recording_options

from shipsight.access import SERVER, EventKind, Grant
from shipsight.model.bundle import open_bundle
from shipsight.proof.embedding import find_embedding
from shipsight.protect import PlainRequest, SealedFor

pytestmark = pytest.mark.slow  # servers that start

PREDICT, DRIFT = "/v1/models/digits/predict", "/v1/models/digits/drift"
REFERENCE, WINDOW = 24, 12
QUICK = ("--drift-reference", REFERENCE, "--drift-window", WINDOW, "--drift-per-second", 10_000, "--streams", 1)
Scenes = list[bytes]


@pytest.fixture(scope="module")
def scenes(digit_scenes: Callable[[int, int], tuple[Any, Any]]) -> Scenes:
    """Different scenes, as many as a reference and two windows need."""
    drawn = [digit_scenes(seed, 96)[0] for seed in range(REFERENCE + 2 * WINDOW)]
    return [encoded(pixels) for pixels in drawn]


@pytest.fixture(scope="module")
def dark(digit_scenes: Callable[[int, int], tuple[Any, Any]]) -> Scenes:
    """Others, as a camera whose lamp failed sees them."""
    return [encoded((digit_scenes(1000 + seed, 96)[0] * 0.3).astype(np.uint8)) for seed in range(WINDOW)]


def encoded(pixels: Any) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=95, colorspace="RGB"))


def send(served: Served, images: Scenes, headers: dict[str, str] | None = None) -> None:
    with served.client as http:
        for one in images:
            told = http.post(PREDICT, content=one, headers=headers)
            assert told.status_code == 200, told.text


def drift(served: Served, headers: dict[str, str] | None = None) -> dict[str, Any]:
    told = httpx.get(f"{served.url}{DRIFT}", headers=headers)
    assert told.status_code == 200, told.text
    found: dict[str, Any] = told.json()
    return found


def monitor(served: Served, headers: dict[str, str] | None = None) -> dict[str, Any]:
    told = drift(served, headers)["monitors"]
    return told[0] if told else {"taken": 0, "windows": 0}


def wait_for(served: Served, name: str, count: int, headers: dict[str, str] | None = None) -> dict[str, Any]:
    wait_until(lambda: monitor(served, headers)[name] >= count, f"{name} of {count}")
    return monitor(served, headers)


def figures(served: Served) -> dict[str, float]:
    lines = httpx.get(f"{served.url}/metrics").text.splitlines()
    kept = (
        line.rpartition(" ")
        for line in lines
        if line.startswith(("shipsight_drift", "shipsight_monitor", "shipsight_alert"))
    )
    return {name: float(value) for name, _, value in kept}


@pytest.fixture
def begin(start: Callable[..., Served], digits_bundle: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts servers that keep what they learn in one place."""
    begun: list[Served] = []

    def run(*arguments: object, **named: Any) -> Served:
        begun.append(start(digits_bundle, *QUICK, "--state", tmp_path / "state", *arguments, **named))
        return begun[-1]

    yield run
    for one in begun:
        one.stop()


def test_change_is_found_told_to_prometheus_and_forgotten_when_it_was_meant(
    begin: Callable[..., Served], scenes: Scenes, dark: Scenes
) -> None:
    served = begin()
    assert drift(served) == {"model": "digits", "drifting": False, "monitors": []}
    send(served, scenes[:REFERENCE])
    learned = wait_for(served, "taken", REFERENCE)
    assert (learned["phase"], learned["features"]) == ("not enough data", [])
    send(served, scenes[REFERENCE : REFERENCE + WINDOW])
    same = wait_for(served, "windows", 1)
    assert (same["phase"], drift(served)["drifting"]) == ("watching", False)
    subject = f"digits:1/{same['variant']}"
    assert (
        figures(served)[f'shipsight_drift_firing{{severity="warning",signal="drift-brightness",subject="{subject}"}}']
        == 0
    )
    send(served, dark)
    changed = wait_for(served, "windows", 2)
    assert drift(served)["drifting"]
    alarms = {one["feature"]: one for one in changed["features"] if one["alarm"]}
    assert alarms["brightness"]["here"] < 0.5 * alarms["brightness"]["before"]
    told = figures(served)
    assert told[f'shipsight_drift_firing{{severity="warning",signal="drift-brightness",subject="{subject}"}}'] == 1
    assert told[f'shipsight_monitor_windows_total{{subject="{subject}"}}'] == 2
    assert told[f'shipsight_monitor_kept{{subject="{subject}"}}'] == 1
    forgotten = httpx.post(f"{served.url}{DRIFT}/forget").json()
    assert (forgotten["drifting"], forgotten["monitors"][0]["phase"]) == (False, "learning")
    send(served, dark)
    assert wait_for(served, "taken", WINDOW)["reference"] == WINDOW


@pytest.mark.parametrize("ends", ["leaves", "is killed"])
def test_what_was_learned_survives(begin: Callable[..., Served], scenes: Scenes, dark: Scenes, ends: str) -> None:
    served = begin()
    send(served, [*scenes[:REFERENCE], *dark])
    wait_for(served, "windows", 1)
    assert drift(served)["drifting"]
    if ends == "leaves":
        send(served, scenes[:5])
        served.stop()
        served = begin()
    else:
        os.kill(serving_process(served), signal.SIGKILL)
        assert next(event for event in served.events() if event["event"] == "ready")
    send(served, scenes[:1])
    again = wait_for(served, "windows", 1)
    assert (again["reference"], again["window"]) == (REFERENCE, 6 if ends == "leaves" else 1)
    assert drift(served)["drifting"]


def test_somebody_is_told_once_and_that_it_ended(
    begin: Callable[..., Served], scenes: Scenes, dark: Scenes, tmp_path: Path
) -> None:
    with webhook(None) as hook:
        hook.is_let.set()
        receiver = {"kind": "webhook", "name": "ops", "url": hook.url, "key_file": str(secret(tmp_path, KEY))}
        settings = tmp_path / "alerts.yaml"
        settings.write_text(
            json.dumps({"schema": 1, "signals": ["drift-*"], "for_s": 0, "resolve_s": 1, "receivers": [receiver]})
        )
        served = begin("--alerts", settings)
        send(served, [*scenes[:REFERENCE], *dark])
        (first,) = (json.loads(one.body) for one in hook.wait(1))
        fired = {one["name"]: one for one in first["alerts"]}
        assert (fired["drift-brightness"]["status"], fired["drift-brightness"]["reason"]) == ("firing", "new")
        variant = monitor(served)["variant"]
        assert first["subject"] == f"digits:1/{variant}"
        with served.client as http:
            digest = http.get("/v1/models").json()["models"][0]["digest"]
        assert first["bundle"] == f"sha256:{digest.removeprefix('sha256:')}"
        os.kill(serving_process(served), signal.SIGKILL)
        assert next(event for event in served.events() if event["event"] == "ready")
        send(served, scenes[REFERENCE : REFERENCE + WINDOW])
        wait_for(served, "windows", 2)
        time.sleep(1.5)  # it must have been quiet for a second
        send(served, scenes[REFERENCE + WINDOW :])
        wait_for(served, "windows", 3)
        last = json.loads(hook.wait(2, timeout_s=60)[1].body)
        assert {one["status"] for one in last["alerts"]} == {"resolved"}
        assert last["id"] != first["id"]
        told = figures(served)
        assert told["shipsight_alerts_kept"] == 1
        assert told['shipsight_alert_receiver_up{receiver="ops"}'] == 1
        assert len(hook.asked) == 2


def test_images_under_drift_are_recorded_where_the_policy_asks_for_them(
    begin: Callable[..., Served], scenes: Scenes, dark: Scenes, tmp_path: Path
) -> None:
    samples = {"on_drift": True, "most_day": 1000}
    served = begin(
        *recording_options(tmp_path, samples=samples, redaction={}, subject_header=None, leaves="statistics")[:-2]
    )
    send(served, [*scenes[:REFERENCE], *dark])
    wait_for(served, "windows", 1)
    assert recording_figures(served)["shipsight_recordings_kept_total"] == 0
    send(served, dark[:3])
    wait_until(lambda: recording_figures(served)["shipsight_recordings_kept_total"] == 3, "three are kept")
    listed = httpx.get(f"{served.url}/v1/recordings").json()["recordings"]
    assert [one["reasons"] for one in listed] == [["drift"]] * 3


def test_a_bundle_that_knows_more_is_compared_by_more(
    start: Callable[..., Served], digits_bundle: Path, scenes: Scenes, tmp_path: Path
) -> None:
    opened = open_bundle(digits_bundle)
    (reference,) = (one.name for one in opened.variants if one.is_reference)
    tensor = find_embedding(onnx.load(digits_bundle / "variants" / reference / "model.onnx").graph)
    # As if half of 200 predictions had been right.
    counted = {"edges": [0.25, 0.6, 1.0], "found": [[2, 2]] * 50, "right": [[1, 1]] * 50}
    more = {
        "proof/training-stats.json": json.dumps({"embedding": {"tensor": tensor}}).encode(),
        "proof/calibration.json": json.dumps({reference: counted}).encode(),
    }
    bundle = rewritten(digits_bundle, tmp_path / "more.bundle", with_files=more)
    served = start(bundle, *QUICK, "--state", tmp_path / "state", "--drift-embeddings")
    try:
        send(served, scenes[: REFERENCE + WINDOW])
        told = wait_for(served, "windows", 1)
        assert "embedding" in {one["feature"] for one in told["features"]}
        assert told["not_estimated"] is None
        assert told["precision"]["measured"] == 0.5
        assert told["precision"]["low"] <= told["precision"]["value"] <= told["precision"]["high"]
        subject = f"digits:1/{told['variant']}"
        known = figures(served)
        assert known[f'shipsight_monitor_precision{{bound="measured",subject="{subject}"}}'] == 0.5
        assert (
            known[f'shipsight_drift_firing{{severity="warning",signal="accuracy-precision",subject="{subject}"}}'] == 0
        )
        # Asked for less, it begins anew: what it learned had more.
        served.stop()
        served = start(bundle, *QUICK, "--state", tmp_path / "state")
        send(served, scenes[:3])
        assert wait_for(served, "taken", 3)["reference"] == 3
    finally:
        served.stop()


def test_a_bundle_that_knows_nothing_says_so(begin: Callable[..., Served], scenes: Scenes) -> None:
    served = begin("--drift-embeddings")
    send(served, scenes[: REFERENCE + WINDOW])
    told = wait_for(served, "windows", 1)
    assert "embedding" not in {one["feature"] for one in told["features"]}
    assert told["precision"] is None
    assert "the bundle holds none" in told["not_estimated"]


def test_sealed_images_are_not_looked_at(begin: Callable[..., Served], scenes: Scenes) -> None:
    served = begin()
    body = json.dumps({"images": [base64.b64encode(scenes[0]).decode()]}).encode()
    with served.client as http:
        sealer = Sealer(http, served.sealing)
        assert sealer.ask(PlainRequest(body, "application/json"), SealedFor(NATIVE, "digits")).status == 200
    send(served, scenes[:3])
    assert wait_for(served, "taken", 3)["taken"] == 3


@pytest.mark.parametrize("how", ["policy", "option"])
def test_who_wants_no_statistics_gets_none(
    begin: Callable[..., Served], scenes: Scenes, tmp_path: Path, how: str
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text('schema: 1\nmode: "off"\n')
    served = begin(*(["--record-policy", policy] if how == "policy" else ["--drift-per-second", 0]))
    send(served, scenes[:3])
    assert httpx.get(f"{served.url}{DRIFT}").status_code == 404
    assert httpx.post(f"{served.url}{DRIFT}/forget").status_code == 404
    assert figures(served) == {}
    assert not (tmp_path / "state" / "monitors").exists()


@pytest.mark.parametrize("what", ["damaged", "unwritable", "of another server"])
def test_state_that_cannot_be_used_stops_no_server(
    begin: Callable[..., Served],
    start: Callable[..., Served],
    digits_bundle: Path,
    scenes: Scenes,
    tmp_path: Path,
    what: str,
) -> None:
    folder, log = tmp_path / "state" / "monitors", tmp_path / "log"
    other: Served | None = None
    if what == "damaged":
        served = begin()
        send(served, scenes[:REFERENCE])
        wait_for(served, "taken", REFERENCE)
        served.stop()
        (file,) = folder.glob("*.json")
        file.write_bytes(file.read_bytes().replace(b"1", b"2", 1))
    elif what == "unwritable":
        folder.parent.mkdir()
        folder.write_text("a file where a folder should be")
    else:
        other = begin()
    with log.open("w") as stderr:
        served = begin(stderr=stderr)
        send(served, scenes[:REFERENCE])
        told = wait_for(served, "taken", REFERENCE)
        assert (told["kept"], told["phase"]) == (False, "not enough data")
        if other is not None:
            other.stop()
        assert served.stop() == 0
    assert ("monitor-unreadable" if what == "damaged" else "monitors-not-kept") in log.read_text()


def test_looking_and_forgetting_take_rights_and_forgetting_is_on_record(
    begin: Callable[..., Served], scenes: Scenes, tmp_path: Path
) -> None:
    with opened(tmp_path) as access:
        access.directory.add_user(SERVER, "root", grants=[Grant("admin")])
    keys = {name: key(tmp_path, name, name) for name in ("predictor", "viewer", "operator")}
    served = begin(*stored(tmp_path), "--require-access")
    send(served, scenes[:3], keys["predictor"])
    wait_for(served, "taken", 3, keys["viewer"])
    url = f"{served.url}{DRIFT}"
    assert httpx.get(url, headers=keys["predictor"]).status_code == 403
    for name in ("predictor", "viewer"):
        assert httpx.post(f"{url}/forget", headers=keys[name]).status_code == 403
    refused = httpx.post(f"{url}/forget", headers=keys["operator"], json={"variant": "no-such"})
    assert refused.status_code == 404
    assert monitor(served, keys["viewer"])["reference"] == 3
    told = httpx.post(f"{url}/forget", headers=keys["operator"], json={"version": "1"})
    assert (told.status_code, told.json()["monitors"][0]["reference"]) == (200, 0)
    served.stop()
    found = [one for one in entries(tmp_path, EventKind.CONFIGURATION_CHANGED) if one.event.subject == "digits"]
    assert found[-1].event.details["drift reference"] == "kept -> forgotten"
    assert "operator" in found[-1].event.actor


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (("--drift-window", 5), "--drift-window"),
        (("--drift-reference", 10_000), "--drift-reference"),
        (("--drift-per-second", -1), "--drift-per-second"),
        (("--drift-per-second", 0, "--alerts", "alerts.yaml"), "--alerts"),
        (("--drift-per-second", 0, "--drift-embeddings"), "--drift-embeddings"),
        (("--isolate", "--drift-embeddings"), "--drift-embeddings"),
        (("--alerts", "no-such.yaml"), "no-such.yaml"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(
    digits_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    receiver = {"kind": "webhook", "name": "ops", "url": "http://127.0.0.1:1/", "key_file": str(secret(tmp_path, KEY))}
    (tmp_path / "alerts.yaml").write_text(json.dumps({"schema": 1, "receivers": [receiver]}))
    told = shipsight("serve", digits_bundle, "--port", "0", *arguments)
    assert told.returncode in (2, 3)
    assert where in told.stderr
