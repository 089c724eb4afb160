# SPDX-License-Identifier: Apache-2.0
"""Shadows: asked again and compared, while no caller waits for them, whatever they do."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serve.conftest import Served, rewritten

from shipsight.access import LOOPBACK
from shipsight.errors import ImageUnreadableError
from shipsight.model import ImagePredictions
from shipsight.serve.limits import Limits
from shipsight.serve.models import Models, ServedModel
from shipsight.serve.opening import OpenSettings
from shipsight.serve.questions import EncodedImage, Question, Target
from shipsight.serve.rollout import Rollout, Share
from shipsight.serve.rollout_control import RolloutControl
from shipsight.serve.rollout_record import RolloutRecord
from shipsight.serve.scheduler import Scheduler
from shipsight.serve.service import PredictionService
from shipsight.serve.shadow import Mirrored, Shadow
from shipsight.vision import PredictSettings, TileSettings

pytestmark = pytest.mark.slow  # servers that start, die and wait

CONF = PredictSettings(conf=0.05)


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler(2)
    yield made
    made.close()


@pytest.fixture
def models(scheduler: Scheduler, digits_bundle: Path, second_version: Path) -> Iterator[Models]:
    made = Models(scheduler, OpenSettings(streams=1))
    for path in (digits_bundle, second_version):
        made.load(path)
    made.rollouts.put(Rollout("digits", "1", shadow=Share("2", 1.0)))
    yield made
    made.close()


@pytest.fixture
def shadow(models: Models, scheduler: Scheduler) -> Iterator[Shadow]:
    made = Shadow(models, scheduler)
    yield made
    made.close()


@pytest.fixture
def service(models: Models, scheduler: Scheduler, shadow: Shadow) -> PredictionService:
    control = RolloutControl(models, shadow, RolloutRecord(None))
    return PredictionService(models, scheduler, Limits(), rollouts=control)


def told(shadow: Shadow) -> dict[str, Any]:
    found = shadow.agreements().get(("digits", "2"))
    return {"compared": 0, "dropped": 0, "failed": 0} if found is None else found.to_dict()["images"]


def settle(shadow: Shadow, total: int) -> dict[str, Any]:
    end = time.monotonic() + 60
    while sum(told(shadow).values()) < total:
        assert time.monotonic() < end, told(shadow)
        time.sleep(0.01)
    return told(shadow)


def ask(service: PredictionService, jpeg: bytes, **target: str) -> str:
    question = Question(Target("digits", **target), [EncodedImage(jpeg)], CONF)
    return asyncio.run(service.predict(LOOPBACK, question)).predictions.version


def mirrored(
    service: PredictionService, jpeg: bytes, again: Callable[[ServedModel], tuple[ImagePredictions, float]]
) -> Mirrored:
    answer = asyncio.run(service.predict(LOOPBACK, Question(Target("digits", "1"), [EncodedImage(jpeg)], CONF)))
    return Mirrored(answer.predictions.images[0], 1.0, CONF.conf, len(jpeg), again)


def test_the_same_model_agrees_wholly_and_is_never_the_answer(
    service: PredictionService, shadow: Shadow, jpeg: bytes
) -> None:
    for _ in range(5):
        assert ask(service, jpeg) == "1"
        settle(shadow, 1)
    images = settle(shadow, 5)
    assert images["failed"] == 0
    assert images["compared"] >= 1
    report = service.rollouts.report("digits")["comparison"]
    assert report["predictions"]["confident"] > 0, "the scene holds something to compare"
    assert report["predictions"]["share"] == 1.0
    assert report["predictions"]["worst_iou"] > 0.99
    for side in ("current", "shadow"):
        assert 0 < report["latency_ms"][side]["p50"] <= report["latency_ms"][side]["p95"]


def test_a_shadow_is_asked_with_the_same_windows(service: PredictionService, shadow: Shadow, jpeg: bytes) -> None:
    question = Question(Target("digits"), [EncodedImage(jpeg)], CONF, tiles=TileSettings(128))
    for total in range(1, 4):
        asyncio.run(service.predict(LOOPBACK, question))
        settle(shadow, total)
    images = told(shadow)
    assert images["failed"] == 0
    assert images["compared"] >= 1
    assert service.rollouts.report("digits")["comparison"]["predictions"]["share"] == 1.0


def test_what_names_a_version_or_is_answered_by_another_is_not_mirrored(
    service: PredictionService, models: Models, shadow: Shadow, jpeg: bytes
) -> None:
    assert ask(service, jpeg, version="1") == "1"
    models.rollouts.put(Rollout("digits", "2", shadow=Share("1", 1.0), canary=None))
    assert ask(service, jpeg, version="1") == "1"
    assert shadow.agreements() == {}


def test_predictions_that_differ_lower_the_share(
    service: PredictionService, models: Models, shadow: Shadow, jpeg: bytes
) -> None:
    def fewer(model: ServedModel) -> tuple[ImagePredictions, float]:
        whole = mirrored(service, jpeg, lambda _: (_nothing(), 0.0)).predictions
        return whole.select(slice(0, 1)), 2.0

    one = mirrored(service, jpeg, fewer)
    shadow.mirror(models.find("digits", "1"), "key", [one])
    settle(shadow, 1)
    report = service.rollouts.report("digits")["comparison"]["predictions"]
    counted = int((one.predictions.scores >= 2 * CONF.conf).sum())
    assert counted > 1
    assert (report["confident"], report["matched"]) == (counted + 1, 2)


def _nothing() -> ImagePredictions:
    raise AssertionError


def test_a_shadow_that_hangs_holds_up_nobody(
    service: PredictionService, models: Models, shadow: Shadow, jpeg: bytes
) -> None:
    released, begun = threading.Event(), threading.Event()

    def hang(model: ServedModel) -> tuple[ImagePredictions, float]:
        begun.set()
        assert released.wait(120)
        raise ImageUnreadableError("released")

    shadow.mirror(models.find("digits", "1"), "key", [mirrored(service, jpeg, hang)])
    assert begun.wait(60)
    try:
        for _ in range(40):
            assert ask(service, jpeg) == "1"
        assert told(shadow)["compared"] == 0
        assert told(shadow)["dropped"] >= 20, "what it cannot keep up with is dropped, not kept"
    finally:
        released.set()
    assert settle(shadow, 41)["failed"] == 1


def test_a_shadow_that_fails_is_counted_and_the_next_image_is_compared(
    service: PredictionService, models: Models, shadow: Shadow, jpeg: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(model: ServedModel) -> tuple[ImagePredictions, float]:
        raise RuntimeError("the engine broke")

    shadow.mirror(models.find("digits", "1"), "key", [mirrored(service, jpeg, fail)])
    assert settle(shadow, 1)["failed"] == 1
    assert "the engine broke" in caplog.text
    assert ask(service, jpeg) == "1"
    assert settle(shadow, 2)["compared"] == 1


def test_while_callers_wait_for_a_thread_the_shadow_is_not_asked(
    service: PredictionService, models: Models, scheduler: Scheduler, shadow: Shadow, jpeg: bytes
) -> None:
    released = threading.Event()
    model = models.find("digits", "1")
    one = mirrored(service, jpeg, lambda _: (_nothing(), 0.0))
    jobs = [scheduler.submit(model.lane, lambda: released.wait(120), deadline_s=1e12) for _ in range(3)]
    assert scheduler.is_busy()
    shadow.mirror(model, "key", [one])
    assert settle(shadow, 1) == {"compared": 0, "dropped": 1, "failed": 0}
    released.set()
    assert all(job.result(60) for job in jobs)


def test_a_shadow_that_is_taken_out_of_service_ends_what_it_has_and_is_dropped(
    service: PredictionService, models: Models, shadow: Shadow, jpeg: bytes
) -> None:
    begun, released = threading.Event(), threading.Event()

    def slow(model: ServedModel) -> tuple[ImagePredictions, float]:
        begun.set()
        assert released.wait(60)
        assert model.runners, "an engine in use was closed"
        raise ImageUnreadableError("done")

    shadow.mirror(models.find("digits", "1"), "key", [mirrored(service, jpeg, slow)])
    assert begun.wait(60)
    leaving = threading.Thread(target=models.unload, args=("digits", "2"))
    leaving.start()
    leaving.join(0.3)
    assert leaving.is_alive(), "it waits for the image that is being compared"
    released.set()
    leaving.join(60)
    assert not leaving.is_alive()
    assert ask(service, jpeg) == "1"


@pytest.mark.alone
def test_a_shadow_of_all_traffic_costs_callers_little(
    start: Callable[..., Served], digits_bundle: Path, second_version: Path, jpeg: bytes
) -> None:
    server = start(digits_bundle, second_version, "--streams", "2")

    def median_ms(client: Any) -> float:
        times = []
        for _ in range(60):
            begin = time.perf_counter()
            assert client.post("/v1/models/digits/predict", content=jpeg).json()["version"] == "1"
            times.append((time.perf_counter() - begin) * 1e3)
            time.sleep(0.02)
        return statistics.median(times)

    with server.client as client:
        median_ms(client)
        alone = median_ms(client)
        put = client.put("/v1/models/digits/rollout", json={"shadow": {"version": "2", "share": 1}})
        assert put.status_code == 200, put.text
        beside = median_ms(client)
        report = client.get("/v1/models/digits/rollout").json()["comparison"]
        metrics = client.get("/metrics").text
    assert report["images"]["failed"] == 0
    assert report["images"]["compared"] >= 10
    assert 'shipsight_shadow_images_total{model="digits",outcome="compared",version="2"}' in metrics
    assert 'shipsight_shadow_latency_seconds{model="digits",quantile="0.95",side="shadow",version="2"}' in metrics
    # The machine may do other things; a caller that waited for the shadow would see about twice the time.
    assert beside < 1.8 * alone + 5, (alone, beside)
    assert server.stop() == 0


def test_a_version_that_does_not_replay_gets_no_share(
    start: Callable[..., Served], digits_bundle: Path, tmp_path: Path
) -> None:
    rewritten(digits_bundle, tmp_path / "other.bundle", version="9", weights_scale=1.5)
    server = start(digits_bundle, "--repository", tmp_path, "--streams", "1")
    with server.client as client:
        refused = client.put("/v1/models/digits/rollout", json={"shadow": {"version": "9", "share": 1}})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "replay-mismatch")
        assert client.get("/v1/models/digits/rollout").json()["shadow"] is None
        assert client.get("/readyz").status_code == 200, "a trial that fails takes nothing away"
    assert server.stop() == 0
