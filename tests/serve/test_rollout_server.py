# SPDX-License-Identifier: Apache-2.0
"""Rollouts of a real server: canaries by share and key, promotion under load, what stands after a crash, the commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tests.serve.conftest import Served, rewritten, serving_process

pytestmark = pytest.mark.slow  # servers that start, die and wait

PREDICT = "/v1/models/digits/predict"
ROLLOUT = "/v1/models/digits/rollout"


def shipsight(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shipsight", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def put(client: httpx.Client, **shares: tuple[str, float] | None) -> dict[str, Any]:
    body = {kind: None if one is None else {"version": one[0], "share": one[1]} for kind, one in shares.items()}
    answer = client.put(ROLLOUT, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def version_of(client: httpx.Client, jpeg: bytes, key: str | None = None) -> str:
    answer = client.post(PREDICT, content=jpeg, headers={} if key is None else {"x-routing-key": key})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["version"])


@pytest.fixture
def two(start: Callable[..., Served], digits_bundle: Path, second_version: Path) -> Iterator[Served]:
    """A server of versions 1 and 2."""
    server = start(digits_bundle, second_version, "--streams", "1")
    yield server
    assert server.stop() == 0


def test_a_canary_answers_its_share_of_keys_and_keeps_them_while_it_grows(two: Served, jpeg: bytes) -> None:
    keys = [f"camera-{number}" for number in range(100)]
    with two.client as client:
        assert {version_of(client, jpeg, key) for key in keys[:5]} == {"1"}, "a second version takes no traffic"
        put(client, canary=("2", 0.2))
        small = {key for key in keys if version_of(client, jpeg, key) == "2"}
        put(client, canary=("2", 0.5))
        large = {key for key in keys if version_of(client, jpeg, key) == "2"}
        put(client, canary=None)
        assert {version_of(client, jpeg, key) for key in keys[:5]} == {"1"}
    assert 8 <= len(small) <= 32, "four standard deviations around 20"
    assert 30 <= len(large) <= 70
    assert small <= large


def test_requests_without_a_key_are_spread_and_those_that_name_a_version_are_not(two: Served, jpeg: bytes) -> None:
    with two.client as client:
        put(client, canary=("2", 0.5))
        found = Counter(version_of(client, jpeg) for _ in range(80))
        assert min(found["1"], found["2"]) > 15
        for version in ("1", "2"):
            named = client.post(f"/v1/models/digits/versions/{version}/predict", content=jpeg)
            assert named.json()["version"] == version
        report = client.get(ROLLOUT).json()
        answers = {version: one["answered"] for version, one in report["answers"].items()}
        assert answers == dict(found), "requests that name a version are not counted"
        metrics = client.get("/metrics").text
        assert 'shipsight_canary_share{model="digits",version="2"} 0.5' in metrics
        assert 'shipsight_model_role{model="digits",role="canary",version="2"} 1.0' in metrics
        told = {one["version"]: one["role"] for one in client.get("/v1/models").json()["models"]}
        assert told == {"1": "current", "2": "canary"}
        too_long = client.post(PREDICT, content=jpeg, headers={"x-routing-key": "k" * 300})
        assert too_long.status_code == 400


def test_other_protocols_follow_the_canary_too(
    start: Callable[..., Served], digits_bundle: Path, second_version: Path, jpeg: bytes
) -> None:
    server = start(digits_bundle, second_version, "--variant", "all", "--streams", "1", "--canary", "digits:2=1.0")
    host = server.url.removeprefix("http://")
    with server.client as client, triton.InferenceServerClient(host) as other:
        assert client.post("/invocations", content=jpeg).json()["version"] == "2"
        image = triton.InferInput("image", [1], "BYTES")
        image.set_data_from_numpy(np.array([jpeg], dtype=np.object_))
        assert other.infer("digits_image", [image]).get_response()["model_version"] == "2"
        assert other.infer("digits_image", [image], model_version="1").get_response()["model_version"] == "1"
        tensor = triton.InferInput("images", [1, 3, 256, 256], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 3, 256, 256), np.float32))
        assert other.infer("digits", [tensor]).get_response()["model_version"] == "2"
        put(client, canary=("2", 0.5))
        keyed = {
            other.infer("digits_image", [image], headers={"x-routing-key": "one camera"}).get_response()[
                "model_version"
            ]
            for _ in range(6)
        }
        assert len(keyed) == 1
    assert server.stop() == 0


def test_promotion_and_rollback_under_load_lose_no_request(two: Served, jpeg: bytes) -> None:
    leaving = threading.Event()
    answered: list[tuple[int, str]] = []

    def keep_asking() -> None:
        with two.client as client:
            while not leaving.is_set():
                answer = client.post(PREDICT, content=jpeg)
                answered.append((answer.status_code, answer.json().get("version", answer.text)))

    askers = [threading.Thread(target=keep_asking) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        for verb, version in (("promote", "2"), ("rollback", "1"), ("promote", "2"), ("rollback", "1")):
            named = ("--version", version) if verb == "promote" else ()
            done = shipsight(verb, "digits", "--server", two.url, *named, "--reason", "exercise", "--json")
            assert done.returncode == 0, done.stderr
            told = json.loads(done.stdout)
            assert (told["changed"], told["current"]) == (True, version)
            with two.client as client:
                assert version_of(client, jpeg) == version, "from the answer on"
    finally:
        leaving.set()
        for asker in askers:
            asker.join()
    assert {status for status, _ in answered} == {200}
    assert {version for _, version in answered} == {"1", "2"}
    assert len(answered) > 20
    with two.client as client:
        changes = client.get(ROLLOUT).json()["changes"]
    assert [one["action"] for one in changes] == ["promote", "rollback"] * 2
    assert {one["reason"] for one in changes} == {"exercise"}
    assert {one["principal"] for one in changes} == {"loopback:this machine"}


def test_rolling_back_loads_a_version_that_was_unloaded_first(
    start: Callable[..., Served], digits_bundle: Path, second_version: Path, tmp_path: Path, jpeg: bytes
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copytree(digits_bundle, folder / "one")
    shutil.copytree(second_version, folder / "two")
    server = start("--repository", folder, "--streams", "1")
    with server.client as client:
        body = {"parameters": {"version": "1"}}
        client.post("/v2/repository/models/digits/load", json=body).raise_for_status()
        assert shipsight("promote", "digits", "--version", "2", "--server", server.url).returncode == 0
        assert version_of(client, jpeg) == "2"
        client.post("/v2/repository/models/digits/unload").raise_for_status()
        assert client.post(PREDICT, content=jpeg).status_code == 404
        done = shipsight("rollback", "digits", "--server", server.url)
        assert done.returncode == 0, done.stderr
        assert "now answers with version 1 (before: 2)" in done.stdout
        assert version_of(client, jpeg) == "1"
        # A version that does not replay any more is not rolled back to: what answers goes on.
        client.post("/v2/repository/models/digits/unload").raise_for_status()
        client.post("/v2/repository/models/digits/load", json=body).raise_for_status()
        shutil.rmtree(folder / "two")
        rewritten(digits_bundle, folder / "two", version="2", weights_scale=1.5)
        refused = shipsight("rollback", "digits", "--server", server.url)
        assert refused.returncode == 1
        assert "replay-mismatch" in refused.stderr
        assert version_of(client, jpeg) == "1"
        assert client.get(ROLLOUT).json()["current"] == "1"
    assert server.stop() == 0


def test_what_was_decided_stands_after_the_serving_process_was_killed(
    start: Callable[..., Served], digits_bundle: Path, second_version: Path, jpeg: bytes
) -> None:
    server = start(digits_bundle, second_version, "--streams", "1", "--canary", "digits:2=0.5")
    with server.client as client:
        assert client.get(ROLLOUT).json()["canary"] == {"version": "2", "share": 0.5}
        promoted = client.post(f"{ROLLOUT}/promote", json={})
        assert promoted.json()["current"] == "2", "without a version: the canary"
        os.kill(serving_process(server), signal.SIGKILL)
    events = server.events()
    assert [next(events)["event"] for _ in range(2)] == ["restart", "ready"]
    with server.client as client:
        assert version_of(client, jpeg) == "2"
        report = client.get(ROLLOUT).json()
        assert (report["current"], report["previous"], report["canary"]) == ("2", "1", None)
        assert [one["action"] for one in report["changes"]] == ["share", "promote"]
    assert server.stop() == 0


def test_what_was_decided_stands_for_the_next_server_or_it_says_why_not(
    start: Callable[..., Served], digits_bundle: Path, second_version: Path, tmp_path: Path, jpeg: bytes
) -> None:
    state = tmp_path / "state"
    first = start(digits_bundle, second_version, "--streams", "1", "--state", state)
    with first.client as client:
        client.post(f"{ROLLOUT}/promote", json={"version": "2", "reason": "better"}).raise_for_status()
    both = shipsight("serve", digits_bundle, "--port", "0", "--state", state)
    assert both.returncode == 2
    assert "another server" in both.stderr
    assert first.stop() == 0
    with (state / "rollouts.jsonl").open("ab") as record:
        record.write(b'{"schema": 1, "time": "2026-')
    second = start(digits_bundle, second_version, "--streams", "1", "--state", state, "--canary", "digits:2=0.1")
    with second.client as client:
        assert version_of(client, jpeg) == "2"
        assert client.get(ROLLOUT).json()["canary"] is None, "the current version is no canary"
        client.post(f"{ROLLOUT}/rollback").raise_for_status()
        client.post(f"{ROLLOUT}/promote", json={"version": "2"}).raise_for_status()
    assert second.stop() == 0
    lines = (state / "rollouts.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["action"] for line in lines] == ["promote", "rollback", "promote"]
    alone = shipsight("serve", digits_bundle, "--port", "0", "--state", state)
    assert alone.returncode == 2
    assert "expected version 2" in alone.stderr.replace("\n", " ") or "version 2" in alone.stderr
    third = start(digits_bundle, "--repository", second_version.parent, "--streams", "1", "--state", state)
    with third.client as client:
        assert version_of(client, jpeg) == "2", "it came from the repository"
    assert third.stop() == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "", {"canary": {"version": "7", "share": 0.1}}, 404),
        ("PUT", "", {"canary": {"version": "1", "share": 0.1}}, 400),
        ("PUT", "", {"canary": {"version": "2", "share": 0}}, 400),
        ("PUT", "", {"canary": {"version": "2", "share": True}}, 400),
        ("PUT", "", {"canary": {"version": "2"}}, 400),
        ("PUT", "", {"canary": "2"}, 400),
        ("PUT", "", {}, 400),
        ("PUT", "", {"canaries": None}, 400),
        ("PUT", "", [], 400),
        ("POST", "/promote", {"version": 2}, 400),
        ("POST", "/promote", {"version": "7"}, 404),
        ("POST", "/promote", {}, 400),
        ("POST", "/promote", {"version": "2", "reason": "r" * 501}, 400),
        ("POST", "/rollback", {}, 400),
        ("POST", "/rollback", {"version": "1"}, 400),
        ("PATCH", "", {}, 405),
    ],
    ids=lambda one: str(one)[:40],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    refusing: Served, method: str, path: str, body: object, status: int
) -> None:
    with refusing.client as client:
        answer = client.request(method, ROLLOUT + path, json=body)
        assert answer.status_code == status, answer.text
        assert set(answer.json()["error"]) == {"code", "what", "where", "expected", "got", "hint"}
        report = client.get(ROLLOUT).json()
    assert (report["current"], report["canary"], report["shadow"], report["changes"]) == ("1", None, None, [])


@pytest.fixture(scope="module")
def refusing(start: Callable[..., Served], digits_bundle: Path, second_version: Path) -> Served:
    return start(digits_bundle, second_version, "--streams", "1")


def test_an_unknown_model_has_no_rollout(refusing: Served) -> None:
    with refusing.client as client:
        assert client.get("/v1/models/other/rollout").status_code == 404
        assert client.delete("/v1/models/other/rollout").status_code == 404
        assert client.delete(ROLLOUT).json()["changed"] is False
        again = client.post(f"{ROLLOUT}/promote", json={"version": "1"}).json()
        assert again["changed"] is False, "the current version stays what it is, and nothing is recorded"


def test_shares_on_the_command_line_begin_with_the_server(
    start: Callable[..., Served], digits_bundle: Path, second_version: Path, jpeg: bytes
) -> None:
    server = start(
        digits_bundle, second_version, "--streams", "1", "--canary", "digits:2=0.3", "--shadow", "digits:2=1.0"
    )
    with server.client as client:
        report = client.get(ROLLOUT).json()
        assert report["canary"] == {"version": "2", "share": 0.3}
        assert report["shadow"] == {"version": "2", "share": 1.0}
        assert report["changes"][0]["principal"] == "server:this server"
        ended = client.delete(ROLLOUT).json()
        assert (ended["canary"], ended["shadow"], ended["current"]) == (None, None, "1")
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["--canary", "digits:7=0.1"], 2, "no such version"),
        (["--canary", "other:1=0.1"], 2, "no such model"),
        (["--canary", "digits"], 2, "MODEL:VERSION=SHARE"),
        (["--memory-mb", "1"], 2, "does not fit"),
        (["--memory-mb", "0"], 2, "too little"),
        (["--repository", "/nowhere"], 2, "no such folder"),
    ],
    ids=str,
)
def test_a_start_that_cannot_be_says_why(
    digits_bundle: Path, tmp_path: Path, arguments: list[str], status: int, told: str
) -> None:
    done = shipsight("serve", digits_bundle, "--streams", "1", "--port", "0", "--cache", tmp_path, *arguments)
    assert done.returncode == status
    assert told in done.stderr


def test_commands_say_what_a_server_says(two: Served) -> None:
    nothing = shipsight("rollback", "digits", "--server", two.url)
    assert nothing.returncode == 2
    assert "nothing to roll back" in nothing.stderr
    unknown = shipsight("promote", "other", "--version", "2", "--server", two.url, "--json")
    assert unknown.returncode == 2
    assert json.loads(unknown.stdout)["error"]["code"] == "not-found"
    done = shipsight("promote", "digits", "--version", "2", "--server", two.url)
    assert done.stdout.splitlines() == ["digits now answers with version 2 (before: 1)"]
    again = shipsight("promote", "digits", "--version", "2", "--server", two.url)
    assert "already answers with version 2" in again.stdout
