# SPDX-License-Identifier: Apache-2.0
"""Limits and fairness at a real server: what refusals say on the wire, metrics, and whom a flood delays."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.serve.conftest import Served

from shipsight.access import SERVER, Grant
from shipsight.access.service import Access
from shipsight.access.settings import AccessSettings

pytestmark = pytest.mark.slow  # servers that start

PREDICT = "/v1/models/digits/predict"
MOST_TIMES = 5.0
"""How many times as long the other principal's requests may take under a flood as alone, at the median. With nobody else a
request has all cores; under the flood it waits for one of the threads, and then shares the cores with three others."""


@dataclass
class Limited:
    """A server and its identities."""

    served: Served
    access: Access
    log: Path

    def key(self, name: str, **limits: str) -> dict[str, str]:
        _, text = self.access.keys.add(SERVER, name, grants=[Grant("predictor")], **limits)
        return {"authorization": f"Bearer {text}"}

    def metrics(self) -> str:
        _, text = self.access.keys.add(SERVER, "prometheus", grants=[Grant("viewer")])
        with self.served.client as client:
            return client.get("/metrics", headers={"authorization": f"Bearer {text}"}).text


@pytest.fixture(scope="module")
def limited(
    start: Callable[..., Served], digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Limited]:
    folder = tmp_path_factory.mktemp("limited")
    settings = AccessSettings(database=str(folder / "access.db"), secrets_key=folder / "access.key")
    with Access.open(settings, origin="http://localhost:8000") as access, (folder / "log").open("w") as log:
        access.directory.add_user(SERVER, "root", grants=[Grant("admin")])
        options = ("--database", folder / "access.db", "--secrets-key", folder / "access.key", "--quota", "100000/day")
        yield Limited(start(digits_bundle, *options, stderr=log), access, folder / "log")


def test_rate_of_a_key_is_refused_with_429_and_when_to_ask_again(limited: Limited, jpeg: bytes) -> None:
    """ASVS 2.4.1."""
    headers = limited.key("slow", rate="2/minute", quota="100/day")
    with limited.served.client as client:
        answers = [client.post(PREDICT, content=jpeg, headers=headers) for _ in range(4)]
        assert [one.status_code for one in answers] == [200, 200, 429, 429]
        assert answers[2].json()["error"]["code"] == "rate-limit"
        assert 1 <= int(answers[2].headers["retry-after"]) <= 121
        other = limited.key("other")
        assert client.post(PREDICT, content=jpeg, headers=other).status_code == 200, "another key is not concerned"
    assert 'shipsight_limited_requests_total{limit="rate",model="digits"} 2.0' in limited.metrics()
    told = [json.loads(line) for line in limited.log.read_text().splitlines()]
    limits = [one for one in told if one.get("event") == "limited" and one["actor"].startswith("key:slow.")]
    assert len(limits) == 1, "told once a minute"


def test_quota_counts_the_images_of_a_request(limited: Limited, jpeg: bytes) -> None:
    """ASVS 2.4.1."""
    headers = limited.key("few", quota="5/hour")
    with limited.served.client as client:
        files = [("image", (f"{number}.jpg", jpeg, "image/jpeg")) for number in range(3)]
        answers = [client.post(PREDICT, files=files, headers=headers) for _ in range(2)]
        assert [one.status_code for one in answers] == [200, 429]
        assert 3590 <= int(answers[1].headers["retry-after"]) <= 3601
        assert client.post(PREDICT, content=jpeg, headers=headers).status_code == 200, "there is room for one"


def test_model_that_is_not_served_counts_for_nothing(limited: Limited, jpeg: bytes) -> None:
    headers = limited.key("wanderer", rate="1/hour")
    with limited.served.client as client:
        for number in range(5):
            answer = client.post(f"/v1/models/made-up-{number}/predict", content=jpeg, headers=headers)
            assert answer.status_code == 404
        assert client.post(PREDICT, content=jpeg, headers=headers).status_code == 200


def test_noise_is_told_of(limited: Limited) -> None:
    import cv2

    headers = limited.key("copier")
    rng = np.random.default_rng(1)
    with limited.served.client as client:
        for _ in range(70):
            noise = cv2.imencode(".png", rng.integers(0, 256, (64, 96, 3), dtype=np.uint8))[1].tobytes()
            assert client.post(PREDICT, content=noise, headers=headers).status_code == 200
    until = time.monotonic() + 20
    while 'shipsight_extraction_suspected_total{model="digits",sign="noise"} 1.0' not in limited.metrics():
        assert time.monotonic() < until
        time.sleep(0.2)
    assert "extraction-suspected" in limited.log.read_text()


def asked(client: httpx.Client, headers: dict[str, str], jpeg: bytes, seconds: float) -> tuple[list[float], int]:
    """Asks ten times a second; returns how long answers took, and how many were none."""
    times, refused = [], 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        begin = time.monotonic()
        answer = client.post(PREDICT, content=jpeg, headers=headers)
        times.append(time.monotonic() - begin)
        refused += answer.status_code != 200
        time.sleep(max(0.1 - times[-1], 0.0))
    return times, refused


@pytest.mark.alone
def test_flood_by_one_key_leaves_another_its_latency(limited: Limited, jpeg: bytes) -> None:
    """ASVS 15.2.2."""
    flooding, modest = limited.key("flood"), limited.key("modest")
    ended = threading.Event()
    counts = {200: 0, 503: 0}

    def flood() -> None:
        with limited.served.client as client:
            while not ended.is_set():
                status = client.post(PREDICT, content=jpeg, headers=flooding).status_code
                counts[status] = counts.get(status, 0) + 1

    with limited.served.client as client:
        asked(client, modest, jpeg, 1.0)
        alone, refused = asked(client, modest, jpeg, 4.0)
        assert refused == 0
        threads = [threading.Thread(target=flood) for _ in range(64)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(2.0)
            crowded, refused = asked(client, modest, jpeg, 8.0)
        finally:
            ended.set()
            for thread in threads:
                thread.join()
    told = [f"{name} {1e3 * statistics.median(one):.1f} ms" for name, one in (("alone", alone), ("crowded", crowded))]
    assert refused == 0, (told, counts)
    assert set(counts) <= {200, 503}
    assert statistics.median(crowded) < MOST_TIMES * statistics.median(alone), (told, counts)
